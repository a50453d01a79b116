"""Networks: frozen random weights, gates and masked layers."""

from lottery_jax.networks.fold import folded
from lottery_jax.networks.network import Network, network_from_json
from lottery_jax.networks.node import Node, Spec
from lottery_jax.networks.registry import NODES
from lottery_jax.networks.running import forward, outputs
from lottery_jax.networks.target import Target
from lottery_jax.networks.zoo.mlp import mlp, mlp_target
from lottery_jax.networks.zoo.registry import ARCHITECTURES, architecture

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
    "mlp_target",
    "network_from_json",
    "outputs",
]
