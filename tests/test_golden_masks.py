"""Masks and random weights of fixed seeds stay what they were, whatever is renamed or moved in the code.

`golden_masks.json` holds a SHA-256 digest for each case: of the names, the packed bits and the redraws of a ticket's
masks, or of the weights of a random network. Headers and settings are not in it. Where training in float32 makes the
masks of JAX versions differ, a case has one digest for each version, and is skipped for others. After a change that is
meant to move masks, run `python -m tests.test_golden_masks --write` with each of these versions.
"""

import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
import pytest

from lottery_jax import Network, Target, Ticket, approximate, mlp_target
from lottery_jax.constructions.scalar import Scalar
from lottery_jax.mask_learning.learner_sources import redundant_source
from lottery_jax.mask_learning.registry import LEARNERS, SOURCES
from lottery_jax.networks.architectures import mlp
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.node import Spec
from lottery_jax.networks.sources.base import Source
from lottery_jax.networks.sources.binary_ladder import BinaryLadder
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.random_layer import MultiLevelLayer, RandomLayer
from lottery_jax.networks.sources.replicated_neurons import ReplicatedGadget, ReplicatedNeurons
from lottery_jax.networks.sources.trained_layer import PartlyTrainedLayer, TrainedLayer
from lottery_jax.networks.transforms import Lock, PrePrune, ShareLayers
from lottery_jax.pruning import TRAINED
from lottery_jax.rng.sampler import Sampler
from lottery_jax.training.learner import TrainingRequest
from tests.constructions.catalogue import COVERED, TARGETS
from tests.mask_learning.sources import small_data

GOLDEN = Path(__file__).with_name("golden_masks.json")
SEED = 2**33 + 5
VERSION = ".".join(jax.__version__.split(".")[:2])
"""Of JAX: within a minor version training has given the same masks."""

Case = Callable[[], str]


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Of names, shapes and contents; boolean arrays are packed."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        content = np.packbits(array, bitorder="little") if array.dtype == bool else np.ascontiguousarray(array)
        sha.update(f"{name} {list(array.shape)} {array.dtype.str}\n".encode() + content.tobytes())
    return sha.hexdigest()


def of_tickets(*tickets: Ticket) -> str:
    """Of the masks and redraws of one ticket or several."""
    found = {}
    for place, ticket in enumerate(tickets):
        for name, mask in ticket.masks.items():
            found |= {f"{place} mask {name}": mask, f"{place} redraws {name}": ticket.redraws(name)}
    return digest(found)


# Constructions.


def small_target(*, nonnegative: bool = False) -> Target:
    random = np.random.default_rng(7)
    weights = [random.uniform(-0.3, 0.3, shape).astype(np.float32) for shape in ((6, 9), (4, 6))]
    return mlp_target(weights, nonnegative=nonnegative)


def images() -> np.ndarray:
    return np.random.default_rng(3).uniform(-1, 1, (40, 9)).astype(np.float32)


def constructed(name: str, objective: str) -> str:
    """A construction of the catalogue, with its options there, on a target that it takes."""
    entry = COVERED[name]
    kind = {"dacunha": "convolutions", "ferbach": "rotations", "otsuka": "transformer"}.get(name, "mlp")
    target = entry.takes(TARGETS[f"{kind}, inputs of any sign"]())
    options = {"tolerance": entry.tolerance, "max_redraws": entry.max_redraws, "objective": objective}
    return of_tickets(approximate(target, seed=SEED, construction=entry.construction, **options))


def approximated(target: Target | None = None, **options: object) -> str:
    if "kept" in options:  # a budget replaces the tolerance
        options.pop("tolerance", None)
    return of_tickets(approximate(target or small_target(), seed=SEED, **options))  # type: ignore[arg-type]


SCALAR = {"construction": "scalar", "candidates": 8, "tolerance": 0.03}
PENSIA = {"construction": "pensia", "candidates": 8, "tolerance": 0.05}
CONSTRUCTIONS: dict[str, Case] = {
    **{f"construction: {name}": functools.partial(constructed, name, "least-error") for name in COVERED},
    **{
        f"construction: {name}, {objective}": functools.partial(constructed, name, objective)
        for name in ("pensia", "scalar")
        for objective in ("smallest", "first")
    },
    "construction: pensia, inputs never negative": lambda: approximated(small_target(nonnegative=True), **PENSIA),
    "construction: pensia, 100 kept": lambda: approximated(**PENSIA, kept=100),
    "construction: pensia, 100 kept by importance": lambda: approximated(
        **PENSIA, kept=100, importance={name: np.abs(value) for name, value in small_target().arrays().items()}
    ),
    "construction: scalar, 100 kept": lambda: approximated(**SCALAR, kept=100),
    "construction: scalar, lossless": lambda: approximated(construction="scalar", lossless=True),
    **{
        f"construction: scalar, {words}": functools.partial(
            lambda span: approximated(construction=Scalar(8, range=span), tolerance=0.03), span
        )
        for words, span in (
            ("range of the model", "model"),
            ("a quarter of the range", "quarter"),
            ("matched normal", "matched"),
        )
    },
    "construction: pensia, half of the source absent": lambda: approximated(**PENSIA, transforms=(PrePrune(0.5),)),
    "construction: pensia, a quarter of the source locked": lambda: approximated(**PENSIA, transforms=(Lock(0.25),)),
    "construction: pensia, folded layers": lambda: approximated(**PENSIA, transforms=(ShareLayers(),)),
    "construction: scalar, absent, locked and folded": lambda: approximated(
        **SCALAR, transforms=(PrePrune(0.9), Lock(0.25), ShareLayers())
    ),
    "construction: a bag of tensors, scalar": lambda: approximated(TARGETS["bag"](), **SCALAR),
}
# The moments of its layers' inputs are sums in floating point.
LOSS_AWARE: dict[str, Case] = {
    f"construction: {name}, loss-aware": functools.partial(
        lambda name: approximated(construction=name, candidates=8, kept=100, images=images()), name
    )
    for name in ("pensia", "scalar")
}

# Learned and trained tickets.

DATA = small_data()
NETWORK = mlp((4, 5, 2), Spec((2, 2, 1), nonnegative=True))
GADGETS = redundant_source(NETWORK, copies=2)
OPTIONS: dict[str, dict[str, object]] = {
    **{name: {"learning_rate": 0.05} for name in TRAINED},
    "edge-popup": {"learning_rate": 2.0},
    "iterand": {"learning_rate": 2.0, "renewal": 0.5},
    "gem-miner": {"learning_rate": 0.2},
    "biprop": {"learning_rate": 2.0},
    "signed-supermask": {"learning_rate": 2.0},
    "multi-bit-supermask": {"learning_rate": 2.0, "signed": True},
    "evolution": {"population": 8, "learning_rate": 1.0},
    "iterative-magnitude": {"learning_rate": 0.05, "rounds": 2},
    "magnitude-supermask": {"learning_rate": 0.3},
}
"""Beside a batch of 8: options by which masks move within two epochs."""


def learned(name: str, source: Network) -> str:
    kind = {**LEARNERS, **TRAINED}[name]
    learner = kind(**{"batch_size": 8, **OPTIONS.get(name, {})})  # type: ignore[call-arg]
    keeps = (0.4,) if learner.sweeps else ()
    return of_tickets(*learner.learn(source, TrainingRequest(DATA, seeds=(5, 6), keeps=keeps, epochs=2)))


LEARNED: dict[str, Case] = {
    **{
        f"learned: {name}, {source}": functools.partial(
            lambda name, source: learned(name, SOURCES[source](GADGETS)), name, source
        )
        for name, kind in LEARNERS.items()
        for source in kind.sources or SOURCES
    },
    **{f"trained: {name}": functools.partial(learned, name, NETWORK) for name in TRAINED},
}

# Random weights.

UNIFORM, NORMAL = Sampler.uniform(-1, 1), Sampler.normal(0.5)
SAMPLERS = {
    "uniform": UNIFORM,
    "uneven uniform": Sampler.uniform(-0.4642, 0.5407),
    "normal": NORMAL,
    "signed constant": Sampler.signed_constant(0.3),
    "log-uniform": Sampler.log_uniform(0.02, 1),
    "grid": Sampler.grid(7),
    "normal, 0.7 of it absent": dataclasses.replace(NORMAL, density=0.3),
    "uniform, 0.1 of it absent and 0.25 locked": dataclasses.replace(UNIFORM, density=0.9, locked=0.25),
}
CONV, DENSE = Conv(4, 6, (3, 2), stride=(2, 1), groups=2, bias=True), Dense(5, 3, bias=True)
NODES: dict[str, Source] = {
    "plain, dense": RandomLayer(DENSE, NORMAL),
    "plain, convolution": RandomLayer(CONV, NORMAL),
    "copies, dense": CandidatesPerWeight(DENSE, 4, (UNIFORM, NORMAL)),
    "copies that outputs share, convolution": CandidatesPerWeight(CONV, 3, (UNIFORM, UNIFORM), shared=True),
    "gadget, dense": Gadget(DENSE, 4, UNIFORM, NORMAL),
    "gadget, convolution": Gadget(CONV, 3, UNIFORM, UNIFORM),
    "ladder, dense": BinaryLadder(DENSE, 4, 2),
    "redundant, dense": ReplicatedNeurons(DENSE, 1, 1, UNIFORM, constant=3.0),
    "redundant, convolution": ReplicatedNeurons(CONV, 1, 1, NORMAL),
    "redundant gadget, dense": ReplicatedGadget(DENSE, 4, UNIFORM, UNIFORM),
    "tied, dense": MultiLevelLayer(DENSE, NORMAL, (1.0, -1.0)),
    "tied, convolution": MultiLevelLayer(CONV, UNIFORM, (1.0, 0.5, 0.25)),
    "trained, dense": TrainedLayer(DENSE, NORMAL),
    "partly trained, dense": PartlyTrainedLayer(DENSE, NORMAL),
}


def drawn(node: Source) -> str:
    """All random weights of a network of one node, and again with some blocks drawn anew."""
    network = Network(node, Spec((6, 5, 4) if node.layer is CONV else (5,)))
    name = next(iter(network.random_tensors))
    again = {name: np.array([[0, 3], [2, 1]], np.int64)}
    first, second = network.draw(SEED), network.draw(SEED, again)
    return digest({**first, **{f"{name} again": value for name, value in second.items()}})


DRAWN: dict[str, Case] = {
    **{
        f"drawn: sampler, {name}": functools.partial(drawn, RandomLayer(DENSE, sampler))
        for name, sampler in SAMPLERS.items()
    },
    **{f"drawn: source, {name}": functools.partial(drawn, node) for name, node in NODES.items()},
    **{
        f"drawn: source of learned masks, {name}": functools.partial(
            lambda name: digest(SOURCES[name](GADGETS).draw(SEED)), name
        )
        for name in SOURCES
    },
}

CASES = {**DRAWN, **CONSTRUCTIONS, **LOSS_AWARE, **LEARNED}
IN_FLOATS = {*LOSS_AWARE, *LEARNED}
"""Cases whose masks follow sums in floating point, which other devices round otherwise."""
SLOW = {
    *LOSS_AWARE,
    "construction: pensia, first",
    "construction: scalar, first",
    "construction: scalar, lossless",
    *(name for name in LEARNED if name.startswith("learned") and name != "learned: edge-popup, plain"),
}
"""Cases that compile programs of their own for seconds."""


def golden() -> dict[str, dict[str, str]]:
    """Digests by case and version of JAX; in the file a case has one for all versions where they agree."""
    if not GOLDEN.exists():
        return {}
    content = json.loads(GOLDEN.read_text())
    return {
        name: dict.fromkeys(content["jax"], found) if isinstance(found, str) else found
        for name, found in content["masks"].items()
    }


EXPECTED = golden()


def test_every_case_has_a_digest() -> None:
    assert set(EXPECTED) == set(CASES)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CASES])
def test_the_masks_of_a_seed_stay_what_they_were(name: str) -> None:
    expected = EXPECTED[name]
    if name in IN_FLOATS and jax.default_backend() != "cpu":
        pytest.skip("its sums in floating point are those of a CPU")
    if len(set(expected.values())) > 1 and VERSION not in expected:
        pytest.skip(f"no digest is known for JAX {VERSION}, and those of {', '.join(expected)} differ")
    assert CASES[name]() == expected.get(VERSION, next(iter(expected.values())))


def write() -> None:
    """Write the digests of this version of JAX, and keep those of others."""
    before = golden()
    found = {name: {**before.get(name, {}), VERSION: case()} for name, case in CASES.items()}
    versions = sorted({version for known in found.values() for version in known})
    masks = {
        name: next(iter(known.values())) if len({known.get(version) for version in versions}) == 1 else known
        for name, known in found.items()
    }
    GOLDEN.write_text(json.dumps({"jax": versions, "masks": masks}, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        raise SystemExit("usage: python -m tests.test_golden_masks --write")
    write()
