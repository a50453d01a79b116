"""Data sets with fixed training, validation and test splits."""

from lottery_jax.data.dataset import Dataset, Split
from lottery_jax.data.datasets import DATASETS, load

__all__ = ["DATASETS", "Dataset", "Split", "load"]
