"""The coder alone: what is written is read back, and costs what is said."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.io.checksummed_file import ChecksummedFile
from lottery_jax.io.tensor_file import FormatError, InMemoryTensors, read_array
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.target import Target
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets.size.coded_file import WORDS, CodedStore, pack_codes, unpack_codes, write_coded
from lottery_jax.tickets.size.conditioning import Conditioning, Span, mask_reader
from lottery_jax.tickets.size.description_length import rounding_bits
from lottery_jax.tickets.size.entropy_coder import AnsDecoder, AnsEncoder
from lottery_jax.tickets.size.mask_codes import choose_codes, coded_bits
from lottery_jax.tickets.size.subset_ranks import bits_to_subsets, ranks_to_subsets, subsets_to_bits


@pytest.mark.parametrize("width", [1, 2, 5, 9])
def test_ranks_are_in_the_order_of_size_then_lexicographic(width: int) -> None:
    places = range(width)
    listed = [chosen for size in range(width + 1) for chosen in itertools.combinations(places, size)]
    bits = np.array([[place in chosen for place in places] for chosen in listed], np.uint8).reshape(-1)
    found = bits_to_subsets(bits, width)
    assert found is not None
    np.testing.assert_array_equal(found.ranks, np.arange(2**width))
    np.testing.assert_array_equal(subsets_to_bits(ranks_to_subsets(found.ranks, width, np.array(width))), bits)
    np.testing.assert_array_equal(subsets_to_bits(found), bits)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 70), st.integers(0, 40), st.floats(0, 1), st.floats(0, 1))
def test_rows_with_few_free_places_come_back(seed: int, width: int, rows: int, keep: float, free: float) -> None:
    random = np.random.default_rng(seed)
    there = random.random(rows * width) < free
    bits = ((random.random(rows * width) < keep) & there).astype(np.uint8)
    found = bits_to_subsets(bits, width, there)
    if found is None:
        assert width > 62
        return
    np.testing.assert_array_equal(subsets_to_bits(found, there), bits)
    np.testing.assert_array_equal(subsets_to_bits(ranks_to_subsets(found.ranks, width, found.free_counts), there), bits)
    free_in_row = np.minimum(np.count_nonzero(there.reshape(rows, width), 1), 62)
    assert (found.ranks < np.int64(1) << free_in_row).all()


def test_what_is_no_rank_is_refused() -> None:
    for ranks in ([8], [-1]):
        with pytest.raises(FormatError, match="no subset"):
            ranks_to_subsets(np.array(ranks), 3, np.array(3))
    with pytest.raises(FormatError, match="no subset"):
        ranks_to_subsets(np.array([0, 4]), 3, np.array([3, 2]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 61), st.integers(0, 2**62)), max_size=50))
def test_classes_and_places_come_back(rows: list[tuple[int, int, int]]) -> None:
    classes = np.array([row[0] for row in rows], np.int64)
    sizes = np.array([(1 << row[1]) + row[2] % (1 << row[1]) for row in rows], np.int64)
    places = np.array([row[2] for row in rows], np.int64) % np.maximum(sizes, 1)
    counts, encoder = np.bincount(classes), AnsEncoder()
    encoder.encode(classes, counts, places, sizes)
    encoder.encode(classes, counts, places, sizes)
    decoder = AnsDecoder(encoder.words)
    for _ in range(2):
        np.testing.assert_array_equal(decoder.decode_classes(len(rows), counts), classes)
        np.testing.assert_array_equal(decoder.decode_offsets(sizes), places)
    decoder.finish()


def source(*shapes: tuple[int, int, int], density: float = 1.0) -> Network:
    """Layers of (outputs, inputs, candidates), each beside the others in a chain that fits."""
    nodes = [
        (f"fc{place}", CandidatesPerWeight(Dense(inputs, outputs), width, (Sampler("uniform", density=density),)))
        for place, (outputs, inputs, width) in enumerate(shapes)
    ]
    return Network(Chain(tuple(nodes)), Spec((shapes[0][1],)))


@st.composite
def masked(draw: st.DrawFn) -> tuple[Network, InMemoryTensors]:
    """A network with masks of any kind, and blocks that were redrawn."""
    width, middle = draw(st.sampled_from([1, 2, 21, 70])), draw(st.sampled_from([1, 3, 9]))
    network = source((middle, 4, width), (2, middle, draw(st.integers(1, 40))))
    random, content = np.random.default_rng(draw(st.integers(0, 2**32))), {}
    for name, drawn in network.random_tensors.items():
        kind = draw(st.sampled_from(["none", "all", "some", "first", "columns"]))
        mask = np.zeros((drawn.rows, drawn.width), bool)
        if kind == "all":
            mask[:] = True
        elif kind == "some":
            mask = random.random(mask.shape) < draw(st.floats(0, 1))
        elif kind == "first":
            mask[np.arange(drawn.rows), random.integers(0, min(3, drawn.width), drawn.rows)] = True
        elif kind == "columns":
            mask[:, :: draw(st.integers(1, 5))] = True
        content[f"mask.{name}"] = np.packbits(mask, bitorder="little")
        again = np.flatnonzero(random.random(drawn.blocks) < draw(st.sampled_from([0.0, 0.3, 1.0])))
        if len(again):
            content[f"redraws.{name}"] = np.stack([again, random.integers(1, 256, len(again))], 1)
    return network, InMemoryTensors(content)


@settings(max_examples=40, deadline=None)
@given(masked())
def test_files_are_read_back_bit_equal(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[Network, InMemoryTensors]
) -> None:
    network, content = made
    path = tmp_path_factory.mktemp("coded") / "file"
    write_coded(path, "note", {"format": "note"}, network, 0, content)
    with ChecksummedFile(path, "note") as file:
        file.check_digest()
        store = CodedStore(file, network, 0)
        assert set(store.tensors) == set(content.tensors)
        for name in content.tensors:
            np.testing.assert_array_equal(read_array(store, name), read_array(content, name))
        codes = choose_codes(network, 0, content)
        conditioning = Conditioning(network, 0, {}, mask_reader(content))
        again = unpack_codes(pack_codes(codes), network, conditioning)
        assert [list(one.parameters()) for one in again.values()] == [list(one.parameters()) for one in codes.values()]
        said, written = sum(coded_bits(network, 0, content)), file.tensors[WORDS].size * 8
        parameters = len(pack_codes(codes)) * 8
    assert abs(written + parameters - said) <= 0.001 * said + 64 + 8


def test_large_masks_in_several_segments_cost_what_is_said(tmp_path_factory: pytest.TempPathFactory) -> None:
    network = source((700, 400, 21))
    random = np.random.default_rng(0)
    mask = random.random((280_000, 21)) < 0.03
    content = InMemoryTensors({"mask.fc0.weight": np.packbits(mask, bitorder="little")})
    path = tmp_path_factory.mktemp("coded") / "file"
    write_coded(path, "note", {}, network, 0, content)
    with ChecksummedFile(path, "note") as file:
        store, said = CodedStore(file, network, 0), sum(coded_bits(network, 0, content))
        assert file.tensors["coded.segments"].shape == (2, 2)
        assert abs(file.tensors[WORDS].size * 8 - said) <= 0.001 * said
        across = "mask.fc0.weight", 500_000, 100_000
        np.testing.assert_array_equal(store.read(*across), content.read(*across))
    iid = mask.size * -(0.03 * math.log2(0.03) + 0.97 * math.log2(0.97))
    assert said < 1.01 * iid, "no structure, and nearly no loss"


def test_first_subsets_are_short_to_write() -> None:
    """A small rank, and not a small subset alone, is what costs little."""
    network, random = source((100, 100, 21)), np.random.default_rng(0)
    ranks = random.geometric(0.2, 10_000) - 1
    low = subsets_to_bits(ranks_to_subsets(ranks, 21, np.array(21)))
    shuffled = random.permuted(low.reshape(-1, 21), axis=1)
    bits = [
        sum(coded_bits(network, 0, InMemoryTensors({"mask.fc0.weight": np.packbits(each, bitorder="little")})))
        for each in (low, shuffled)
    ]
    chances = 0.2 * 0.8 ** np.arange(100)
    entropy = -10_000 * float(chances @ np.log2(chances))
    assert entropy * 0.99 < bits[0] < 1.03 * entropy < bits[1]


def test_places_that_are_not_there_cost_nothing() -> None:
    network = source((60, 60, 16), density=0.5)
    forced = Conditioning(
        network, 5, {"fc0.weight": np.zeros((0, 2), np.int64)}, mask_reader(InMemoryTensors({}))
    ).known(Span("fc0.weight", 0, 57_600), "unforced")
    assert forced is not None
    mask = (forced == 0) & (np.random.default_rng(1).random(57_600) < 0.5)
    content = InMemoryTensors({"mask.fc0.weight": np.packbits(mask, bitorder="little")})
    free = int((forced == 0).sum())
    assert 0.99 * free < sum(coded_bits(network, 5, content)) < 1.01 * free


def rounded_target(scale: float = 0.1) -> Target:
    return mlp_target([np.random.default_rng(0).normal(0, scale, (50, 60)).astype(np.float32)])


def test_plain_rounding_takes_the_entropy_of_the_multiples() -> None:
    target = rounded_target()
    found = rounding_bits(target, 0.01)
    assert found is not None and found["stored"] == 0
    _, counts = np.unique(np.rint(target.array("fc1.weight") / 0.02), return_counts=True)
    entropy = -float(counts @ np.log2(counts / counts.sum()))
    assert entropy < found["weights"] < 1.05 * entropy
    finer = rounding_bits(target, 0.005)
    assert finer is not None and finer["weights"] - found["weights"] == pytest.approx(3000, rel=0.02)


def test_rounding_without_an_error_has_a_grid_of_its_own() -> None:
    step = 2.0**-6
    exact = mlp_target([(np.random.default_rng(0).integers(-8, 9, (50, 60)) * step).astype(np.float32)])
    found, near = rounding_bits(exact, 0.0), rounding_bits(exact, step / 2)
    assert found is not None and found == near
    assert rounding_bits(rounded_target(), math.nan) is None and rounding_bits(rounded_target(), 1e-300) is None
    whole = rounding_bits(rounded_target(), 0.0)
    assert whole is not None and 24 * 3000 < whole["weights"] < 40 * 3000


def test_each_tensor_may_have_an_error_of_its_own() -> None:
    random = np.random.default_rng(0)
    target = mlp_target([random.normal(0, scale, (30, 30)).astype(np.float32) for scale in (0.1, 0.01)])
    same, own = rounding_bits(target, 0.01), rounding_bits(target, {"fc1.weight": 0.01, "fc2.weight": 0.001})
    assert same is not None and own is not None
    assert own["header"] == same["header"] + 64 and own["weights"] > same["weights"] + 1000


GOLDEN = {
    "coded.parameters": "5fdce42a40",
    "coded.segments": "04000000000000001c7e66e200000000",
    "coded.words": "e8c3679637fb399f758646f001000000",
}


def test_the_format_stays_as_it_is(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Files of today are read tomorrow, whatever the version of the coder's library."""
    network = source((3, 4, 5), (2, 3, 5))
    places = np.arange(60)
    content = InMemoryTensors(
        {
            "mask.fc0.weight": np.packbits(places * 7 % 11 < 3, bitorder="little"),
            "mask.fc1.weight": np.packbits(places[:30] % 5 == places[:30] // 5 % 3, bitorder="little"),
            "redraws.fc1.weight": np.array([[1, 2], [4, 1]]),
        }
    )
    path = tmp_path_factory.mktemp("coded") / "file"
    write_coded(path, "note", {}, network, 0, content)
    with ChecksummedFile(path, "note") as file:
        found = {name: read_array(file, name).tobytes().hex() for name in sorted(file.tensors)}
    assert found == GOLDEN
