"""ONNX operators that are dense layers, normalisation or activations, as functions of arrays.

Values have the layout of the file, [batch, channels, ...]. Inputs and attributes are passed as in ``onnx_arrays``.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lottery_jax.importers.onnx_arrays import Value, bounded, namespace, normalized, require, spatial


def _matmul(a: Value, b: Value) -> Value:
    rows, columns = a.shape[:-1], b.shape[-1:] if b.ndim > 1 else ()
    bounded([*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *rows[-1:], *columns])
    return namespace(a, b).matmul(a, b)


def _einsum(*values: Value, equation: str) -> Value:
    require(len(equation) <= 200 and len(values) <= 8, "have an equation of at most 8 operands", equation)
    return jnp.einsum(equation, *values)


def _gemm(
    a: Value, b: Value, c: Value = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0
) -> Value:
    require(a.ndim == b.ndim == 2, "multiply two matrices", [list(a.shape), list(b.shape)])
    y = namespace(a, b).matmul(a.T if transA else a, b.T if transB else b)
    y = y if alpha == 1 else np.float32(alpha) * y
    if c is None:
        return y
    return y + (c if beta == 1 else np.float32(beta) * c)


def _standardized(x: Value, axes: tuple[int, ...], epsilon: float) -> Value:
    xp = namespace(x)
    centred = x - xp.mean(x, axis=axes, keepdims=True)
    return centred / xp.sqrt(xp.mean(centred * centred, axis=axes, keepdims=True) + np.float32(epsilon))


def _channels(vector: Value, x: Value) -> Value:
    require(vector.shape == (x.shape[1],), f"have one entry for each of {x.shape[1]} channels", list(vector.shape))
    return vector.reshape(-1, *[1] * (x.ndim - 2))


def _batch_normalization(
    x: Value,
    scale: Value,
    bias: Value,
    mean: Value,
    variance: Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Value:
    gain = scale / namespace(variance).sqrt(variance + np.float32(epsilon))
    return (x - _channels(mean, x)) * _channels(gain, x) + _channels(bias, x)


def _layer_normalization(
    x: Value, scale: Value, bias: Value = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Value:
    (first,) = normalized([axis], x.ndim)
    y = _standardized(x, tuple(range(first, x.ndim)), epsilon) * scale
    return y if bias is None else y + bias


def _rms_normalization(x: Value, scale: Value, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Value:
    (first,) = normalized([axis], x.ndim)
    xp = namespace(x)
    square = xp.mean(x * x, axis=tuple(range(first, x.ndim)), keepdims=True)
    return x / xp.sqrt(square + np.float32(epsilon)) * scale


def _instance_normalization(x: Value, scale: Value, bias: Value, *, epsilon: float = 1e-5) -> Value:
    axes = tuple(range(2, 2 + len(spatial(x, "normalisation"))))
    return _standardized(x, axes, epsilon) * _channels(scale, x) + _channels(bias, x)


def _group_normalization(
    x: Value, scale: Value, bias: Value, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Value:
    channels = x.shape[1]
    require(num_groups >= 1 and channels % num_groups == 0, f"have groups of {channels} channels", num_groups)
    groups = x.reshape(x.shape[0], num_groups, -1)
    y = _standardized(groups, (2,), epsilon).reshape(x.shape)
    return y * _channels(scale, x) + _channels(bias, x)


def _relu(x: Value) -> Value:
    return namespace(x).maximum(x, np.asarray(0, x.dtype))


def _between(x: Value, low: Value, high: Value) -> Value:
    xp = namespace(x, low, high)
    x = x if low is None else xp.maximum(x, low)
    return x if high is None else xp.minimum(x, high)


def _clip(
    x: Value, low: Value = None, high: Value = None, *, min: float | None = None, max: float | None = None
) -> Value:
    low = low if min is None else np.asarray(min, x.dtype)
    return _between(x, low, high if max is None else np.asarray(max, x.dtype))


def _signed(x: Value, negative: Value) -> Value:
    return jnp.where(x >= 0, x, negative)


def _exp_minus_one(x: Value, scale: float = 1.0) -> Value:
    return jnp.expm1(jnp.minimum(x, np.float32(0)) / np.float32(scale))  # finite for positive x, which do not use it


def _leaky_relu(x: Value, *, alpha: float = 0.01) -> Value:
    return _signed(x, np.float32(alpha) * x)


def _prelu(x: Value, slope: Value) -> Value:
    return _signed(x, slope * x)


def _elu(x: Value, *, alpha: float = 1.0) -> Value:
    return _signed(x, np.float32(alpha) * _exp_minus_one(x))


def _selu(x: Value, *, alpha: float = 1.6732631921768188, gamma: float = 1.0507010221481323) -> Value:
    return np.float32(gamma) * _elu(x, alpha=alpha)


def _celu(x: Value, *, alpha: float = 1.0) -> Value:
    return _signed(x, np.float32(alpha) * _exp_minus_one(x, alpha))


def _softplus(x: Value) -> Value:
    return jnp.maximum(x, np.float32(0)) + jnp.log1p(jnp.exp(-jnp.abs(x)))


def _hard_sigmoid(x: Value, *, alpha: float = 0.2, beta: float = 0.5) -> Value:
    return _between(np.float32(alpha) * x + np.float32(beta), np.float32(0), np.float32(1))


def _gelu(x: Value, *, approximate: str = "none") -> Value:
    require(approximate in ("none", "tanh"), "have the approximation none or tanh", approximate)
    half = np.float32(0.5) * x
    if approximate == "none":
        return half * (1 + lax.erf(jnp.asarray(x * np.float32(math.sqrt(0.5)))))
    return half * (1 + jnp.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)))


def _softmax(function: Callable[..., Value]) -> Callable[..., Value]:
    def over(x: Value, *, axis: int | None = None, opset: int) -> Value:
        (first,) = normalized([axis if axis is not None else (-1 if opset >= 13 else 1)], x.ndim)
        last = first == x.ndim - 1
        require(opset >= 13 or last, "have the last axis before opset 13, which flattens all axes from it", axis)
        return function(x, axis=first)

    return over


def _dropout(x: Value, given: Value = None, training_mode: Value = None, *, ratio: float = 0.5, seed: int = 0) -> Value:
    training = training_mode is not None and not (isinstance(training_mode, np.ndarray) and not training_mode.any())
    require(not training, "run in evaluation mode", "training_mode=True")
    return x


LAYER_OPERATORS: dict[str, Callable[..., Any]] = {
    "BatchNormalization": _batch_normalization,
    "Celu": _celu,
    "Clip": _clip,
    "Dropout": _dropout,
    "Einsum": _einsum,
    "Elu": _elu,
    "Erf": lambda x: lax.erf(jnp.asarray(x)),
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GroupNormalization": _group_normalization,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x: x * _hard_sigmoid(x, alpha=1 / 6),
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _softmax(jax.nn.log_softmax),
    "MatMul": _matmul,
    "Mish": lambda x: x * jnp.tanh(_softplus(x)),
    "PRelu": _prelu,
    "RMSNormalization": _rms_normalization,
    "Relu": _relu,
    "Selu": _selu,
    "Sigmoid": lambda x: jax.nn.sigmoid(jnp.asarray(x)),
    "Softmax": _softmax(jax.nn.softmax),
    "Softplus": _softplus,
}
"""Operator of ONNX -> its function."""
