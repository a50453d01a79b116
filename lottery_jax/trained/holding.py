"""An optimiser under masks: what is pruned has its given value after every step, and it is counted where it has not."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

RatePart = Callable[[jax.Array], jax.Array]
"""From a step, counted from 0, to the part of the learning rate that it has."""


class Held(NamedTuple):
    """The optimiser's own state, the steps that are over, and after how many of them a pruned weight had moved."""

    own: Any
    step: jax.Array
    revived: jax.Array


def held(
    optimizer: optax.GradientTransformation,
    masks: Mapping[str, jax.Array],
    values: Mapping[str, jax.Array],
    part: RatePart | None = None,
) -> optax.GradientTransformation:
    """The optimiser for tensors of which some have masks: what is pruned has no gradient, and its value after a step.

    values: of the tensors with masks, what they are where they are pruned. part: of the learning rate, at a step.

    >>> mask, weight = {"w": jnp.array([True, False])}, {"w": jnp.array([1.0, 1.0])}
    >>> made = held(optax.sgd(0.5), mask, {"w": jnp.array([0.0, 0.25])})
    >>> step, _ = made.update(weight, made.init(weight), weight)
    >>> optax.apply_updates(weight, step)["w"].tolist()
    [0.5, 0.25]
    """

    def under(updates: Mapping[str, Any], otherwise: Callable[[str], Any]) -> dict[str, Any]:
        return {
            name: jnp.where(masks[name], value, otherwise(name)) if name in masks else value
            for name, value in updates.items()
        }

    def init(params: Any) -> Held:
        return Held(optimizer.init(params), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Held]:
        # These are the weights as the step before left them; the last step's are looked at when all is over.
        moved = [jnp.any((params[name] != values[name]) & ~mask) for name, mask in masks.items()]
        revived = state.revived + jnp.any(jnp.stack(moved)).astype(jnp.int32)
        # Without the gradient Adam's moments of pruned weights stay zero; what moves them all the same is undone.
        updates, own = optimizer.update(under(updates, lambda name: 0.0), state.own, params)
        if part is not None:
            rate = part(state.step)
            updates = jax.tree.map(lambda value: rate * value, updates)
        updates = under(updates, lambda name: values[name] - params[name])
        return updates, Held(own, state.step + 1, revived)

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]
