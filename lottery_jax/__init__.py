"""Strong lottery tickets in JAX: random networks, pruned and never trained, that compute what trained ones compute.

The front door; everything is loaded when it is first used, so that importing this stays instant.
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "approximate": "lottery_jax.constructions.approximate",
    "verify": "lottery_jax.comparison.front",
    "compare": "lottery_jax.comparison.front",
    "load_ticket": "lottery_jax.tickets.ticket",
    "load_task": "lottery_jax.tasks.task",
    "load_model": "lottery_jax.tasks.model",
    "import_target": "lottery_jax.tasks.imports",
    "export_target": "lottery_jax.tasks.imports",
    "mlp_target": "lottery_jax.networks.zoo.mlp",
    "fisher_importance": "lottery_jax.constructions.budget.importance",
    "Ticket": "lottery_jax.tickets.ticket",
    "Certificate": "lottery_jax.tickets.certificate",
    "Target": "lottery_jax.networks.target",
    "Task": "lottery_jax.tasks.task",
    "Network": "lottery_jax.networks.network",
    "InputError": "lottery_jax.errors",
    "TicketError": "lottery_jax.errors",
}
_ROOMS = (
    *("bounds", "constructions", "data", "learned", "networks"),
    *("subset_sum", "tasks", "theory", "tickets", "trained"),
)

__all__ = [
    "Certificate",
    "InputError",
    "Network",
    "Target",
    "Task",
    "Ticket",
    "TicketError",
    "approximate",
    "bounds",
    "compare",
    "constructions",
    "data",
    "export_target",
    "fisher_importance",
    "import_target",
    "learned",
    "load_model",
    "load_task",
    "load_ticket",
    "mlp_target",
    "networks",
    "subset_sum",
    "tasks",
    "theory",
    "tickets",
    "trained",
    "verify",
]

if TYPE_CHECKING:
    from lottery_jax import (
        bounds,
        constructions,
        data,
        learned,
        networks,
        subset_sum,
        tasks,
        theory,
        tickets,
        trained,
    )
    from lottery_jax.comparison.front import compare, verify
    from lottery_jax.constructions.approximate import approximate
    from lottery_jax.constructions.budget.importance import fisher_importance
    from lottery_jax.errors import InputError, TicketError
    from lottery_jax.networks.network import Network
    from lottery_jax.networks.target import Target
    from lottery_jax.networks.zoo.mlp import mlp_target
    from lottery_jax.tasks.imports import export_target, import_target
    from lottery_jax.tasks.model import load_model
    from lottery_jax.tasks.task import Task, load_task
    from lottery_jax.tickets.certificate import Certificate
    from lottery_jax.tickets.ticket import Ticket, load_ticket


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"lottery_jax.{name}")
    raise AttributeError(f"module 'lottery_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
