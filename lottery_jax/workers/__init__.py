"""Units of work, run by this process, by a share of processes, or by the workers of an executor such as Dask's."""
