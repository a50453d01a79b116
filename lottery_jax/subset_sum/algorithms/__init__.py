"""The algorithms behind the solvers: sorting, merging, enumerating by size, on integers with the batch last."""
