"""Multi-head self-attention.

Multi-head self-attention with two matrices in place of four: what `networks.merge` makes of `Attention`.

The query of one token meets the key of another only in their product, and a value is only seen through the last
projection. So W_Q and W_K of a head count as one matrix, W_V and W_O as another (Otsuka et al. 2025, arXiv 2511.04217).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.node import Container, Node, Spec, Weights, child_path


@dataclasses.dataclass(frozen=True)
class Attention(Container):
    """x [B, tokens, D] -> [B, tokens, D], every token a mean of all, weighted by softmax(q k / sqrt(D / heads)).

    `qkv`, D -> 3 D, gives queries, keys and values one after the other; `proj`, D -> D, joins the heads. Both are
    affine leaves, as target dense ones.
    """

    heads: int
    qkv: Node
    proj: Node
    kind: ClassVar[str] = "attention"

    def __post_init__(self) -> None:
        if self.heads < 1:
            raise InputError(f"attention needs heads, not {self.heads}")

    def children(self) -> Mapping[str, Node]:
        return {"qkv": self.qkv, "proj": self.proj}

    def with_children(self, children: Mapping[str, Node]) -> Self:
        return dataclasses.replace(self, **children)

    def trace_specs(self, input_spec: Spec, path: str, seen: dict[str, Spec]) -> Spec:
        if len(input_spec.shape) != 2 or input_spec.shape[1] % self.heads:
            raise InputError(
                f"attention of {self.heads} heads needs tokens whose size they divide, not {list(input_spec.shape)}"
            )
        tokens, size = input_spec.shape
        if self.qkv.trace_specs(input_spec, child_path(path, "qkv"), seen).shape != (tokens, 3 * size):
            raise InputError(f"the projection qkv must give 3 x {size} numbers for each token")
        output = self.proj.trace_specs(Spec(input_spec.shape), child_path(path, "proj"), seen)
        if output.shape != input_spec.shape:
            raise InputError(f"the projection proj must give {size} numbers for each token")
        return output

    @property
    def width_divisor(self) -> int:
        return self.heads

    def resized(self, input_spec: Spec, units: Callable[[int], int]) -> Self:
        size = input_spec.shape[-1]
        qkv, proj = self.qkv.resized(input_spec, lambda _: 3 * size), self.proj.resized(input_spec, lambda _: size)
        return dataclasses.replace(self, qkv=qkv, proj=proj)

    def child_modules(self, module: "SelfAttention") -> Mapping[str, nnx.Module]:
        return {"qkv": module.qkv, "proj": module.proj}

    def module(self, weights: Weights) -> nnx.Module:
        return SelfAttention(self.heads, self.qkv.module(weights.child("qkv")), self.proj.module(weights.child("proj")))


class SelfAttention(nnx.Module):
    """The module of `Attention`."""

    def __init__(self, heads: int, qkv: nnx.Module, proj: nnx.Module) -> None:
        self.heads, self.qkv, self.proj = heads, qkv, proj

    def __call__(self, x: jax.Array) -> jax.Array:
        split = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1)  # type: ignore[operator]
        query, key, value = (split[:, :, place] for place in range(3))
        mixed = nnx.dot_product_attention(query, key, value)
        return self.proj(mixed.reshape(x.shape))  # type: ignore[operator]


@dataclasses.dataclass(frozen=True)
class MergedAttention(Container):
    """x [B, tokens, D] -> [B, tokens, D]: each head's means of all tokens, weighted by softmax(a_t x_s), then `vo`.

    `qk`, D -> heads D, gives a_t of each head, one after the other, the scale of the scores in it; `vo`, heads D -> D,
    joins what the heads see.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> MergedAttention(2, Dense(8, 16, bias=True), Dense(16, 8)).output_spec(Spec((5, 8))).shape
    (5, 8)
    """

    heads: int
    qk: Node
    vo: Node
    kind: ClassVar[str] = "merged_attention"

    def __post_init__(self) -> None:
        if self.heads < 1:
            raise InputError(f"merged attention needs heads, not {self.heads}")

    def children(self) -> Mapping[str, Node]:
        return {"qk": self.qk, "vo": self.vo}

    def with_children(self, children: Mapping[str, Node]) -> Self:
        return dataclasses.replace(self, **children)

    def trace_specs(self, input_spec: Spec, path: str, seen: dict[str, Spec]) -> Spec:
        if len(input_spec.shape) != 2:
            raise InputError(f"merged attention needs tokens, [tokens, size], not {list(input_spec.shape)}")
        tokens, size = input_spec.shape
        wide = (tokens, self.heads * size)
        if self.qk.trace_specs(input_spec, child_path(path, "qk"), seen).shape != wide:
            raise InputError(f"the product qk must give {self.heads} x {size} numbers for each token")
        # Means of what is never negative are not either.
        output = self.vo.trace_specs(Spec(wide, input_spec.nonnegative), child_path(path, "vo"), seen)
        if output.shape != input_spec.shape:
            raise InputError(f"the product vo must give {size} numbers for each token")
        return output

    def resized(self, input_spec: Spec, units: Callable[[int], int]) -> Self:
        tokens, size = input_spec.shape
        qk = self.qk.resized(input_spec, lambda _: self.heads * size)
        vo = self.vo.resized(Spec((tokens, self.heads * size), input_spec.nonnegative), lambda _: size)
        return dataclasses.replace(self, qk=qk, vo=vo)

    def child_modules(self, module: "MergedSelfAttention") -> Mapping[str, nnx.Module]:
        return {"qk": module.qk, "vo": module.vo}

    def module(self, weights: Weights) -> nnx.Module:
        return MergedSelfAttention(self.heads, self.qk.module(weights.child("qk")), self.vo.module(weights.child("vo")))


class MergedSelfAttention(nnx.Module):
    """The module of `MergedAttention`."""

    def __init__(self, heads: int, qk: nnx.Module, vo: nnx.Module) -> None:
        self.heads, self.qk, self.vo = heads, qk, vo

    def __call__(self, x: jax.Array) -> jax.Array:
        asked = self.qk(x).reshape(*x.shape[:2], self.heads, -1)  # type: ignore[operator]
        shares = jax.nn.softmax(jnp.einsum("bthd,bsd->bhts", asked, x), axis=-1)
        mixed = jnp.einsum("bhts,bsd->bthd", shares, x)
        return self.vo(mixed.reshape(*x.shape[:2], -1))  # type: ignore[operator]
