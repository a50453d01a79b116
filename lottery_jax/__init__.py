"""Strong lottery tickets in JAX."""
