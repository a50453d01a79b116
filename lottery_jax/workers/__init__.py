"""Units of work, and the processes that do them: one, a share of the units each, or a cluster."""
