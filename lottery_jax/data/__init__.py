"""Data sets with a fixed train, validation and test split."""

from lottery_jax.data.datasets import DATASETS, Dataset, Split, load

__all__ = ["DATASETS", "Dataset", "Split", "load"]
