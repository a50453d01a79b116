"""The algorithms of the solvers: sorting, merging and enumerating integers, with the batch along the last axis."""
