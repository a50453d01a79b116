"""Tasks: a data set and a trained target, the network to approximate."""

from lottery_jax.tasks.targets import Target, export_target, import_target
from lottery_jax.tasks.task import Task, load_task
from lottery_jax.tasks.train import train_target

__all__ = ["Target", "Task", "export_target", "import_target", "load_task", "train_target"]
