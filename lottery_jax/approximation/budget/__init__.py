"""One budget of kept weights, or of error, spent over all weights of a target."""
