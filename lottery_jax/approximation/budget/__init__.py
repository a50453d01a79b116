"""One budget of kept weights, or of error, for all weights of a target (`budget`)."""
