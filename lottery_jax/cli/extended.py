"""The long commands with the options of every method that they may use."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lottery_jax.cli.options import OWN, changed, made, own_class, with_options
from lottery_jax.cli.settings import Approximate, Compare, TaskOptions
from lottery_jax.comparison.methods import Method
from lottery_jax.comparison.registry import all_learners, all_methods, as_method, chosen_methods
from lottery_jax.constructions.base import Construction
from lottery_jax.constructions.registry import CONSTRUCTIONS, construction_named
from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.transforms import Transform
from lottery_jax.networks.transforms.fold_layers import FoldLayers
from lottery_jax.networks.transforms.lock import Lock
from lottery_jax.networks.transforms.pre_prune import PrePrune

LEFT_OUT = ("candidates",)  # an option of the command itself


def extended(settings: Any, words: Sequence[str]) -> Any:
    """Settings with the options of registered methods, and of classes of the user's own among the words."""
    kinds: list[Any] = list(CONSTRUCTIONS.values())
    if settings is Compare:
        kinds += [*all_learners().values(), *(own_class(word) for word in words if OWN.fullmatch(word))]
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
    if command.fold_layers:
        found.append(FoldLayers())
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
            raise InputError(f"method {word!r} is unknown; {suggest(word, known)} or name a class, FILE.py:CLASS")
    return chosen_methods(known, asked), known, options


def _digest(word: str) -> str:
    """What the user's file holds: another version of it is another method."""
    match = OWN.fullmatch(word)
    assert match is not None
    return hashlib.sha256(Path(match[1]).read_bytes()).hexdigest()[:16]
