"""Kinds of random sources: each wraps the operation whose weights it makes."""
