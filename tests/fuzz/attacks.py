"""Forgeries with a plan: huge kept terms that cancel, the same weights at another scale, and much work in few bytes.

Huge terms are right in exact arithmetic and wrong in float32. The sampler becomes log-uniform over many powers of two.
Each attacked weight keeps its largest term first. A greedy sum then cancels it and approximates the target weight, so
that every residual is within the tolerance.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Node
from lottery_jax.networks.rewrites import match_rewrites
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.target import Target
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets.effective_slices import ApproximatedTensor, approximated_tensors
from lottery_jax.tickets.ticket import Ticket, make_ticket

_OCTAVES = (12, 30, 62)  # between the least and the largest candidate; few, for few compiled programs
_PER_OCTAVE = 12  # candidates for each factor of two, with which greedy sums seldom fail


def cancelling(ticket: Ticket, target: Target, random: np.random.Generator) -> Ticket | None:
    """A ticket for the same target whose attacked weights keep huge terms; None if its sources have no such form.

    One layer is attacked, or all: each weight, some of them, or those of one output. Other layers stay as they are.
    """
    header = ticket.header
    if not header.tolerance or ticket.network.input_spec is None:
        return None
    target = match_rewrites(target, ticket.network)
    paths = [
        path for path, source in ticket.network.sources.items() if isinstance(source, CandidatesPerWeight | Gadget)
    ]
    if not paths:
        return None
    if random.random() < 0.7:
        paths = [paths[random.integers(len(paths))]]
    least = min(header.tolerance, 1.0) / (64 if header.relative else 16)
    sampler = Sampler.log_uniform(least, least * 2.0 ** int(random.choice(_OCTAVES)))
    network = _wide(ticket.network, sampler, paths, second=random.random() < 0.5)
    masks, redraws = {}, {}
    for name, tensor in network.random_tensors.items():
        same = tensor == ticket.network.random_tensors[name]
        masks[name] = ticket.mask(name) if same else np.ones(tensor.shape, bool)
        redraws |= {name: ticket.redraws(name)} if same else {}
    parts = {"seed": ticket.seed, "redraws": redraws, "method": "attack", "stored": ticket.stored}
    bare, share = make_ticket(network, masks=masks, **parts), random.choice([0.0, 0.0, 0.02, 0.3, 1.0])
    unit = 0 if random.random() < 0.5 else int(random.integers(0, 4))
    for tensor in approximated_tensors(network, bare.seed, bare.content):
        if tensor.random_tensor != ticket.network.random_tensors[tensor.name]:
            per_output = tensor.random_tensor.rows // tensor.source.layer.tensors()[tensor.parameter][0]
            attacked = random.random(tensor.random_tensor.rows) < share
            attacked |= (share == 0) & (np.arange(len(attacked)) // per_output == unit)
            masks[tensor.name] = _masked(bare, tensor, target, attacked)
    made = make_ticket(network, masks=masks, target=target, tolerance=header.tolerance, **parts)
    return Ticket(dataclasses.replace(made.header, relative=header.relative), made.content)


def _wide(network: Network, sampler: Sampler, paths: Sequence[str], *, second: bool) -> Network:
    """The source with more candidates, of this sampler, in some layers."""
    candidates = int(_PER_OCTAVE * math.log2(sampler.high / sampler.low))

    def wide(path: str, node: Node) -> Node:
        if path in paths and isinstance(node, CandidatesPerWeight):
            samplers = (sampler,) * len(node.samplers)
            return dataclasses.replace(node, candidates=candidates, samplers=samplers, shared=False, gain=1.0)
        if path in paths and isinstance(node, Gadget):
            first = Sampler.uniform(-1, 1) if second else sampler
            return dataclasses.replace(node, units=2 * candidates, first=first, second=sampler, gain=1.0)
        return node

    return network.map_layers(wide)


def _masked(ticket: Ticket, tensor: ApproximatedTensor, target: Target, attacked: np.ndarray) -> np.ndarray:
    """The mask of one tensor: greedy sums near the target's weights; those of attacked rows begin with huge terms."""
    own = tensor.random_tensor
    weights = np.broadcast_to(own.draw_all(ticket.seed, tensor.redraws), own.shape).reshape(own.rows, own.width)
    wanted = np.repeat(target.array(tensor.name).astype(np.float64).reshape(-1), tensor.source.rows_per_weight)
    mask, (rows, columns) = np.zeros((own.rows, own.width), bool), np.indices((own.rows, own.width))
    for sign in tensor.signs:
        factors = tensor.source.coefficients(tensor.parameter, rows, columns, sign, tensor.edges)
        mask |= _greedy(weights.astype(np.float64) * factors, wanted, attacked)
    return mask.reshape(own.shape)


def _greedy(terms: np.ndarray, wanted: np.ndarray, attacked: np.ndarray) -> np.ndarray:
    """Subsets of terms [R, C] near numbers [R], the largest terms first; attacked rows keep their largest term."""
    order = np.argsort(-np.abs(terms), axis=1)
    largest_first = np.take_along_axis(terms, order, 1)
    kept, left = np.zeros(terms.shape, bool), wanted.copy()
    for column, term in enumerate(largest_first.T):
        chosen = (np.abs(left - term) < np.abs(left)) | (attacked & (column == 0))
        kept[:, column] = chosen & (term != 0)
        left -= np.where(chosen, term, 0.0)
    found = np.zeros_like(kept)
    np.put_along_axis(found, order, kept, 1)
    return found


def costly(header: dict[str, Any], random: np.random.Generator) -> None:
    """Ask for much work with few bytes, in place: huge windows that keep an image's size, or a huge image."""
    nodes, shape = header["network"]["root"]["nodes"], header["network"]["input_spec"][0]
    if len(shape) == 3 and random.random() < 0.7:
        size = 2 ** int(random.integers(3, 20)) + 1
        node = {"kind": str(random.choice(["max_pool", "average_pool"])), "size": [size, size]}
        node |= {"stride": [1, 1], "padding": [size // 2, size // 2]}
        nodes[:0] = [[f"costly{k}", node] for k in range(int(random.integers(1, 4)))]
    else:
        shape[:-1] = [size * 2 ** int(random.integers(1, 14)) for size in shape[:-1]]


def rescaled(header: dict[str, Any], random: np.random.Generator) -> None:
    """Multiply samplers by a power of two and divide gains by it, in place: all weights stay the same."""
    power = 2.0 ** int(random.integers(-60, 61))
    for node in _nodes(header["network"]):
        if "gain" not in node:
            continue
        samplers = [node[name] for name in ("sampler", "second") if name in node] + list(node.get("samplers", ()))
        for sampler in samplers:
            if sampler["kind"] != "grid":
                names = ("scale",) if sampler["kind"] in ("normal", "signed_constant") else ("low", "high")
                sampler.update({name: sampler[name] * power for name in names})
        if samplers and math.isfinite(node["gain"]):
            node["gain"] = node["gain"] / power


def _nodes(value: Any) -> Sequence[dict[str, Any]]:
    """All nodes with a gain inside a JSON value."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = [value] if isinstance(value, dict) and "gain" in value else []
    return [*own, *(node for part in parts for node in _nodes(part))]
