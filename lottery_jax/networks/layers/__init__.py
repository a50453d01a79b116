"""Kinds of layers: each is one file with its Flax module."""
