"""The check that an imported target computes what the original does, on examples."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target

Original = Callable[[jax.Array], Any]
"""x [B, *input], float32 -> outputs [B, *output], as JAX or NumPy arrays."""

TARGET_FROM = "Import the module itself with lottery_jax.target_from(module, example)."

ACCURACY = 1e-4
"""Largest difference of two float32 computations of one output, as a part of the output's largest |value|."""
_LEAST_SCALE = 1e-3  # of an output, as a part of all outputs' largest |value|: tiny outputs are sums that cancel
_SCALES = (0.1, 1.0, 10.0, 100.0)
_EXAMPLES, _NUMBERS = 16, 1 << 16  # of one scale and sign: at most so many examples, and at least two


def check_agreement(
    target: Target, function: Original, examples: np.ndarray | jax.Array, *, what: str, advice: str = ""
) -> None:
    """Refuse a target whose outputs differ from those of the original by more than float32 rounding.

    An output differs if it is off by more than `ACCURACY` times its largest |value| over the examples. Examples of
    another scale therefore belong into a call of their own.

    Args:
        function: The original.
        examples: Inputs [B, *input] of about one scale.
        what: The original in words, at the start of the refusal.
        advice: What to do about a difference, as sentences.

    Raises:
        InputError: The outputs differ in shape or value, or are not finite, or the original cannot be run.

    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> one, x = mlp_target([np.eye(2, dtype=np.float32)]), np.ones((3, 2), np.float32)
    >>> check_agreement(one, lambda x: x, x, what="the function")
    >>> check_agreement(one, jnp.tanh, x, what="the function")
    Traceback (most recent call last):
    lottery_jax.errors.InputError: the function must have the outputs of the target, got 0.761594 instead of 1 for
    output 0 of example 0 (difference 0.238).
    """
    x = jnp.asarray(examples, jnp.float32)
    if not len(x):
        raise InputError("examples must hold at least one example, got none. Pass a batch [B, ...].")
    with jax.default_matmul_precision("highest"):
        found, expected = _outputs(function, x, what, advice), np.asarray(target.forward()(x), np.float64)
    if found.shape != expected.shape:
        raise InputError(
            f"{what} must have outputs {list(expected.shape)} for inputs {list(x.shape)}, as the target does, got"
            f" {list(found.shape)}. {advice}".rstrip()
        )
    flat_found, flat_expected = found.reshape(len(x), -1), expected.reshape(len(x), -1)
    difference = np.abs(flat_found - flat_expected)
    size = np.abs(flat_expected).max(0, initial=0)
    allowed = ACCURACY * np.maximum(size, _LEAST_SCALE * size.max(initial=0))
    wrong = ~(difference <= allowed)  # true for NaN
    if not wrong.any():
        return
    excess = np.where(np.isfinite(difference), difference - allowed, np.inf)
    example, output = np.unravel_index(excess.argmax(), excess.shape)
    raise InputError(
        f"{what} must have the outputs of the target, got {flat_found[example, output]:.6g} instead of"
        f" {flat_expected[example, output]:.6g} for output {output} of example {example} (difference"
        f" {difference[example, output]:.3g}). {advice}".rstrip()
    )


def check_on_random_inputs(target: Target, function: Original, *, what: str, advice: str = "") -> None:
    """`check_agreement` on normally distributed inputs of four scales, of both signs and without negative ones.

    A target for nonnegative inputs is compared on those only. Saturating activations differ from ReLU at large inputs,
    smooth ones at small inputs.
    """
    spec = target.network.input_spec
    assert spec is not None, "a target without a graph has no outputs"
    for batch in random_inputs(spec):
        check_agreement(target, function, batch, what=what, advice=advice)


def random_inputs(spec: Spec) -> list[np.ndarray]:
    """Batches of normally distributed inputs, each of one scale; the same ones for one input.

    >>> [batch.shape for batch in random_inputs(Spec((3,), nonnegative=True))]
    [(16, 3), (16, 3), (16, 3), (16, 3)]
    """
    count = max(min(_EXAMPLES, _NUMBERS // math.prod(spec.shape)), 2)
    normal = np.random.default_rng(0).normal(size=(count, *spec.shape)).astype(np.float32)
    signs = [np.abs(normal)] if spec.nonnegative else [normal, np.abs(normal)]
    return [np.float32(scale) * batch for scale in _SCALES for batch in signs]


def _outputs(function: Original, x: jax.Array, what: str, advice: str) -> np.ndarray:
    """The outputs of the user's function; whatever it raises becomes one sentence."""
    try:
        return np.asarray(function(x), np.float64)
    except Exception as error:  # the function is the user's
        reason = str(error).strip().partition("\n")[0][:200]
        raise InputError(
            f"{what} must take inputs {list(x.shape)}, float32, and return an array, but it raised"
            f" {type(error).__name__}: {reason}. {advice}".rstrip()
        ) from error
