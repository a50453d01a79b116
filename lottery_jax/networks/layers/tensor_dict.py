"""A model whose graph is unknown: only its named tensors, as in a safetensors file."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, NoReturn, Self

from lottery_jax.errors import InputError, shown
from lottery_jax.networks.node import Container, Node, Spec, WeightNode, Weights


@dataclasses.dataclass(frozen=True)
class NamedTensor(WeightNode):
    """One tensor of a model, of any shape; its name is the path of the node."""

    shape: tuple[int, ...]
    kind: ClassVar[str] = "named_tensor"

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1:
            raise InputError(f"a tensor must have sizes from 1 up, got the shape {list(self.shape)}")

    def tensors(self) -> dict[str, tuple[int, ...]]:
        return {"": self.shape}

    def output_spec(self, input_spec: Spec) -> NoReturn:
        raise _no_graph()

    def module(self, weights: Weights) -> NoReturn:
        raise _no_graph()


@dataclasses.dataclass(frozen=True)
class TensorDict(Container):
    """The tensors of a model without its graph: they can be approximated, but the model cannot be run."""

    nodes: tuple[tuple[str, Node], ...]
    kind: ClassVar[str] = "tensor_dict"

    def __post_init__(self) -> None:
        names = [name for name, _ in self.nodes]
        if not names or "" in names or len(set(names)) < len(names):
            raise InputError(
                f"a model must have tensors with different names that are not empty, got {shown(names)}. Rename them."
            )

    def children(self) -> Mapping[str, Node]:
        return dict(self.nodes)

    def with_children(self, children: Mapping[str, Node]) -> Self:
        return dataclasses.replace(self, nodes=tuple(children.items()))

    def resized(self, input_spec: Spec, units: object) -> NoReturn:
        raise _no_graph()

    def child_modules(self, module: object) -> NoReturn:
        raise _no_graph()

    def cost(self, input_spec: Spec) -> NoReturn:
        raise _no_graph()

    def trace_specs(self, input_spec: Spec, path: str, specs: dict[str, Spec]) -> NoReturn:
        raise _no_graph()

    def module(self, weights: Weights) -> NoReturn:
        raise _no_graph()


def _no_graph() -> InputError:
    return InputError(
        "the graph of a model must be known to run it. Export the approximated weights into the model"
        " (lottery-jax export --into), or name its architecture."
    )
