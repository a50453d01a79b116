"""The cases of bench_subset_sum.py: what is measured, one file per kind."""
