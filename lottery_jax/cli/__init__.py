"""The command line."""

from lottery_jax.cli.main import main

__all__ = ["main"]
