"""Methods by label, derived from the registries of constructions and learners, and the methods that a user names."""

import contextlib
import dataclasses
import hashlib
import inspect
import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lottery_jax.comparison.budget_methods import (
    BudgetMethod,
    LossAwareMethod,
    MagnitudePrunedTarget,
    supports_budgets,
)
from lottery_jax.comparison.methods import (
    ConstructionMethod,
    DenseTarget,
    LearnerMethod,
    Method,
    MethodSelection,
    RandomMask,
    WarmStarted,
)
from lottery_jax.constructions.base import Construction
from lottery_jax.constructions.registry import CONSTRUCTIONS
from lottery_jax.errors import InputError, listed_values, suggest
from lottery_jax.io.user_file import USER_OBJECT, user_object
from lottery_jax.mask_learning.edge_popup import EdgePopup
from lottery_jax.mask_learning.registry import LEARNERS, SOURCES
from lottery_jax.pruning import TRAINED
from lottery_jax.training.learner import Learner
from lottery_jax.training.optimizers import as_option

Options = Mapping[str, Mapping[str, Any]]
"""Options of constructions, learners and methods: {"edge-popup": {"learning_rate": 0.05}}."""


def all_learners() -> dict[str, type[Learner]]:
    """Every learner by name: those of masks of random weights, then those that train weights."""
    return {**LEARNERS, **TRAINED}


def all_methods(
    options: Options | None = None,
    *,
    candidates: int = Construction.candidates,
    labels: Collection[str] | None = None,
) -> dict[str, Method]:
    """Every method by its label, in the order of a report.

    Args:
        options: Options of constructions and learners by name. Default: their own defaults.
        candidates: Candidates per weight of every construction.
        labels: Labels of needed methods: others may be omitted. Default: all.

    >>> list(all_methods())[:3]
    ['dense', 'pensia', 'pensia-smallest']
    """
    given = options or {}
    names = {*CONSTRUCTIONS, *all_learners(), WarmStarted.label}
    if labels is not None:
        names, needed = set[str](), list(labels)
        for kind in (RandomMask, WarmStarted):
            if kind.label in labels:
                needed.append(str(kind.depends_on))
        for label in needed:
            # The name of a construction or learner begins the label: "a-b-c" may belong to a, a-b or a-b-c.
            names.update(itertools.accumulate(label.split("-"), "{}-{}".format))
    methods: list[Method] = [DenseTarget()]
    budgeted: list[Method] = []
    for name, kind in CONSTRUCTIONS.items():
        if name in names:
            construction = kind(**{"candidates": candidates, **given.get(name, {})})
            for objective in construction.objectives:
                methods.append(ConstructionMethod(construction, objective))
            if supports_budgets(construction):
                budgeted += [BudgetMethod(construction), LossAwareMethod(construction)]
    methods += budgeted
    for name, kind in all_learners().items():
        if name in names:
            learner = kind(**given.get(name, {}))
            for source in learner.sources or SOURCES:
                methods.append(LearnerMethod(learner, source))
    if WarmStarted.label in names:
        methods.append(WarmStarted(EdgePopup(**given.get(EdgePopup.name, {}))))
    by_label: dict[str, Method] = {}
    for method in (*methods, MagnitudePrunedTarget(), RandomMask()):
        by_label[method.label] = method
    return by_label


OLD_LABELS = {"random-at-start": "random-pruning"}
"""Labels of earlier versions, and their new spellings."""


def select_methods(
    methods: Sequence[str | Method | Construction | Learner | type] = (),
    options: Options | None = None,
    *,
    candidates: int = Construction.candidates,
) -> MethodSelection:
    """The methods that a user names.

    Args:
        methods: Labels, classes in files (``FILE.py:CLASS``), or ``Method``, ``Construction`` or ``Learner`` objects or
            classes. Default: the methods with ``is_default``.
        options: Options by the name of a construction, learner or method of the user. Objects keep their own.
        candidates: Candidates per weight of constructions given by name or class. Objects keep their own.

    Raises:
        InputError: A method or option is unknown.
    """
    methods, given = listed_values("methods", methods, "['pensia', 'edge-popup']"), options or {}
    kinds: dict[str, type] = {**CONSTRUCTIONS, **all_learners()}
    recorded = dict[str, Any]()
    for name in given:
        if name in kinds and (changed := _changed(kinds[name], given[name])):
            recorded[name] = changed
    chosen: list[str | Method] = []
    needed: set[str] = set()
    for method in methods:
        if isinstance(method, str) and USER_OBJECT.fullmatch(method):
            kind = user_class(method)
            name = option_name(kind)
            kinds[name] = kind
            own = as_method(kind, given.get(name), candidates=candidates)
            if own.label in all_methods(labels=[own.label]):
                raise InputError(
                    f"method {method!r} must have a new label, got {own.label!r}, which is taken. Rename it."
                )
            recorded[own.label] = {
                # Another version of the file is another method.
                "source": hashlib.sha256(Path(method.rpartition(":")[0]).read_bytes()).hexdigest()[:16],
                **_changed(kind, given.get(name)),
            }
        else:
            own = method if isinstance(method, str) else as_method(method, candidates=candidates)
        chosen.append(own)
        needed |= {own} if isinstance(own, str) else {own.label, *filter(None, [own.depends_on])}
    known, labels = all_methods(given, candidates=candidates, labels=needed or None), list[str]()
    for method, own in zip(methods, chosen, strict=True):
        if isinstance(own, str):
            if own not in known:
                if own in OLD_LABELS:
                    raise InputError(f"method {own!r} is now {OLD_LABELS[own]!r}; use the new name")
                hint = suggest(own, {**all_methods(), **known})
                raise InputError(f"method {own!r} is unknown; {hint} or name a class, FILE.py:CLASS")
            labels.append(own)
            continue
        if not isinstance(method, str) and known.get(own.label) != own:
            # Other options are other results, and another run folder.
            words = repr(own).replace(", optimizer=None", "")  # an option that earlier versions lack
            recorded[own.label] = words if dataclasses.is_dataclass(own) else type(own).__qualname__
        known[own.label] = own
        labels.append(own.label)
    if unknown := given.keys() - kinds.keys():
        name = min(unknown)
        raise InputError(
            f"options must be of constructions, learners or named classes, got {name!r}; {suggest(name, kinds)}"
        )
    selected = []
    for method in known.values():
        selected += [method] * (labels.count(method.label) if labels else method.is_default)
    return MethodSelection(tuple(selected), known, recorded, named=bool(methods))


def as_method(
    own: Any, options: Mapping[str, Any] | None = None, *, candidates: int = Construction.candidates
) -> Method:
    """A method of the user.

    Args:
        own: A ``Method``, ``Construction`` or ``Learner`` (on the wide source), or its class.
        options: Options of a class. An object keeps its own.
        candidates: Candidates per weight of a construction given as a class, unless ``options`` has them.

    Raises:
        InputError: ``own`` is anything else, or an abstract class.
    """
    bases = (Method, Construction, Learner)
    if not (issubclass(own, bases) if isinstance(own, type) else isinstance(own, bases)):
        raise InputError(f"{own!r} is not a Method, Construction or Learner. Derive it from one of them.")
    if inspect.isabstract(own):
        missing = ", ".join(sorted(own.__abstractmethods__))
        raise InputError(f"{own.__name__} does not define {missing}. Define the abstract methods of its base class.")
    if isinstance(own, type):
        defaults = {"candidates": candidates} if issubclass(own, Construction) else {}
        own = own(**{**defaults, **(options or {})})
    if isinstance(own, Construction):
        return ConstructionMethod(own)
    return LearnerMethod(own, (own.sources or ("wide",))[0]) if isinstance(own, Learner) else own


def user_class(word: str) -> type:
    """The class that FILE.py:CLASS names; the file is run.

    Raises:
        InputError: The file does not exist, fails, or lacks the class.
    """
    module, found = user_object(word, "method")
    if not isinstance(found, type):
        file, _, name = word.rpartition(":")
        raise InputError(f"{file!r} has no class {name}; name an existing class")
    with contextlib.suppress(ImportError):  # only workers of Dask need it: they cannot import the module
        import cloudpickle

        cloudpickle.register_pickle_by_value(module)
    return found


def option_name(kind: type) -> str:
    """The name under which a class has its options: its ``name``, else its ``label``, else its class name.

    >>> option_name(EdgePopup)
    'edge-popup'
    """
    names = (getattr(kind, "name", None), getattr(kind, "label", None), kind.__name__)
    return next(name for name in names if isinstance(name, str))


def _changed(kind: type, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options that differ from the defaults of a class."""
    defaults = {field.name: field.default for field in dataclasses.fields(kind)} if options else {}
    return {name: as_option(value) for name, value in (options or {}).items() if value != defaults.get(name)}
