"""Architectures: each a function from what is given and the number of classes to a network."""
