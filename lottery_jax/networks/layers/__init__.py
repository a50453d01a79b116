"""Layers and containers, each with its Flax module."""
