"""Files that cost more than they weigh are refused at once; those that are admitted take seconds; honest ones pass."""

import math
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax import approximate, load_ticket, verify
from lottery_jax.bounds import verify_box
from lottery_jax.constructions.base import Construction
from lottery_jax.constructions.registry import CONSTRUCTIONS
from lottery_jax.errors import InputError
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.attention import Attention, MergedAttention
from lottery_jax.networks.layers.containers import Chain, Residual
from lottery_jax.networks.layers.conv import Conv, RotationConv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.graph import INPUT
from lottery_jax.networks.layers.operations import (
    Binary,
    Broadcast,
    Concatenate,
    DotGeneral,
    Elementwise,
    Lookup,
    Operation,
    Pad,
    Reduce,
    ReduceWindow,
    Reshape,
)
from lottery_jax.networks.layers.pooling import AveragePool, Flatten, GlobalPool, MaxPool
from lottery_jax.networks.layers.tensor_dict import NamedTensor, TensorDict
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import PRODUCTS_AT_ONCE, Node, Spec
from lottery_jax.networks.rewrites import fold_batch_norm
from lottery_jax.networks.sources.binary_ladder import BinaryLadder
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.networks.sources.replicated_neurons import ReplicatedGadget, ReplicatedNeurons
from lottery_jax.networks.target import Target
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets import work_limit
from lottery_jax.tickets.work_limit import Work, WorkLimit, WorkLimitError, verification_work
from tests.cli.calling import lottery_jax, refusal
from tests.networks.catalogue import CASES, Case, compiled, drawn, stored
from tests.networks.graph_cases import sequence
from tests.networks.graphs import Builder
from tests.tickets.forging import TARGET, TOLERANCE, forge, pruned_whole, read

U = Sampler.uniform(-1, 1)
ONE = RandomLayer(Dense(1, 1), U)


def chain(*nodes: Node, inputs: tuple[int, ...]) -> Network:
    return Network(Chain(tuple((str(number), node) for number, node in enumerate(nodes))), Spec(inputs, True))


def attending(tokens: int, kind: type[Attention | MergedAttention]) -> Network:
    first, last = (12, 4) if kind is Attention else (16, 16)
    node = kind(4, RandomLayer(Dense(4, first), U), RandomLayer(Dense(last, 4), U))
    return chain(node, GlobalPool(), inputs=(tokens, 4))


def pooled(pool: Callable[..., Node], size: int) -> Network:
    side = 8 + 2 * (size // 2) - size + 1
    return chain(
        pool((size, size), (1, 1), (size // 2, size // 2)),
        Flatten(),
        RandomLayer(Dense(side**2, 1), U),
        inputs=(8, 8, 1),
    )


def convolved(size: int, padding: int, side: int) -> Network:
    return chain(
        RandomLayer(Conv(1, 1, (size, size), (1, 1), (padding, padding)), U), GlobalPool(), inputs=(side, side, 1)
    )


def candidates(rows: int, count: int) -> Network:
    return Network(TensorDict((("w", CandidatesPerWeight(NamedTensor((rows,)), count, (U,))),)))


def summed(*parts: Operation | tuple[Operation | None, ...]) -> Network:
    """Operations on [1, 1], the sum of their result, and a random layer."""
    column = Reshape((1, 1)), *parts, Reduce("sum", (0,))
    return chain(sequence(*column), ONE, inputs=(1,))


def at_a_time(count: int) -> Network:
    """Arrays of a million numbers that are all read by the last node."""
    builder = Builder()
    wide = builder.add(Broadcast((1_000_000, 1)), INPUT)
    values = [builder.add(Elementwise("exp"), wide) for _ in range(count)]
    total = builder.add(Reduce("sum", (0,)), builder.add(Concatenate(0), *values))
    return chain(builder.graph(total), ONE, inputs=(1,))


def looked_up(rows: int) -> Network:
    """Rows of 1,000 numbers from a table that is computed."""
    builder = Builder()
    table = builder.add(Broadcast((2, 1000)), INPUT)
    found = builder.add(Lookup(), table, builder.add(Broadcast((rows,)), INPUT))
    total = builder.add(Reduce("sum", (0,)), builder.add(Reshape((1000 * rows, 1)), found))
    return chain(builder.graph(total), ONE, inputs=(1,))


def held_outside(depth: int) -> Network:
    """Graphs in graphs, each of which keeps 100,000 numbers while the inner one runs."""
    node: Node = Relu()
    for _ in range(depth):
        builder = Builder()
        kept = builder.add(Broadcast((100_000, 1)), INPUT)
        inner = builder.add(node, INPUT, name="inner")
        total = builder.add(Reduce("sum", (0,)), kept)
        node = builder.graph(builder.add(Binary("add"), inner, total))
    return chain(node, ONE, inputs=(1,))


# Each grows with a size: any file of it above some size must be refused, and the largest that is not must be cheap.
GROWING: dict[str, Callable[[int], Network]] = {
    "rows of one candidate": lambda n: candidates(100 * n, 1),
    "rows of 21 candidates": lambda n: candidates(100 * n, 21),
    "rows of 65,535 candidates": lambda n: candidates(n, 65_535),
    "a dense layer": lambda n: chain(RandomLayer(Dense(1000, n), U), inputs=(1000,)),
    "a gadget": lambda n: chain(Gadget(Dense(1000, n), 4, U, U), inputs=(1000,)),
    "hidden units": lambda n: chain(Gadget(Dense(10, 10), n, U, U), inputs=(10,)),
    "a ladder": lambda n: chain(BinaryLadder(Dense(4, 10), n, 4), inputs=(4,)),
    "copies": lambda n: chain(
        ReplicatedGadget(Dense(4, 4), 4, U, U, copies=n), ReplicatedNeurons(Dense(4, 4), n, 1, U), inputs=(4,)
    ),
    "windows of a maximum": lambda n: pooled(MaxPool, n),
    "windows of a mean": lambda n: pooled(AveragePool, n),
    "padding": lambda n: convolved(3, n, 8),
    "kernels": lambda n: convolved(n, n // 2, n),
    "rotations": lambda n: chain(RandomLayer(RotationConv(1, 1, 3, n), U), Flatten(), inputs=(8, 8, 1)),
    "tokens": lambda n: attending(n, Attention),
    "tokens of merged attention": lambda n: attending(n, MergedAttention),
    "layers without weights": lambda n: chain(ONE, *[Relu()] * n, inputs=(1,)),
    "layers": lambda n: chain(*[ONE] * n, inputs=(1,)),
    "blocks": lambda n: chain(*[Residual(Chain((("a", ONE),)))] * n, inputs=(1,)),
    "broadcasts": lambda n: summed(Broadcast((n, 1))),
    "padding between numbers": lambda n: summed(Broadcast((2, 1)), Pad((0, 0), (0, 0), (n, 0))),
    "windows of a graph": lambda n: summed(Broadcast((2 * n, 1)), ReduceWindow("max", (n, 1), (1, 1), (0, 0), (0, 0))),
    "products of activations": lambda n: summed(
        Broadcast((n, 9)), (DotGeneral((1,), (1,)), None, None), Reshape((n * n, 1))
    ),
    "sums of products": lambda n: summed(Broadcast((9, n)), (DotGeneral((1,), (1,)), None, None), Reshape((81, 1))),
    "values at a time": at_a_time,
    "rows of a table": looked_up,
    "an image as a vector": lambda n: chain(RandomLayer(Conv(1, 1, (1, 1)), U), Flatten(), inputs=(n, n, 1)),
}
MOST_SECONDS, MOST_BYTES = 10.0, 2 << 30


def factor(network: Network, file_bytes: int) -> float:
    """How many times the limit a coded ticket asks for."""
    work = verification_work(network, coded=True, promised=False)
    limit = WorkLimit("it", file_bytes)
    return max(work.operations / limit.allowed.operations, work.bytes / limit.allowed.bytes)


def largest(make: Callable[[int], Network]) -> int:
    """The largest size, in steps of a tenth, that the limit admits for a file of 2 kB."""
    size = 1
    while True:
        try:
            if factor(make(size + max(size // 10, 1)), 2_000) > 1:
                return size
        except InputError:  # beyond what any network may have
            return size
        size += max(size // 10, 1)


@pytest.mark.parametrize("name", GROWING)
def test_what_costs_too_much_is_refused_before_anything_is_allocated(name: str, tmp_path: Path) -> None:
    """The file is that of a small network, whose header is changed to one beyond the limit."""
    make = GROWING[name]
    size = largest(make)
    while True:
        try:
            if factor(make(size), 2_000) > 3:
                break
            size *= 2
            make(size)
        except InputError:
            pytest.skip("no network may be that large")
    header, tensors = read(pruned_whole(tmp_path / "t", make(1)))
    header["network"] = make(size).to_json()
    path = forge(tmp_path / "t", header, tensors)
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(WorkLimitError, match="if you trust the file, give --limit"):
        load_ticket(path)
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 15 and peak < 100 * path.stat().st_size + 10_000_000


ADMITTED = """
import sys, time, resource
from pathlib import Path
import jax.numpy as jnp
from lottery_jax import load_ticket, verify
from tests.tickets.test_work_limit import GROWING
from tests.tickets.forging import pruned_whole

path = Path(sys.argv[1])
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.process_time()
ticket = load_ticket(path)
assert verify(ticket).outcome == "no guarantee"
seconds = time.process_time() - start
if ticket.network.input_spec is not None:
    start = time.process_time()
    ticket.forward()(jnp.ones((1, *ticket.network.input_spec.shape))).block_until_ready()
    seconds = max(seconds, time.process_time() - start)
print(seconds, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", GROWING)
def test_what_is_admitted_costs_seconds(name: str, tmp_path: Path) -> None:
    """The largest file of a kind that the limit admits: seconds of two cores; memory with that of Python and JAX."""
    network = GROWING[name](largest(GROWING[name]))
    path = pruned_whole(tmp_path / "t", network)
    ended = subprocess.run([sys.executable, "-c", ADMITTED, str(path)], capture_output=True, text=True, check=True)
    seconds, memory = map(float, ended.stdout.split())
    assert seconds < 2 * MOST_SECONDS and memory < MOST_BYTES


def test_the_three_files_that_were_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pooling that took more than 120 s, attention that asked for 52 TB, and masks of 268 million weights."""
    small = {"pool": pooled(MaxPool, 8), "attention": attending(4, Attention)}
    large = {"pool": pooled(MaxPool, 1 << 20), "attention": attending(1 << 20, Attention)}
    for name, one in small.items():
        header, tensors = read(pruned_whole(tmp_path / name, one))
        header["network"] = large[name].to_json()
        path = forge(tmp_path / name, header, tensors)
        assert path.stat().st_size < 2400
        assert "asks for about" in refusal(capsys, 2, "verify", path)
        assert "asks for about" in refusal(capsys, 2, "export", path, "--out", tmp_path / "out")
    path = pruned_whole(tmp_path / "masks", candidates(1 << 28, 1))
    assert path.stat().st_size < 3000
    assert "give --limit 7 (in Python limit=7)" in refusal(capsys, 2, "verify", path)


def test_redraws_that_cost_no_bits_are_limited(tmp_path: Path) -> None:
    path = pruned_whole(tmp_path / "t", candidates(1 << 21, 1), redrawn=True)
    assert len(load_ticket(path).redraws("w")) == 1 << 21
    path = pruned_whole(tmp_path / "t", candidates(36_000_000, 1), redrawn=True)
    with pytest.raises(WorkLimitError, match=r"asks for about 0 operations and 1\.7e9 bytes"):
        load_ticket(path)


@pytest.fixture
def tiny_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lottery_jax.tickets.ticket.HEADER_OPERATIONS", 0)
    monkeypatch.setattr(work_limit, "_OPERATIONS", 1_000_000)
    monkeypatch.setattr(work_limit, "_OPERATIONS_PER_BYTE", 1)


@pytest.mark.usefixtures("tiny_limit")
def test_the_advice_works(honest: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = honest["pensia"]
    sentence = refusal(capsys, 2, "verify", path)
    advised = sentence.partition("--limit ")[2].partition(" ")[0]
    assert lottery_jax("verify", path, "--limit", advised) == 0
    assert lottery_jax("export", path, "--limit", advised, "--out", tmp_path / "out") == 0
    capsys.readouterr()
    assert "asks for" in refusal(capsys, 2, "verify", path, "--limit", int(advised) - 1)
    assert verify(path, limit=float(advised)).holds and verify(path, limit=math.inf).holds
    assert verify(load_ticket(path, limit=float(advised))).holds, "what is loaded is admitted"
    with pytest.raises(WorkLimitError):
        verify(path)
    for wrong in (0, -1, math.nan, "1"):
        with pytest.raises(InputError, match="limit must be a positive multiple"):
            verify(path, limit=wrong)  # type: ignore[arg-type]


@pytest.mark.usefixtures("tiny_limit")
def test_bounds_on_a_box_are_limited_too() -> None:
    ticket = approximate(TARGET, seed=0, construction="scalar", candidates=9, tolerance=TOLERANCE)
    with pytest.raises(WorkLimitError, match="--box asks for about"):
        verify_box(ticket)
    assert verify_box(ticket, limit=1000).certificate.holds


def test_files_of_this_program_are_never_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_limit, "_OPERATIONS", 1)
    monkeypatch.setattr(work_limit, "_OPERATIONS_PER_BYTE", 0)
    for coded in (True, False):
        made = approximate(
            TARGET,
            seed=0,
            construction="scalar",
            candidates=9,
            tolerance=TOLERANCE,
            out=tmp_path / "t",
            coded=coded,
            force=True,
        )
        assert made.kept_weights
        with pytest.raises(WorkLimitError):
            load_ticket(tmp_path / "t")


def test_numbers_of_any_size_are_compared() -> None:
    limit = WorkLimit("it", 1000)
    limit.check(Work(10**10, 10**9))
    for work in (Work(10**11, 0), Work(0, 10**10), Work(10**400, 0)):
        with pytest.raises(WorkLimitError):
            limit.check(work)
        WorkLimit("it", 1000, math.inf).check(work)
    with pytest.raises(WorkLimitError, match="give --limit inf"):
        limit.check(Work(10**400, 0))


@pytest.mark.parametrize("construction", ["scalar", "pensia", "binary", "otsuka", "kumar"])
@pytest.mark.parametrize(
    ("name", "image"),
    [("lenet5", 28), ("conv6", 32), ("resnet18", 32), ("vgg16", 32), ("vit", 32), ("vit", 224), ("vit", 384)],
)
def test_honest_tickets_are_below_the_limit(name: str, image: int, construction: str) -> None:
    """Up to 9,216 tokens. Nothing is drawn: the size of the file follows from its tensors."""
    if construction == "otsuka" and name != "vit":
        pytest.skip("otsuka is for attention")
    whole = architecture(name, Spec((image, image, 1 if name == "lenet5" else 3), True), 10)
    zeros = {own: np.zeros(shape, np.float32) + own.endswith("running_var") for own, shape in whole.tensors.items()}
    made: Construction = CONSTRUCTIONS[construction]()
    source = made.source(made.prepare(fold_batch_norm(Target(whole, zeros))))  # type: ignore[arg-type]
    size = sum(-(-tensor.size // 8) for tensor in source.random_tensors.values())
    size += 4 * sum(map(math.prod, [*source.approximated.values(), *source.tensors.values()]))
    work, allowed = verification_work(source, coded=False, promised=True), WorkLimit("it", size).allowed
    assert work.operations < allowed.operations and work.bytes < allowed.bytes


@pytest.mark.parametrize("kind", [Attention, MergedAttention])
def test_attention_of_many_tokens_is_computed_in_slices(
    kind: type[Attention | MergedAttention], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = attending(50, kind).target
    random = np.random.default_rng(0)
    tensors = {name: random.normal(size=shape).astype(np.float32) for name, shape in small.tensors.items()}
    x = jnp.asarray(random.normal(size=(3, 50, 4)), jnp.float32)
    whole = small.module(tensors)(x)
    assert small.cost.numbers == 4 * 50 * 50
    for scores, tokens in ((1, 1), (4 * 50 * 7, 7), (4 * 50 * 49, 49)):
        monkeypatch.setattr("lottery_jax.networks.layers.attention._MAX_SCORES", scores)
        np.testing.assert_allclose(small.module(tensors)(x), whole, rtol=1e-5, atol=1e-6)
        assert small.root.cost(Spec((50, 4))).numbers == max(4 * 50 * tokens, 50 * (12 if kind is Attention else 16))


def test_values_outside_an_inner_graph_are_counted() -> None:
    assert 6 * 100_000 <= held_outside(6).cost.numbers < 8 * 100_000


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.node.kind)
def test_no_layer_costs_more_than_it_says(case: Case) -> None:
    """XLA's own count of operations, of which a product and a sum are two, for every kind of layer."""
    random, masks = drawn(case.node, case.shape)
    arguments = {**stored(case.node), **random}, masks, np.ones((1, *case.shape), np.float32)
    placed = jax.tree.map(jnp.asarray, arguments)
    counted = compiled(case.node).lower(*placed).cost_analysis().get("flops", 0)  # type: ignore[attr-defined]
    said = case.node.cost(Spec(case.shape)).operations
    assert counted <= 2.5 * PRODUCTS_AT_ONCE * said, "products of matrices, and polynomials of one number, are fast"
    assert said <= 20 * counted + 1000
