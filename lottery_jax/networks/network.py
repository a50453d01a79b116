"""The masked random network: the thing every method's ticket is evaluated as."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.networks.architecture import Architecture, chain, check, source_tensors
from lottery_jax.networks.gates import FixedGate
from lottery_jax.networks.layers import MODULES, Gate


class MaskedNetwork(nnx.Module):
    """x [B, I] -> logits [B, O]: the layers of an architecture with ReLU between them, all weights frozen."""

    def __init__(
        self,
        architecture: Architecture,
        source: Mapping[str, np.ndarray | jax.Array],
        gate: Callable[[str], Gate],
    ) -> None:
        """`source` maps tensor names ("0.first") to weights; `gate(name)` makes the gate of a tensor."""
        check(architecture)
        names = [tensor.name for tensor in source_tensors(architecture)]
        layers = []
        for position, layer in enumerate(chain(architecture)):
            own = [name for name in names if name.split(".")[0] == str(position)]
            tensors = {name.split(".")[1]: jnp.asarray(source[name]) for name in own}
            layers.append(MODULES[type(layer)](layer, tensors, {n.split(".")[1]: gate(n) for n in own}))
        self.layers = nnx.List(layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](x)


def fixed_network(
    architecture: Architecture, source: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray]
) -> MaskedNetwork:
    """The network with given boolean masks: what is rebuilt from a ticket."""
    return MaskedNetwork(architecture, source, lambda name: FixedGate(jnp.asarray(masks[name])))
