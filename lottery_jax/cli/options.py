"""The options of methods on the command line: the fields of their dataclasses, with their docstrings as help.

`Scalar.range` is `--scalar.range`. A class of the user's own, FILE.py:CLASS, has its options there too.

The long commands with the options of every method that they may use.
"""

import ast
import dataclasses
import inspect
import itertools
import textwrap
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import tyro

from lottery_jax.cli.settings import Approximate, Compare, TaskOptions
from lottery_jax.comparison.methods import Method
from lottery_jax.comparison.registry import all_learners, all_methods, as_method, chosen_methods, suggest_method
from lottery_jax.constructions.base import Construction
from lottery_jax.constructions.registry import CONSTRUCTIONS, construction_named
from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.transforms import Lock, PrePrune, ShareLayers, Transform


def with_options(settings: type, kinds: Iterable[type], left_out: Iterable[str] = ()) -> type:
    """The settings with a field for each kind of method that has options, named as the method is.

    left_out: options that the settings have for all methods alike.
    """
    fields: list[Any] = []
    taken = {field.name for field in dataclasses.fields(settings)}
    for kind in kinds:
        name, options = field_name(kind), _options(kind, set(left_out))
        if name in taken:
            raise InputError(f"{kind.__name__!r} has the name {name!r}, which is taken; give it another")
        taken.add(name)
        if options is not None:
            fields.append((name, options, dataclasses.field(default=options())))
    made = dataclasses.make_dataclass(settings.__name__, fields, bases=(settings,), frozen=True)
    made.__doc__ = settings.__doc__
    return made


def field_name(kind: type) -> str:
    """The field of a kind of method: the name of its construction or learner, the label of a method that has but one.

    >>> from lottery_jax.constructions.scalar import ScalarShared
    >>> field_name(ScalarShared)
    'scalar_shared'
    """
    return option_name(kind).replace("-", "_")


def made(kind: Any, settings: Any, **more: Any) -> Any:
    """A method of a kind with the options that the settings have for it."""
    options = getattr(settings, field_name(kind), None)
    given = (
        {} if options is None else {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    )
    return kind(**given, **more)


def _options(kind: Any, left_out: set[str]) -> Any:
    """A dataclass of the options of a kind, None where it has none."""
    helps, hints = field_docstrings(kind), typing.get_type_hints(kind)
    class_name, title = f"{kind.__name__}Options", field_name(kind).replace("_", "-")
    fields = []
    for field in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
        if field.name in left_out or not field.init:
            continue
        words = " ".join(helps.get(field.name, "").split())
        annotated = Annotated[hints[field.name], tyro.conf.arg(help=words)]  # type: ignore[valid-type]
        fields.append((field.name, annotated, dataclasses.field(default=field.default)))
    if not fields:
        return None
    options = dataclasses.make_dataclass(class_name, fields, frozen=True)
    options.__doc__ = f"Of {title}."
    return options


def field_docstrings(kind: type) -> Mapping[str, str]:
    """The docstrings below a dataclass's fields, its bases' among them.

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
                found[field.target.id] = words.value.value
    return found


LEFT_OUT = ("candidates",)  # an option of the command itself


def extended(settings: Any, words: Sequence[str]) -> Any:
    """Settings with the options of registered methods, and of classes of the user's own among the words."""
    kinds: list[Any] = list(CONSTRUCTIONS.values())
    if settings is Compare:
        kinds += [*all_learners().values(), *(user_class(word) for word in words if USER_CLASS.fullmatch(word))]
    return with_options(settings, kinds, LEFT_OUT)


def construction_of(command: Approximate, name: str) -> Construction:
    """The construction of a name with its options on the command line."""
    return made(construction_named(name), command, candidates=command.candidates)


def transforms_of(command: TaskOptions) -> tuple[Transform, ...]:
    """What the random sources are put through."""
    found: list[Transform] = []
    if command.density != 1:
        found.append(PrePrune(command.density))
    if command.locked != 0:
        found.append(Lock(command.locked))
    if command.share_layers:
        found.append(ShareLayers())
    return tuple(found)


def methods_of(command: Compare) -> tuple[tuple[Method, ...], dict[str, Method], dict[str, Any]]:
    """The methods asked for, in order; all that they may build on; and options that are not as usual."""
    constructions = {name: made(kind, command, candidates=command.candidates) for name, kind in CONSTRUCTIONS.items()}
    learners = {name: made(kind, command) for name, kind in all_learners().items()}
    known, options = all_methods(constructions, learners), {}
    for name, kind in {**CONSTRUCTIONS, **all_learners()}.items():
        if found := changed(kind, command):
            options[name] = found
    asked = list(command.methods)
    for place, word in enumerate(command.methods):
        if OWN.fullmatch(word):
            kind = own_class(word)
            method = as_method(kind, changed(kind, command), candidates=command.candidates)
            if method.label in known:
                raise InputError(f"{word!r} has the name {method.label!r}, which is taken; give it another")
            known[method.label] = method
            asked[place] = method.label
            options[method.label] = {"source": _digest(word), **changed(kind, command)}
        elif word not in known:
            raise InputError(
                f"method {word!r} is unknown; {suggest_method(word, known)} or name a class, FILE.py:CLASS"
            )
    return chosen_methods(known, asked), known, options


def _digest(word: str) -> str:
    """What the user's file holds: another version of it is another method."""
    match = OWN.fullmatch(word)
    assert match is not None
    return hashlib.sha256(Path(match[1]).read_bytes()).hexdigest()[:16]
