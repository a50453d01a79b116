"""Units of work, and who runs them: this process, a share of the units, or the workers of an executor such as Dask's."""
