"""Tickets: the file format, the verifier, and what is exported from them."""
