"""Networks: frozen random weights, gates and masked layers."""

from lottery_jax.networks.architectures import ARCHITECTURES, architecture, mlp
from lottery_jax.networks.forward import forward, outputs
from lottery_jax.networks.network import Network, network_from_json
from lottery_jax.networks.node import Node, Spec
from lottery_jax.networks.registry import NODES
from lottery_jax.networks.rewrites import folded
from lottery_jax.networks.target import Target

__all__ = [
    "ARCHITECTURES",
    "NODES",
    "Network",
    "Node",
    "Spec",
    "Target",
    "architecture",
    "folded",
    "forward",
    "mlp",
    "network_from_json",
    "outputs",
]
