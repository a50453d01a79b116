"""Multi-head self-attention."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar, Self

import jax
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.networks.node import Inner, Node, Spec, Weights, child_path


@dataclasses.dataclass(frozen=True)
class Attention(Inner):
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

    def flow(self, given: Spec, path: str, seen: dict[str, Spec]) -> Spec:
        if len(given.shape) != 2 or given.shape[1] % self.heads:
            raise InputError(
                f"attention of {self.heads} heads needs tokens whose size they divide, not {list(given.shape)}"
            )
        tokens, size = given.shape
        if self.qkv.flow(given, child_path(path, "qkv"), seen).shape != (tokens, 3 * size):
            raise InputError(f"the projection qkv must give 3 x {size} numbers for each token")
        output = self.proj.flow(Spec(given.shape), child_path(path, "proj"), seen)
        if output.shape != given.shape:
            raise InputError(f"the projection proj must give {size} numbers for each token")
        return output

    @property
    def divisor(self) -> int:
        return self.heads

    def resized(self, given: Spec, units: Callable[[int], int]) -> Self:
        size = given.shape[-1]
        qkv, proj = self.qkv.resized(given, lambda _: 3 * size), self.proj.resized(given, lambda _: size)
        return dataclasses.replace(self, qkv=qkv, proj=proj)

    def inside(self, module: "SelfAttention") -> Mapping[str, nnx.Module]:
        return {"qkv": module.qkv, "proj": module.proj}

    def module(self, weights: Weights) -> nnx.Module:
        return SelfAttention(self.heads, self.qkv.module(weights.under("qkv")), self.proj.module(weights.under("proj")))


class SelfAttention(nnx.Module):
    """The module of `Attention`."""

    def __init__(self, heads: int, qkv: nnx.Module, proj: nnx.Module) -> None:
        self.heads, self.qkv, self.proj = heads, qkv, proj

    def __call__(self, x: jax.Array) -> jax.Array:
        split = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1)  # type: ignore[operator]
        query, key, value = (split[:, :, place] for place in range(3))
        mixed = nnx.dot_product_attention(query, key, value)
        return self.proj(mixed.reshape(x.shape))  # type: ignore[operator]
