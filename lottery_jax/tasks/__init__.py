"""Tasks: a data set and a trained target, the network to approximate."""

from lottery_jax.tasks.imports import export_target, import_target
from lottery_jax.tasks.model import load_model
from lottery_jax.tasks.recipes import Recipe
from lottery_jax.tasks.task import Task, load_task
from lottery_jax.tasks.train import train_target

__all__ = ["Recipe", "Task", "export_target", "import_target", "load_model", "load_task", "train_target"]
