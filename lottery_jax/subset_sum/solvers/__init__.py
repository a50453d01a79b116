"""The solvers: one file for each kind of search."""
