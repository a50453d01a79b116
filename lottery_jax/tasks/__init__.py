"""Tasks: a data set and a trained target, the network to approximate."""

from lottery_jax.importers.state_dict import export_target, import_target, load_model
from lottery_jax.tasks.task import Recipe, Task, load_task, train_target

__all__ = ["Recipe", "Task", "export_target", "import_target", "load_model", "load_task", "train_target"]
