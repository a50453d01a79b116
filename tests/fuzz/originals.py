"""Honest tickets to be mutated: every source, construction, transform, kind of graph and objective, plain and coded."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lottery_jax.approximation import ToleranceObjective, approximate, plan_job, run_in_memory
from lottery_jax.constructions import Scalar
from lottery_jax.networks.architectures import mlp
from lottery_jax.networks.layers.activations import Gelu, LeakyRelu, Sigmoid, Tanh
from lottery_jax.networks.layers.attention import Attention
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.graph import INPUT
from lottery_jax.networks.layers.normalization import LayerNorm, Normalize
from lottery_jax.networks.layers.operations import (
    Binary,
    Concatenate,
    Constant,
    Elementwise,
    Lookup,
    Pad,
    Power,
    Reduce,
    ReduceWindow,
    Select,
    Slice,
    Stored,
)
from lottery_jax.networks.layers.pooling import AveragePool, Flatten, GlobalPool, MaxPool, Tokens
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Node, Spec
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.random_layer import MultiLevelLayer, RandomLayer
from lottery_jax.networks.sources.trained_layer import PartlyTrainedLayer, TrainedLayer
from lottery_jax.networks.target import Target
from lottery_jax.networks.transforms import Lock, PrePrune, ShareLayers
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets.reconstruct import effective_weights
from lottery_jax.tickets.ticket import Ticket, make_ticket
from tests.constructions.catalogue import COVERED, TARGETS, random_target
from tests.networks.graphs import Builder, attention, layer_norm

MakeTicket = Callable[[Target], Ticket]


@dataclasses.dataclass(frozen=True)
class Original:
    """How one honest ticket is made, and the target that it is for."""

    target: Callable[[], Target]
    make: MakeTicket
    coded: bool = False


def _built(name: str, **options: object) -> MakeTicket:
    """A ticket of a construction with the catalogue's tolerance; `options` of `approximate` replace it."""
    entry = COVERED[name]
    candidates = entry.construction.candidates

    def make(target: Target) -> Ticket:
        objective = entry.objective()
        given = {"tolerance": objective.tolerance or 0.01, "max_redraws": 255} | options
        if name == "kumar" or "kept" in options or "lossless" in options:
            given.pop("tolerance")
        if "kept" in options:
            given.pop("max_redraws")
        construction = dataclasses.replace(entry.construction, candidates=given.pop("candidates", candidates))
        return approximate(target, seed=0, construction=construction, **given)  # type: ignore[arg-type]

    return make


def _tower() -> Target:
    """Normalisation, pooling with padding, activations of both kinds, a residual block and a mean over positions."""
    block = Residual(
        Chain((("conv", Conv(3, 3, (3, 3), padding=(1, 1), bias=True)), ("tanh", Tanh()))), Conv(3, 3, (1, 1))
    )
    nodes: tuple[tuple[str, Node], ...] = (
        ("normalize", Normalize((0.4, 0.6), (0.3, 0.25))),
        ("conv1", Conv(2, 3, (3, 3), padding=(1, 1), bias=True)),
        ("leaky", LeakyRelu(0.1)),
        ("max", MaxPool((3, 3), (2, 2), (1, 1))),
        ("block", block),
        ("gelu", Gelu(approximate=True)),
        ("average", AveragePool((2, 2), (1, 1), (1, 1))),
        ("sigmoid", Sigmoid()),
        ("pool", GlobalPool()),
        ("fc", Dense(3, 2, bias=True)),
    )
    return random_target(Network(Chain(nodes), Spec((6, 6, 2), nonnegative=True)))


def _attention() -> Target:
    """Attention without merging, in front of it tokens and a layer normalisation."""
    attention = Attention(2, Dense(4, 12, True), Dense(4, 4, True))
    nodes: tuple[tuple[str, Node], ...] = (
        ("patch", Conv(1, 4, (2, 2), stride=(2, 2), bias=True)),
        ("tokens", Tokens()),
        ("norm", LayerNorm(4)),
        ("attn", Residual(attention)),
        ("flatten", Flatten()),
        ("fc", Dense(16, 3)),
    )
    return random_target(Network(Chain(nodes), Spec((4, 4, 1))))


def _words() -> Target:
    """A graph: an embedding, positions, layer normalisation and attention of elementary operations, and a mean."""
    builder, tokens, size = Builder(), 4, 6
    found = builder.add(Lookup(), builder.add(Stored((3, size)), name="embed"), INPUT)
    value = builder.add(Binary("add"), found, builder.add(Stored((tokens, size)), name="positions"))
    value = layer_norm(builder, value, (tokens, size), 0.1, "norm")
    value = builder.add(Dense(size, 3 * size, bias=True), value, name="qkv")
    value = builder.add(Dense(size, size), attention(builder, value, tokens, size, 2), name="proj")
    value = builder.add(Reduce("sum", (0,)), value)
    value = builder.add(Binary("mul"), value, builder.add(Constant(1 / tokens)))
    return random_target(Network(builder.graph(builder.add(Dense(size, 3), value, name="fc")), Spec((tokens,))))


def _branches() -> Target:
    """A graph of a residual block, a dilated convolution, a gate, windows, and parts that are cut and put together."""
    builder = Builder()
    first = builder.add(Conv(2, 4, (3, 3), padding=(1, 1), bias=True), INPUT, name="conv1")
    positive = builder.add(Binary("gt"), first, builder.add(Constant(0.0)))
    small = builder.add(Binary("mul"), first, builder.add(Constant(0.25)))
    leaky = builder.add(Select(), positive, small, first)
    second = builder.add(Conv(4, 4, (2, 2), padding=(1, 1), dilation=(2, 2)), leaky, name="conv2")
    total = builder.add(Binary("add"), leaky, second)
    gate = builder.add(Elementwise("logistic"), total)
    gated = builder.add(Binary("mul"), total, gate)
    pooled = builder.add(ReduceWindow("max", (2, 2, 1), (2, 2, 1), (0, 0, 0), (1, 1, 0)), gated)
    left = builder.add(Slice((0, 0, 0), (3, 3, 4), (2, 1, 3)), pooled)
    right = builder.add(Power(3), builder.add(Pad((0, 0, 1), (0, 0, 0), (0, 0, 0), 0.5), left))
    both = builder.add(Concatenate(2), left, builder.add(Slice((0, 0, 0), (2, 3, 3), (1, 1, 1)), right))
    return random_target(
        Network(
            builder.graph(builder.add(Dense(30, 2, bias=True), builder.add(Flatten(), both), name="fc")),
            Spec((5, 5, 2), True),
        )
    )


def rare_unit(nonnegative: bool = True) -> Target:
    """One hidden unit is active in one corner of the box alone, and one output is a thousand times the others."""
    network = mlp((9, 6, 4), Spec((9,), nonnegative), bias=True)
    random = np.random.default_rng(7)
    tensors = {name: random.uniform(-0.4, 0.4, shape).astype(np.float32) for name, shape in network.tensors.items()}
    tensors["fc1.weight"][0], tensors["fc1.bias"][0] = np.where(np.arange(9) % 3 == 0, 0.4, -0.4), -1.0
    tensors["fc2.weight"][2] *= 1000
    return Target(network, tensors)  # type: ignore[arg-type]


def _relative(target: Target) -> Ticket:
    """A tolerance of 4 % of each tensor's largest weight."""
    objective = ToleranceObjective(0.04, relative=True)
    return run_in_memory(plan_job(target, Scalar(candidates=8), objective, seed=0))


def _learned(layer: Callable[[LinearLayer], Node], tolerance: float = 1e-6) -> MakeTicket:
    """A ticket of random masks that promises its own effective weights, as an attacker may choose the target."""

    def make(target: Target) -> Ticket:
        def random_layer(path: str, node: Node) -> Node:
            return layer(node) if isinstance(node, LinearLayer) else node

        network = target.network.map_layers(random_layer)
        random = np.random.default_rng(1)
        masks = {name: random.random(tensor.shape) < 0.5 for name, tensor in network.random_tensors.items()}
        stored = {name: random.uniform(0.1, 1, shape).astype(np.float32) for name, shape in network.tensors.items()}
        for name, own in network.trained_tensors.items():
            stored[own] = np.where(masks[name], stored[own], np.float32(0))
            if name in network.frozen_tensors:
                masks[network.frozen_tensors[name]] &= ~masks[name]
        plain = make_ticket(network, seed=3, masks=masks, method="learned", stored=stored)
        if network.trained_tensors:
            return plain
        weights = {name: value.mean(0).astype(np.float32) for name, value in effective_weights(plain).items()}
        own_target = Target(network.target, {**plain.stored, **weights})  # type: ignore[arg-type]
        return make_ticket(
            network,
            seed=3,
            masks=masks,
            method="learned",
            stored=stored,
            target=own_target,
            tolerance=tolerance * max(own_target.scan(name).largest for name in weights),
        )

    return make


_NORMAL = Sampler.normal(0.5)
_SMALL, _SIGNED = "mlp with biases, inputs never negative", "mlp with biases, inputs of any sign"
_CONV, _BLOCK = "convolutions, inputs of any sign", "residual, inputs of any sign"
_TOKENS, _TURNED = "transformer, inputs of any sign", "rotations, inputs of any sign"


def _images(count: int = 60) -> np.ndarray:
    return np.random.default_rng(2).random((count, 2, 2, 2)).astype(np.float32)


def _originals() -> dict[str, Original]:
    found: dict[str, Original] = {}

    def add(label: str, target: Callable[[], Target] | str, make: MakeTicket, *, coded: bool = False) -> None:
        own = TARGETS[target] if isinstance(target, str) else target
        found[label] = Original(own, make)
        if coded:
            found[f"{label}, coded"] = Original(own, make, coded=True)

    add("pensia", _SMALL, _built("pensia"), coded=True)
    add("pensia, any sign", _SIGNED, _built("pensia"))
    add("scalar", _SMALL, _built("scalar"), coded=True)
    for name in ("scalar-shared", "natale", "malach", "orseau", "burkholz", "binary"):
        add(name, _SIGNED, _built(name), coded=name in ("scalar-shared", "burkholz"))
    add("kumar", lambda: COVERED["kumar"].takes(TARGETS[_SIGNED]()), _built("kumar"), coded=True)
    add("dacunha, convolutions", _CONV, _built("dacunha"))
    add("burkholz, convolutions", _CONV, _built("burkholz"))
    add("ferbach, rotations", _TURNED, _built("ferbach"), coded=True)
    add("otsuka, transformer", _TOKENS, _built("otsuka"))
    add("pensia, residual", _BLOCK, _built("pensia"))
    add("scalar, tower", _tower, _built("scalar"))
    add("scalar, attention", _attention, _built("scalar"))
    add("scalar, graph of words", _words, _built("scalar"))
    add("pensia, graph of branches", _branches, _built("pensia"), coded=True)
    add("scalar, bag", "bag", _built("scalar"), coded=True)
    add("pensia, rare unit", rare_unit, _built("pensia", tolerance=0.3))
    add("scalar, rare unit", rare_unit, _built("scalar", tolerance=0.05))
    add("scalar, rare unit, relative", rare_unit, _relative)
    add("pensia, pre-pruned", _SMALL, _built("pensia", candidates=16, transforms=(PrePrune(0.6),)), coded=True)
    add("scalar, locked", _SMALL, _built("scalar", transforms=(PrePrune(0.9), Lock(0.2))), coded=True)
    add("pensia, shared layers", _SMALL, _built("pensia", transforms=(ShareLayers(),)))
    add("scalar, lossless", _SMALL, lambda target: approximate(target, seed=0, construction="scalar", lossless=True))
    add("scalar, budget", _SMALL, _built("scalar", kept=50))
    add("scalar, loss-aware", _SMALL, _built("scalar", kept=60, images=_images()))
    add("scalar, smallest", _SMALL, _built("scalar", objective="smallest"), coded=True)
    add("random layer", _SMALL, _learned(lambda node: RandomLayer(node, _NORMAL)))
    add("random layer, residual", _BLOCK, _learned(lambda node: RandomLayer(node, _NORMAL)))
    add("several levels", _CONV, _learned(lambda node: MultiLevelLayer(node, _NORMAL, (1.0, -1.0, 0.5))), coded=True)
    add("redundant", _SMALL, _learned(lambda node: Gadget(node, 4, _NORMAL, _NORMAL)))
    add("trained", _SMALL, _learned(lambda node: TrainedLayer(node, _NORMAL)), coded=True)
    add("partly trained", _SMALL, _learned(lambda node: PartlyTrainedLayer(node, _NORMAL)), coded=True)
    return found


ORIGINALS = _originals()


def target_of(label: str, ticket: Ticket) -> Target:
    """The target of a ticket; a learned ticket's is the copy in the file."""
    own = ticket.target
    return own if ticket.header.method == "learned" and own is not None else ORIGINALS[label].target()


def write_originals(folder: Path, labels: Sequence[str] = ()) -> list[str]:
    """Write the tickets that are missing in a folder, as FOLDER/NUMBER; returns the labels in order."""
    labels = list(labels or ORIGINALS)
    for number, label in enumerate(labels):
        path, original = folder / str(number), ORIGINALS[label]
        if not path.exists():
            original.make(original.target()).save(path, coded=original.coded)
    return labels
