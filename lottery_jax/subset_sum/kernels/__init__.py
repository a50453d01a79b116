"""Hand-written kernels: optional, bit-equal to the XLA code beside them, used where a benchmark shows that they win."""

HOST_SIZES = range(12, 25)
"""Numbers of candidates that the CPU kernel takes."""
