"""Options of methods on the command line: the fields of their dataclasses, with their docstrings as help.

`Scalar.range` is ``--scalar.range``. A class of the user's own, FILE.py:CLASS, has its options there too.
"""

import ast
import dataclasses
import inspect
import itertools
import textwrap
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any

import tyro

from lottery_jax.cli.settings import Approximate, Compare, TaskOptions
from lottery_jax.constructions.base import Construction
from lottery_jax.constructions.registry import CONSTRUCTIONS, construction_named
from lottery_jax.errors import InputError
from lottery_jax.io.user_file import USER_OBJECT
from lottery_jax.networks.transforms import Lock, PrePrune, ShareLayers, Transform

_COMMAND_OPTIONS = ("candidates",)  # options of the command itself, not of each method


def extended(settings: type, words: Sequence[str]) -> type:
    """Settings with the options of registered methods, and of the user's own classes among the words.

    For ``--help``, an option that several methods share is described once, and a list names the other methods.
    """
    kinds: list[Any] = list(CONSTRUCTIONS.values())
    if settings is Compare:
        from lottery_jax.comparison.registry import all_learners, user_class

        kinds += [*all_learners().values(), *(user_class(word) for word in words if USER_OBJECT.fullmatch(word))]
    if not {"-h", "--help"} & set(words):
        return with_options(settings, kinds)
    shared = _shared_options(kinds)
    made = with_options(settings, kinds, {kind: set(names) for kind, names in shared.items()})
    made.__doc__ = f"{inspect.cleandoc(settings.__doc__ or '')}\n\n{_shared_help(shared)}"
    if settings is Compare:
        methods = Annotated[tuple[str, ...], tyro.conf.arg(help=methods_help())]
        made = dataclasses.make_dataclass(
            settings.__name__, [("methods", methods, dataclasses.field(default=()))], bases=(made,), frozen=True
        )
        made.__doc__ = made.__mro__[1].__doc__
    return made


def with_options(settings: type, kinds: Iterable[type], hidden: Mapping[type, Collection[str]] | None = None) -> type:
    """The settings with a field for each method that has options, named as the method is.

    Args:
        settings: The dataclass of a command.
        kinds: The methods' dataclasses.
        hidden: Names of options that a method does not show.
    """
    fields: list[Any] = []
    taken = {field.name for field in dataclasses.fields(settings)}
    for kind in kinds:
        name, options = field_name(kind), _options(kind, (hidden or {}).get(kind, ()))
        if name in taken:
            raise InputError(f"{kind.__name__!r} has the name {name!r}, which is taken; give it another")
        taken.add(name)
        if options is not None:
            fields.append((name, options, dataclasses.field(default=options())))
    made = dataclasses.make_dataclass(settings.__name__, fields, bases=(settings,), frozen=True)
    made.__doc__ = settings.__doc__
    return made


def field_name(kind: type) -> str:
    """The field of a method: the name of its construction or learner, or the label of a method that has only one.

    >>> from lottery_jax.constructions.scalar import ScalarShared
    >>> field_name(ScalarShared)
    'scalar_shared'
    """
    names = (getattr(kind, "name", None), getattr(kind, "label", None), kind.__name__)
    return next(name for name in names if isinstance(name, str)).replace("-", "_")


def _option_fields(kind: Any) -> list[dataclasses.Field]:
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    hints = typing.get_type_hints(kind)
    return [
        field
        for field in fields
        if field.init and field.name not in _COMMAND_OPTIONS and _command_type(hints[field.name]) is not type(None)
    ]


def _command_type(hint: Any) -> Any:
    """The type of an option on the command line, where no option is an object of optax."""
    members = [each for each in typing.get_args(hint) if getattr(each, "__module__", "").startswith("optax")]
    if not members:
        return hint
    return typing.Union[tuple(each for each in typing.get_args(hint) if each not in members)]  # noqa: UP007


def _options(kind: Any, hidden: Collection[str]) -> Any:
    """A dataclass of the options of a method, None if it has none."""
    helps, hints = field_docstrings(kind), typing.get_type_hints(kind)
    fields = []
    for field in _option_fields(kind):
        if field.name in hidden:
            continue
        annotated = Annotated[_command_type(hints[field.name]), tyro.conf.arg(help=helps.get(field.name, ""))]  # type: ignore[valid-type]
        fields.append((field.name, annotated, dataclasses.field(default=field.default)))
    if not fields:
        return None
    options = dataclasses.make_dataclass(f"{kind.__name__}Options", fields, frozen=True)
    options.__doc__ = ""  # the group's title is enough
    return options


def _shared_options(kinds: Iterable[type]) -> dict[type, dict[str, tuple[type, Any]]]:
    """By method, its options that an earlier method has too: the first such method, and the own default."""
    first: dict[tuple[str, str], type] = {}
    found: dict[type, dict[str, tuple[type, Any]]] = {}
    for kind in kinds:
        helps = field_docstrings(kind)
        for field in _option_fields(kind):
            owner = first.setdefault((field.name, helps.get(field.name, "")), kind)
            if owner is not kind:
                found.setdefault(kind, {})[field.name] = owner, field.default
    return found


def _shared_help(shared: Mapping[type, Mapping[str, tuple[type, Any]]]) -> str:
    """The methods with options that are described at another method, and their other defaults in brackets."""
    methods: dict[str, list[str]] = {}
    for kind, options in shared.items():
        by_owner: dict[type, list[str]] = {}
        for name, (owner, default) in options.items():
            before = next(field.default for field in dataclasses.fields(owner) if field.name == name)  # type: ignore[arg-type]
            word = name.replace("_", "-") + ("" if before == default else f" ({default})")
            by_owner.setdefault(owner, []).append(word)
        parts = [f"{', '.join(names)} of {field_name(owner)}" for owner, names in by_owner.items()]
        methods.setdefault("; ".join(parts), []).append(field_name(kind))
    lines = [f"{', '.join(names)}: {words}.".replace("_", "-") for words, names in methods.items()]
    return "\n\n".join(["Options that are described at another method (other defaults in brackets):", *lines])


def field_docstrings(kind: type) -> Mapping[str, str]:
    """The docstrings below the fields of a dataclass and of its bases, each on one line.

    >>> from lottery_jax.constructions.scalar import Scalar
    >>> field_docstrings(Scalar)["candidates"]
    'Candidates for each target weight.'
    """
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for field, words in itertools.pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(words, ast.Expr)
                and isinstance(words.value, ast.Constant)
                and isinstance(words.value.value, str)
            ):
                found[field.target.id] = " ".join(words.value.value.split())
    return found


def construction_of(command: Approximate) -> Construction:
    """The construction of the command with the options of its group."""
    kind = construction_named(command.construction or ("pensia" if command.model is None else "scalar"))
    return kind(**_changed(kind, command))


def transforms_of(command: TaskOptions) -> tuple[Transform, ...]:
    """The transforms of the random source."""
    found: list[Transform] = []
    if command.density != 1:
        found.append(PrePrune(command.density))
    if command.locked != 0:
        found.append(Lock(command.locked))
    if command.share_layers:
        found.append(ShareLayers())
    return tuple(found)


def _changed(kind: type, command: Any) -> dict[str, Any]:
    """The options of a method that differ from its defaults, by name."""
    options = getattr(command, field_name(kind), None)
    fields = () if options is None else dataclasses.fields(options)
    return {field.name: value for field in fields if (value := getattr(options, field.name)) != field.default}


def methods_help() -> str:
    """The methods of a comparison in words, from the registries."""
    from lottery_jax.comparison.registry import all_methods
    from lottery_jax.mask_learning.registry import LEARNERS
    from lottery_jax.pruning import TRAINED

    known = all_methods()
    groups = {"Constructions": CONSTRUCTIONS, "Learned masks": LEARNERS, "Trained tickets": TRAINED}
    listed, parts = set(), []
    for title, registry in groups.items():
        by_endings: dict[tuple[str, ...], list[str]] = {}
        for name in registry:
            longer = [other for other in registry if other.startswith(f"{name}-")]
            own = [label for label in known if label == name or label.startswith(f"{name}-")]
            own = [label for label in own if not any(label == o or label.startswith(f"{o}-") for o in longer)]
            by_endings.setdefault(tuple(label.removeprefix(name) for label in own), []).append(name)
            listed.update(own)
        sentences = []
        for endings, names in by_endings.items():
            more = [ending for ending in endings if ending]
            also = "" if not more else f" (also {', '.join(more)})" if "" in endings else f" (each {', '.join(more)})"
            sentences.append(", ".join(names) + also)
        parts.append(f"{title}: {'; '.join(sentences)}")
    others = [label for label in known if label not in listed]
    default = [label for label, method in known.items() if method.is_default]
    return (
        f"Methods by label (docs/methods.md). {'. '.join(parts)}. Others: {', '.join(others)}, or a class of your own,"
        f" FILE.py:CLASS. Default: {', '.join(default)}."
    )


RENAMED_OPTIONS = {
    "--fold-layers": "--share-layers",
    "--random-at-start": "--random-pruning",
    ".together": ".runs-per-step",
    ".kept-weights": ".mask-1-action",
    ".pruned-weights": ".mask-0-action",
}
"""Old to new spellings: of a whole option, of a method before the dot, and of a method's option after the dot."""


def refuse_renamed(words: Sequence[str]) -> None:
    """Refuse an option of an earlier version, and name the new one.

    Raises:
        InputError: One of the words is such an option.
    """
    for word in words:
        option = word.partition("=")[0].replace("_", "-")
        method, dot, field = option.partition(".")
        new = RENAMED_OPTIONS.get(method, method) + RENAMED_OPTIONS.get(dot + field, dot + field)
        if option.startswith("--") and new != option:
            raise InputError(f"{option} is now {new}; use the new name")
