"""Every method by its label: they are derived from the registries of constructions and learners."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lottery_jax.comparison.budget_methods import BudgetMethod, LossAwareMethod, MagnitudePrunedTarget, budgets
from lottery_jax.comparison.methods import (
    ConstructionMethod,
    DenseTarget,
    LearnerMethod,
    Method,
    RandomMask,
    WarmStarted,
)
from lottery_jax.comparison.protocol import check_labels
from lottery_jax.constructions.base import Construction
from lottery_jax.constructions.registry import CONSTRUCTIONS
from lottery_jax.errors import InputError, suggest
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.mask_learning.registry import LEARNERS, SOURCES
from lottery_jax.pruning.registry import TRAINED
from lottery_jax.training.learner import Learner


def all_learners() -> dict[str, type[Learner]]:
    """Every learner by name: of masks of random weights, and of tickets whose weights are trained."""
    return {**LEARNERS, **TRAINED}


def all_methods(
    constructions: Mapping[str, Construction] | None = None,
    learners: Mapping[str, Learner] | None = None,
    *,
    candidates: int = Construction.candidates,
) -> dict[str, Method]:
    """Every method by its label, in the order of a report: the target, constructions, learned masks, chance.

    Args:
        constructions: By name, replacing those of the registry.
        learners: By name, replacing those of the registry.
        candidates: Candidates per weight of every construction from the registry.

    >>> list(all_methods())[:3]
    ['dense', 'pensia', 'pensia-smallest']
    """
    made = {
        name: (constructions or {}).get(name) or kind(candidates=candidates) for name, kind in CONSTRUCTIONS.items()
    }
    taught = {name: (learners or {}).get(name) or kind() for name, kind in all_learners().items()}
    methods: list[Method] = [DenseTarget()]
    methods += [
        ConstructionMethod(construction, asked) for construction in made.values() for asked in construction.objectives
    ]
    methods += [kind(one) for one in made.values() if budgets(one) for kind in (BudgetMethod, LossAwareMethod)]
    methods += [LearnerMethod(learner, source) for learner in taught.values() for source in learner.sources or SOURCES]
    popup = taught[EdgePopup.name]
    methods += [WarmStarted(popup)] if isinstance(popup, EdgePopup) else []
    return {method.label: method for method in [*methods, MagnitudePrunedTarget(), RandomMask()]}


OLD_LABELS = {"random-at-start": "random-pruning"}
"""Labels of earlier versions, and their new spellings."""


def suggest_method(label: str, known: Iterable[str]) -> str:
    """The new spelling of an old label, or the nearest known label.

    >>> suggest_method("random-at-start", all_methods())
    "its new name is 'random-pruning'"
    """
    return f"its new name is {OLD_LABELS[label]!r}" if label in OLD_LABELS else suggest(label, known)


def chosen_methods(known: Mapping[str, Method], labels: Sequence[str]) -> tuple[Method, ...]:
    """The methods with these labels in the order of a report, the default ones if there are no labels.

    Raises:
        InputError: Two labels are equal.
    """
    check_labels(labels)
    wanted = labels or [label for label, method in known.items() if method.is_default]
    return tuple(method for label, method in known.items() if label in wanted)


def as_method(
    own: Any, options: Mapping[str, Any] | None = None, *, candidates: int = Construction.candidates
) -> Method:
    """A method of the user's own.

    Args:
        own: A `Method`, a `Construction` or a `Learner` (on the wide source), or its class.
        options: The options of a class. An object keeps its own.
        candidates: Candidates per weight of a construction that is given as a class, unless `options` has them.

    Raises:
        InputError: `own` is anything else.
    """
    if not (issubclass(own, _OWN) if isinstance(own, type) else isinstance(own, _OWN)):
        raise InputError(f"{own!r} is no Method, Construction or Learner; derive it from one of them")
    if inspect.isabstract(own):
        missing = ", ".join(sorted(own.__abstractmethods__))
        raise InputError(f"{own.__name__} does not say how to {missing}; write what its parent leaves open")
    made = own
    if isinstance(own, type):
        made = own(**({"candidates": candidates} if issubclass(own, Construction) else {}) | dict(options or {}))
    if isinstance(made, Construction):
        return ConstructionMethod(made)
    return LearnerMethod(made, (made.sources or ("wide",))[0]) if isinstance(made, Learner) else made


_OWN = (Method, Construction, Learner)
