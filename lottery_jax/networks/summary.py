"""What a network is in one line, whatever its size: for `repr`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lottery_jax.networks.network import Network
    from lottery_jax.networks.node import Spec

_SHOWN = 3  # tensors
_LETTERS = 32  # of a name, or of a shape


def summary(network: "Network") -> str:
    """Layers, the first of their tensors, and what the network is given; up to 250 letters.

    >>> from lottery_jax.networks.zoo.mlp import mlp
    >>> from lottery_jax.networks.node import Spec
    >>> summary(mlp((64, 64, 10), Spec((8, 8, 1), True)))
    '2 layers: fc1.weight [64, 64], fc2.weight [10, 64] ([out, in]), inputs [8, 8, 1] never negative'
    """
    shapes = network.approximated
    layers = len(network.affine) + len(network.sources)
    tensors = [f"{clipped(name)} {clipped(str(list(shape)))}" for name, shape in list(shapes.items())[:_SHOWN]]
    more = f" and {len(shapes) - _SHOWN:,} more" if len(shapes) > _SHOWN else ""
    axes = "[out, in, ...]" if any(len(shape) > 2 for shape in shapes.values()) else "[out, in]"
    given = "no graph" if network.given is None else f"inputs {inputs(network.given)}"
    return f"{layers:,} {'layer' if layers == 1 else 'layers'}: {', '.join(tensors)}{more} ({axes}), {given}"


def inputs(given: "Spec") -> str:
    """The shape of an example, and its sign.

    >>> from lottery_jax.networks.node import Spec
    >>> inputs(Spec((8, 8, 1)))
    '[8, 8, 1] of any sign'
    """
    return f"{clipped(str(list(given.shape)))} {'never negative' if given.nonnegative else 'of any sign'}"


def clipped(words: str) -> str:
    """A name short enough for a line, cut at its beginning: what tells names apart is mostly at their end.

    >>> clipped("encoder." * 9 + "weight")
    '...ncoder.encoder.encoder.weight'
    """
    words = " ".join(words.split())  # one line, whatever the name
    return words if len(words) <= _LETTERS else "..." + words[3 - _LETTERS :]
