"""Every sampler of a source changed: what transforms of the random weights one by one have in common."""

import dataclasses
from collections.abc import Callable
from typing import Any

from lottery_jax.errors import InputError
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node
from lottery_jax.networks.sources.source import Source
from lottery_jax.sampler import Sampler


def with_samplers(source: Network, change: Callable[[Sampler], Sampler], refusal: str) -> Network:
    """A source whose samplers are changed; raises `InputError` where a leaf has none, and so `refusal` is the case."""

    def changed(value: Any) -> Any:
        """What a field holds: one sampler, or one for each tensor."""
        if isinstance(value, Sampler):
            return change(value)
        if isinstance(value, tuple) and value and all(isinstance(part, Sampler) for part in value):
            return tuple(change(part) for part in value)
        return value

    def leaf(path: str, node: Node) -> Node:
        if not isinstance(node, Source):
            return node
        fields = {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}  # type: ignore[arg-type]
        found = {name: new for name, value in fields.items() if (new := changed(value)) is not value}
        if not found:
            raise InputError(
                f"the weights of {path!r}, a {node.kind}, have no distribution of their own, so that {refusal}, or"
                " another construction"
            )
        return dataclasses.replace(node, **found)  # type: ignore[type-var]

    return source.replaced(leaf)
