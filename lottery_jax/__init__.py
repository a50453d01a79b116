"""Strong lottery tickets in JAX: random networks, pruned and never trained, that compute what trained ones compute.

Every name is imported at first use, so that `import lottery_jax` is instant.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lottery_jax import (
        approximation,
        bounds,
        constructions,
        data,
        importers,
        layers,
        mask_learning,
        networks,
        pruning,
        subset_sum,
        tasks,
        theory,
        tickets,
    )
    from lottery_jax.approximation.api import approximate
    from lottery_jax.approximation.importance import fisher_importance
    from lottery_jax.comparison.api import compare
    from lottery_jax.data.dataset import Dataset
    from lottery_jax.errors import InputError, TicketError
    from lottery_jax.importers.mlp_weights import mlp_target
    from lottery_jax.importers.state_dict import export_target, import_target, load_model
    from lottery_jax.importers.target_from import target_from
    from lottery_jax.listing import list_architectures, list_layers, list_methods, list_solvers
    from lottery_jax.networks.network import Network
    from lottery_jax.networks.target import Target
    from lottery_jax.tasks.task import Task, load_task
    from lottery_jax.tickets.certificate import Certificate
    from lottery_jax.tickets.ticket import Ticket, load_ticket
    from lottery_jax.tickets.verify import verify

_MODULES = {
    "approximate": "lottery_jax.approximation.api",
    "verify": "lottery_jax.tickets.verify",
    "compare": "lottery_jax.comparison.api",
    "load_ticket": "lottery_jax.tickets.ticket",
    "load_task": "lottery_jax.tasks.task",
    "load_model": "lottery_jax.importers.state_dict",
    "import_target": "lottery_jax.importers.state_dict",
    "export_target": "lottery_jax.importers.state_dict",
    "mlp_target": "lottery_jax.importers.mlp_weights",
    "target_from": "lottery_jax.importers.target_from",
    "fisher_importance": "lottery_jax.approximation.importance",
    "list_architectures": "lottery_jax.listing",
    "list_layers": "lottery_jax.listing",
    "list_methods": "lottery_jax.listing",
    "list_solvers": "lottery_jax.listing",
    "Ticket": "lottery_jax.tickets.ticket",
    "Certificate": "lottery_jax.tickets.certificate",
    "Target": "lottery_jax.networks.target",
    "Task": "lottery_jax.tasks.task",
    "Dataset": "lottery_jax.data.dataset",
    "Network": "lottery_jax.networks.network",
    "InputError": "lottery_jax.errors",
    "TicketError": "lottery_jax.errors",
}

_PACKAGES = (
    *("approximation", "bounds", "constructions", "data", "importers", "layers", "mask_learning"),
    *("networks", "pruning", "subset_sum", "tasks", "theory", "tickets"),
)

__all__ = [
    "Certificate",
    "Dataset",
    "InputError",
    "Network",
    "Target",
    "Task",
    "Ticket",
    "TicketError",
    "approximate",
    "approximation",
    "bounds",
    "compare",
    "constructions",
    "data",
    "export_target",
    "fisher_importance",
    "import_target",
    "importers",
    "layers",
    "list_architectures",
    "list_layers",
    "list_methods",
    "list_solvers",
    "load_model",
    "load_task",
    "load_ticket",
    "mask_learning",
    "mlp_target",
    "networks",
    "pruning",
    "subset_sum",
    "target_from",
    "tasks",
    "theory",
    "tickets",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"lottery_jax.{name}")
    raise AttributeError(f"module 'lottery_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
