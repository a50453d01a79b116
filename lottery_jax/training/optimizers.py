"""How the learning rate changes: a linear warm-up and what comes after it, as parts of the rate that is asked for.

An optimiser under masks: what is pruned has its given value after every step, and it is counted where it has not.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from lottery_jax.errors import InputError

Kind = Literal["constant", "cosine", "steps"]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A warm-up of so many epochs from 0, then constant, along a cosine to 0, or a tenth at 1/2 and again at 3/4.

    The parts are of the whole training: who begins at a later epoch continues there.
    """

    warmup: int = 0
    kind: Kind = "constant"

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise InputError(f"the warm-up has {self.warmup} epochs; give 0 or more")
        if self.kind not in get_args(Kind):
            raise InputError(f"the schedule {self.kind!r} is unknown; use one of {', '.join(get_args(Kind))}")

    @property
    def changes(self) -> bool:
        """Whether the rate is ever another one."""
        return self.warmup > 0 or self.kind != "constant"

    def part(self, step: jax.Array, steps: int, epochs: jax.Array) -> jax.Array:
        """The part of the rate at a step counted from 0, of epochs of `steps` each.

        >>> schedule = Schedule(warmup=1, kind="steps")
        >>> [round(float(schedule.part(jnp.int32(step), 2, jnp.int32(4))), 2) for step in (0, 1, 2, 4, 6)]
        [0.0, 0.5, 1.0, 0.1, 0.01]
        """
        place = step.astype(jnp.float32) / steps
        done = place / epochs.astype(jnp.float32)
        if self.kind == "cosine":
            rate = (1 + jnp.cos(jnp.pi * jnp.minimum(done, 1.0))) / 2
        elif self.kind == "steps":
            rate = jnp.where(done < 0.5, 1.0, jnp.where(done < 0.75, 0.1, 0.01))
        else:
            rate = jnp.ones_like(done)
        return rate * jnp.minimum(place / self.warmup, 1.0) if self.warmup else rate


RatePart = Callable[[jax.Array], jax.Array]
"""From a step, counted from 0, to the part of the learning rate that it has."""


class MaskedOptimizerState(NamedTuple):
    """The optimiser's own state, the steps that are over, and after how many of them a pruned weight had moved."""

    own: Any
    step: jax.Array
    revived: jax.Array


def masked_optimizer(
    optimizer: optax.GradientTransformation,
    masks: Mapping[str, jax.Array],
    values: Mapping[str, jax.Array],
    part: RatePart | None = None,
) -> optax.GradientTransformation:
    """The optimiser for tensors of which some have masks: what is pruned has no gradient, and its value after a step.

    values: of the tensors with masks, what they are where they are pruned. part: of the learning rate, at a step.

    >>> mask, weight = {"w": jnp.array([True, False])}, {"w": jnp.array([1.0, 1.0])}
    >>> made = masked_optimizer(optax.sgd(0.5), mask, {"w": jnp.array([0.0, 0.25])})
    >>> step, _ = made.update(weight, made.init(weight), weight)
    >>> optax.apply_updates(weight, step)["w"].tolist()
    [0.5, 0.25]
    """

    def under(updates: Mapping[str, Any], otherwise: Callable[[str], Any]) -> dict[str, Any]:
        return {
            name: jnp.where(masks[name], value, otherwise(name)) if name in masks else value
            for name, value in updates.items()
        }

    def init(params: Any) -> MaskedOptimizerState:
        return MaskedOptimizerState(optimizer.init(params), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, MaskedOptimizerState]:
        # These are the weights as the step before left them; the last step's are looked at when all is over.
        moved = [jnp.any((params[name] != values[name]) & ~mask) for name, mask in masks.items()]
        revived = state.revived + jnp.any(jnp.stack(moved)).astype(jnp.int32)
        # Without the gradient Adam's moments of pruned weights stay zero; what moves them all the same is undone.
        updates, own = optimizer.update(under(updates, lambda name: 0.0), state.own, params)
        if part is not None:
            rate = part(state.step)
            updates = jax.tree.map(lambda value: rate * value, updates)
        updates = under(updates, lambda name: values[name] - params[name])
        return updates, MaskedOptimizerState(own, state.step + 1, revived)

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]
