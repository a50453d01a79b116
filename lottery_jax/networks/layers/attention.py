"""Multi-head self-attention, and the equivalent with two matrices per head that `rewrites.merge_attention` makes."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.node import PRODUCTS_AT_ONCE, Container, Cost, Node, Spec, Weights, child_path

_MAX_SCORES = 1 << 24  # of an example in memory
_SOFTMAX = 8  # operations of a score


def _slice(heads: int, tokens: int) -> int:
    """Number of tokens whose scores with all tokens are in memory."""
    return max(_MAX_SCORES // (heads * tokens), 1)


def _in_slices(attend: Callable[[jax.Array], jax.Array], queries: jax.Array) -> jax.Array:
    """`attend` for queries [B, tokens, heads, ...], a slice of them at a time if there are many tokens."""
    tokens, step = queries.shape[1], _slice(queries.shape[2], queries.shape[1])
    if step >= tokens:
        return attend(queries)
    padded = jnp.pad(queries, ((0, 0), (0, -tokens % step), (0, 0), (0, 0)))
    parts = jnp.moveaxis(padded.reshape(len(queries), -1, step, *queries.shape[2:]), 1, 0)
    mixed = jnp.moveaxis(jax.lax.map(attend, parts), 0, 1)
    return mixed.reshape(len(queries), -1, *mixed.shape[3:])[:, :tokens]


class _Projections(Container):
    """Attention of `heads` heads with two children, which are also the attributes of its module."""

    heads: int
    names: ClassVar[tuple[str, str]]

    def __post_init__(self) -> None:
        if self.heads < 1:
            raise InputError(f"attention must have at least 1 head, got {self.heads}")

    def children(self) -> Mapping[str, Node]:
        return {name: getattr(self, name) for name in self.names}

    def with_children(self, children: Mapping[str, Node]) -> Self:
        return dataclasses.replace(self, **children)  # type: ignore[type-var]

    def cost(self, input_spec: Spec) -> Cost:
        (tokens, size), (first, last) = input_spec.shape, (getattr(self, name) for name in self.names)
        scores, per_head = self.heads * tokens**2, self._numbers_per_head(size)
        # Each score is a sum of products over the numbers of a head, and each of those a mean of tokens.
        products = 2 * scores * per_head
        own = Cost(
            _SOFTMAX * scores + products // PRODUCTS_AT_ONCE, scores // tokens * min(_slice(self.heads, tokens), tokens)
        )
        return first.cost(input_spec) + own + last.cost(Spec((tokens, self.heads * per_head)))

    def _numbers_per_head(self, size: int) -> int:
        """Numbers of a token that a head weighs, of `size`."""
        return size

    def child_modules(self, module: Any) -> Mapping[str, nnx.Module]:
        return {name: getattr(module, name) for name in self.names}


@dataclasses.dataclass(frozen=True)
class Attention(_Projections):
    """Multi-head self-attention: x [B, tokens, D] -> [B, tokens, D], scores q k / sqrt(D / heads).

    Args:
        qkv: Projection D -> 3 D to queries, keys and values, in this order.
        proj: Output projection D -> D.
    """

    heads: int
    qkv: Node
    proj: Node
    kind: ClassVar[str] = "attention"
    names: ClassVar[tuple[str, str]] = ("qkv", "proj")

    def trace_specs(self, input_spec: Spec, path: str, specs: dict[str, Spec]) -> Spec:
        if len(input_spec.shape) != 2 or input_spec.shape[1] % self.heads:
            raise InputError(
                f"the input of attention must be tokens [tokens, D] with D divisible by {self.heads} heads, got"
                f" {list(input_spec.shape)}"
            )
        tokens, size = input_spec.shape
        if self.qkv.trace_specs(input_spec, child_path(path, "qkv"), specs).shape != (tokens, 3 * size):
            raise InputError(f"the projection qkv must give 3 x {size} numbers per token")
        output = self.proj.trace_specs(Spec(input_spec.shape), child_path(path, "proj"), specs)
        if output.shape != input_spec.shape:
            raise InputError(f"the projection proj must give {size} numbers per token")
        return output

    def _numbers_per_head(self, size: int) -> int:
        return size // self.heads

    @property
    def width_divisor(self) -> int:
        return self.heads

    def resized(self, input_spec: Spec, units: Callable[[int], int]) -> Self:
        size = input_spec.shape[-1]
        qkv, proj = self.qkv.resized(input_spec, lambda _: 3 * size), self.proj.resized(input_spec, lambda _: size)
        return dataclasses.replace(self, qkv=qkv, proj=proj)

    def module(self, weights: Weights) -> nnx.Module:
        return SelfAttention(self.heads, self.qkv.module(weights.child("qkv")), self.proj.module(weights.child("proj")))


class SelfAttention(nnx.Module):
    """The module of `Attention`."""

    def __init__(self, heads: int, qkv: nnx.Module, proj: nnx.Module) -> None:
        self.heads, self.qkv, self.proj = heads, qkv, proj

    def __call__(self, x: jax.Array) -> jax.Array:
        split = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1)  # type: ignore[operator]
        query, key, value = (split[:, :, part] for part in range(3))
        mixed = _in_slices(lambda part: nnx.dot_product_attention(part, key, value), query)
        return self.proj(mixed.reshape(x.shape))  # type: ignore[operator]


@dataclasses.dataclass(frozen=True)
class MergedAttention(_Projections):
    """Attention with W_Q, W_K and W_V, W_O of each head merged: x [B, tokens, D] -> [B, tokens, D].

    Only the products of queries with keys and of values with W_O matter (Otsuka et al. 2025, arXiv 2511.04217).

    Args:
        qk: Product D -> heads D that gives a_t of each head; token t attends to s with score a_t x_s.
        vo: Product heads D -> D of the heads' weighted means of tokens.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> MergedAttention(2, Dense(8, 16, bias=True), Dense(16, 8)).output_spec(Spec((5, 8))).shape
    (5, 8)
    """

    heads: int
    qk: Node
    vo: Node
    kind: ClassVar[str] = "merged_attention"
    names: ClassVar[tuple[str, str]] = ("qk", "vo")

    def trace_specs(self, input_spec: Spec, path: str, specs: dict[str, Spec]) -> Spec:
        if len(input_spec.shape) != 2:
            raise InputError(f"the input of merged attention must be tokens [tokens, D], got {list(input_spec.shape)}")
        tokens, size = input_spec.shape
        wide = (tokens, self.heads * size)
        if self.qk.trace_specs(input_spec, child_path(path, "qk"), specs).shape != wide:
            raise InputError(f"the product qk must give {self.heads} x {size} numbers per token")
        # Means of nonnegative tokens are nonnegative.
        output = self.vo.trace_specs(Spec(wide, input_spec.nonnegative), child_path(path, "vo"), specs)
        if output.shape != input_spec.shape:
            raise InputError(f"the product vo must give {size} numbers per token")
        return output

    def resized(self, input_spec: Spec, units: Callable[[int], int]) -> Self:
        tokens, size = input_spec.shape
        qk = self.qk.resized(input_spec, lambda _: self.heads * size)
        vo = self.vo.resized(Spec((tokens, self.heads * size), input_spec.nonnegative), lambda _: size)
        return dataclasses.replace(self, qk=qk, vo=vo)

    def module(self, weights: Weights) -> nnx.Module:
        return MergedSelfAttention(self.heads, self.qk.module(weights.child("qk")), self.vo.module(weights.child("vo")))


class MergedSelfAttention(nnx.Module):
    """The module of `MergedAttention`."""

    def __init__(self, heads: int, qk: nnx.Module, vo: nnx.Module) -> None:
        self.heads, self.qk, self.vo = heads, qk, vo

    def __call__(self, x: jax.Array) -> jax.Array:
        queries = self.qk(x).reshape(*x.shape[:2], self.heads, -1)  # type: ignore[operator]

        def attend(part: jax.Array) -> jax.Array:
            attention = jax.nn.softmax(jnp.einsum("bthd,bsd->bhts", part, x), axis=-1)
            return jnp.einsum("bhts,bsd->bthd", attention, x)

        mixed = _in_slices(attend, queries)
        return self.vo(mixed.reshape(*x.shape[:2], -1))  # type: ignore[operator]
