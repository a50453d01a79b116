"""Data sets with a fixed train, validation and test split."""

from lottery_jax.data.dataset import Dataset, Split
from lottery_jax.data.datasets import DATASETS, load

__all__ = ["DATASETS", "Dataset", "Split", "load"]
