"""Optimisers with hyperparameters that are traced, learning rate schedules, and an optimiser that keeps masks."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Self, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lottery_jax.data.augment import augment
from lottery_jax.errors import InputError
from lottery_jax.training.losses import program_digest, qualified_name

Kind = Literal["constant", "cosine", "steps"]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A learning rate schedule over a whole training, as factors of the learning rate."""

    warmup: int = 0
    """Epochs in which the rate grows linearly from 0."""
    kind: Kind = "constant"
    """constant; cosine, to 0; steps, a tenth at 1/2 and again at 3/4 of the epochs."""

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise InputError(f"`warmup` must be at least 0, got {self.warmup}. Give a number of epochs.")
        if self.kind not in get_args(Kind):
            raise InputError(f"`schedule` must be one of {', '.join(get_args(Kind))}, got {self.kind!r}. Choose one.")

    @property
    def changes(self) -> bool:
        """Whether the factor is ever different from 1."""
        return self.warmup > 0 or self.kind != "constant"

    def factor(self, step: jax.Array, steps: int, epochs: jax.Array) -> jax.Array:
        """The factor at a step, counted from 0, in `epochs` epochs of `steps` steps each.

        >>> schedule = Schedule(warmup=1, kind="steps")
        >>> [round(float(schedule.factor(jnp.int32(step), 2, jnp.int32(4))), 2) for step in (0, 1, 2, 4, 6)]
        [0.0, 0.5, 1.0, 0.1, 0.01]
        """
        epoch = step.astype(jnp.float32) / steps
        done = epoch / epochs.astype(jnp.float32)
        if self.kind == "cosine":
            rate = (1 + jnp.cos(jnp.pi * jnp.minimum(done, 1.0))) / 2
        elif self.kind == "steps":
            rate = jnp.where(done < 0.5, 1.0, jnp.where(done < 0.75, 0.1, 0.01))
        else:
            rate = jnp.ones_like(done)
        return rate * jnp.minimum(epoch / self.warmup, 1.0) if self.warmup else rate


class OptaxOptimizer(str):
    """An optimiser of optax as an option, which is recorded as the text: its name, and a digest of what it computes.

    It updates any dictionary of arrays, and must not depend on their names.

    Args:
        transformation: The optimiser, with its learning rate or schedule.

    >>> OptaxOptimizer(optax.sgd(0.1)) == OptaxOptimizer(optax.sgd(0.2))
    False
    """

    transformation: optax.GradientTransformation

    def __new__(cls, transformation: optax.GradientTransformation) -> Self:
        sample = {"bias": jax.ShapeDtypeStruct((3,), np.float32), "weight": jax.ShapeDtypeStruct((2, 3), np.float32)}

        def first(parameters: Any) -> Any:
            return transformation.init(parameters)

        def step(gradient: Any, state: Any, parameters: Any) -> Any:
            return transformation.update(gradient, state, parameters)

        try:
            with jax.numpy_dtype_promotion("standard"):
                parts = (
                    program_digest(first, sample),
                    program_digest(step, sample, jax.eval_shape(first, sample), sample),
                )
        except Exception as error:  # an optimiser of the user raises anything
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                "`optimizer` must be an optax optimiser that needs gradients and parameters alone, got"
                f" {type(error).__name__} ({reason}). Use another one."
            ) from None
        digest = hashlib.sha256("".join(parts).encode()).hexdigest()[:16]
        self = super().__new__(cls, f"{qualified_name(transformation.update)} {digest}")
        self.transformation = transformation
        return self

    def __getnewargs__(self) -> tuple[optax.GradientTransformation]:  # type: ignore[override]
        return (self.transformation,)

    def __deepcopy__(self, memo: Any) -> Self:
        return self


def as_option(value: Any) -> Any:
    """The value of an option: an optimiser of optax as `OptaxOptimizer`, others unchanged."""
    return OptaxOptimizer(value) if isinstance(value, optax.GradientTransformation) else value


def check_unused(learner: Any) -> None:
    """Refuse options of a learner that its optimiser of optax replaces; raises `InputError`."""
    for field in dataclasses.fields(learner):
        if field.name in REPLACED_OPTIONS and (value := getattr(learner, field.name)) != field.default:
            raise InputError(
                f"`{field.name}` must be omitted with an optax optimiser, got {value}. Set it in the optimiser."
            )


REPLACED_OPTIONS = ("learning_rate", "momentum", "weight_decay")
"""Options of a learner that an optimiser of optax has itself."""


class Hyperparameters(NamedTuple):
    """Hyperparameters of a run, which are traced."""

    learning_rate: Any
    momentum: Any
    weight_decay: Any

    def check(self) -> None:
        """Refuse values that no optimiser can use; raises `InputError`."""
        check_learning_rate(self.learning_rate)
        if not (0 <= self.momentum < 1 and 0 <= self.weight_decay < np.inf):
            raise InputError(
                "`momentum` must be in [0, 1) and `weight_decay` finite and at least 0, got"
                f" {self.momentum} and {self.weight_decay}. Change the wrong one."
            )


def check_learning_rate(rate: float) -> None:
    """Refuse a learning rate that is not positive and finite; raises `InputError`."""
    if not 0 < rate < np.inf:
        raise InputError(f"`learning_rate` must be positive and finite, got {rate}. Give another one.")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The part of an optimiser that is compiled: its kind, schedule, batch size and augmentation."""

    optimizer: Literal["adam", "sgd"] | OptaxOptimizer
    batch_size: int
    schedule: Schedule = dataclasses.field(default_factory=Schedule)
    augment: str = "none"

    def __post_init__(self) -> None:
        if self.optimizer not in ("adam", "sgd") and not isinstance(self.optimizer, OptaxOptimizer):
            raise InputError(f"`optimizer` must be adam or sgd, got {self.optimizer!r}. Choose one, or one of optax.")
        augment(self.augment)

    def build(self, values: Hyperparameters) -> optax.GradientTransformation:
        """The optimiser without its schedule; matrices and kernels alone have weight decay."""
        if isinstance(self.optimizer, OptaxOptimizer):
            return self.optimizer.transformation
        adam = self.optimizer == "adam"
        steps = optax.adam(values.learning_rate) if adam else optax.sgd(values.learning_rate, momentum=values.momentum)
        matrices = optax.add_decayed_weights(values.weight_decay, mask=lambda t: jax.tree.map(lambda x: x.ndim > 1, t))
        return optax.chain(matrices, steps)


class MaskedOptimizerState(NamedTuple):
    """State of the inner optimiser, number of steps, and number of steps after which a pruned weight had moved."""

    inner: Any
    step: jax.Array
    revived: jax.Array


def masked_optimizer(
    optimizer: optax.GradientTransformation,
    masks: Mapping[str, jax.Array],
    values: Mapping[str, jax.Array],
    factor: Callable[[jax.Array], jax.Array] | None = None,
) -> optax.GradientTransformation:
    """An optimiser under masks: pruned weights have no gradient, and a fixed value after each step.

    Args:
        optimizer: The inner optimiser.
        masks: Kept weights, bool by tensor; other tensors are trained as a whole.
        values: Tensors with the values of the pruned weights, by the names of the masks.
        factor: From a step, counted from 0, to the factor of the learning rate. Default: 1.

    >>> mask, weight = {"w": jnp.array([True, False])}, {"w": jnp.array([1.0, 1.0])}
    >>> masked = masked_optimizer(optax.sgd(0.5), mask, {"w": jnp.array([0.0, 0.25])})
    >>> step, _ = masked.update(weight, masked.init(weight), weight)
    >>> optax.apply_updates(weight, step)["w"].tolist()
    [0.5, 0.25]
    """

    def masked(updates: Mapping[str, Any], pruned: Callable[[str], Any]) -> dict[str, Any]:
        return {
            name: jnp.where(masks[name], value, pruned(name)) if name in masks else value
            for name, value in updates.items()
        }

    def init(params: Any) -> MaskedOptimizerState:
        return MaskedOptimizerState(optimizer.init(params), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, MaskedOptimizerState]:
        # The weights after the previous step; the caller compares those after the last step.
        moved = [jnp.any((params[name] != values[name]) & ~mask) for name, mask in masks.items()]
        revived = state.revived + jnp.any(jnp.stack(moved)).astype(jnp.int32)
        # Without gradients Adam's moments of pruned weights stay zero; weight decay may still move them.
        updates, inner = optimizer.update(masked(updates, lambda name: 0.0), state.inner, params)
        if factor is not None:
            rate = factor(state.step)
            updates = jax.tree.map(lambda value: rate * value, updates)
        updates = masked(updates, lambda name: values[name] - params[name])
        return updates, MaskedOptimizerState(inner, state.step + 1, revived)

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]
