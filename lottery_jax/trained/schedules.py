"""How the learning rate changes: a linear warm-up and what comes after it, as parts of the rate that is asked for."""

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp

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
