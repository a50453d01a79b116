"""A small vision transformer with the names of timm."""

from lottery_jax.networks.layers.activations import Gelu
from lottery_jax.networks.layers.attention import Attention
from lottery_jax.networks.layers.chain import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.layer_norm import LayerNorm
from lottery_jax.networks.layers.pooling import GlobalPool
from lottery_jax.networks.layers.position import PositionEmbedding
from lottery_jax.networks.layers.reshape import Tokens
from lottery_jax.networks.layers.residual import Residual
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.zoo.build import Building, scaled

HEADS, HEAD = 4, 32


def vit(given: Spec, classes: int, width: float = 1.0, *, patch: int = 4, depth: int = 4) -> Network:
    """Dosovitskiy et al. 2021, small: patches of 4 x 4, four layers of 128 features with 4 heads, mean of all tokens.

    A layer is x + attention(norm(x)), then x + mlp(norm(x)) with twice as many hidden units.
    """
    size = HEADS * scaled(HEAD, width)
    net = Building(given)
    net.inner("patch_embed", lambda chain: chain.conv("proj", size, patch, stride=patch, bias=True).chain())
    net.add("tokens", Tokens())
    net.add("pos_embed", PositionEmbedding(*net.spec.shape))
    for layer in range(depth):
        net.inner(f"blocks.{layer}", _layer)
    net.add("norm", LayerNorm(size)).add("pool", GlobalPool())
    return Network(net.dense("head", classes, bias=True).chain(), given)


def _layer(chain: Building) -> Chain:
    size = chain.spec.shape[-1]
    norm, attention = LayerNorm(size), Attention(HEADS, Dense(size, 3 * size, True), Dense(size, size, True))
    chain.add("(attention)", _residual(("norm1", norm), ("attn", attention)))
    mlp = Chain((("fc1", Dense(size, 2 * size, True)), ("act", Gelu()), ("fc2", Dense(2 * size, size, True))))
    return chain.add("(mlp)", _residual(("norm2", norm), ("mlp", mlp))).chain()


def _residual(*nodes) -> Residual:
    return Residual(Chain(nodes))
