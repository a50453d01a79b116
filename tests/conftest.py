"""Settings of every test: strict dtype promotion, and no test may leave a mark outside its own folder."""

import os

# Set before JAX is imported: an implicit int/float promotion is then an error instead of a silent widening.
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
# matplotlib draws to files only; no test may need a screen.
os.environ.setdefault("MPLBACKEND", "Agg")
