"""The ticket file: round trip, size, and refusal of everything that was not written here."""

import json
import struct
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from lottery_jax.approximation import approximate
from lottery_jax.errors import InputError, TicketError
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.tensor_dict import NamedTensor, TensorDict
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.sources.candidates_per_weight import CandidatesPerWeight
from lottery_jax.networks.sources.random_layer import RandomLayer
from lottery_jax.rng.sampler import Sampler
from lottery_jax.tickets.ticket import Ticket, load_ticket, make_ticket
from tests.tickets.forging import small_target

SOURCE = Network(Chain((("fc1", RandomLayer(Dense(5, 3), Sampler.uniform(-1, 1))),)), Spec((5,)))
UNIFORM = Sampler.uniform(-1, 1)


@pytest.fixture(scope="module")
def ticket() -> Ticket:
    return approximate(small_target(biases=True), seed=2**50 + 1, candidates=8, tolerance=0.1)


@pytest.fixture(scope="module")
def content(ticket: Ticket) -> bytes:
    return ticket.to_bytes()


def test_round_trip(ticket: Ticket, tmp_path: Path) -> None:
    path = tmp_path / "ticket.safetensors"
    assert ticket.save(path) == path.stat().st_size
    again = load_ticket(path)
    assert again.header == ticket.header and again.header.settings == ticket.header.settings
    source = ticket.source()
    assert {name: value.tobytes() for name, value in again.source().items()} == {
        n: v.tobytes() for n, v in source.items()
    }
    for name, mask in ticket.masks.items():
        np.testing.assert_array_equal(again.mask(name), mask)
        np.testing.assert_array_equal(again.redraws(name), ticket.redraws(name))
    assert again.target is not None and ticket.target is not None
    assert again.target.digest == ticket.target.digest == small_target(biases=True).digest
    assert again.to_bytes() == path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(3, 9)), jnp.float32)
    np.testing.assert_allclose(again.forward()(x), again.module()(x), atol=1e-5)  # type: ignore[operator]


def test_masks_cost_one_bit(ticket: Ticket, content: bytes) -> None:
    bits = sum(drawn.size for drawn in ticket.network.random_tensors.values())
    weights = 4 * small_target(biases=True).weights
    assert len(content) < bits / 8 + weights + 4000


def load(content: bytes, folder: Path) -> Ticket:
    path = folder / "changed.safetensors"
    path.write_bytes(content)
    return load_ticket(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_flipped_bit_is_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory, data) -> None:
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    changed = bytearray(content)
    changed[place // 8] ^= 1 << place % 8
    with pytest.raises(TicketError):
        load(bytes(changed), tmp_path_factory.mktemp("flip"))


def test_any_truncation_is_refused(content: bytes, tmp_path: Path) -> None:
    for length in [*range(0, len(content), max(1, len(content) // 60)), len(content) - 1]:
        with pytest.raises(TicketError):
            load(content[:length], tmp_path)
    with pytest.raises(TicketError):
        load(content + b"\0", tmp_path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    for name, write in {
        "text": lambda p: p.write_text("not a ticket"),
        "empty": lambda p: p.write_bytes(b""),
        "other safetensors": lambda p: save_file({"fc1.weight": np.zeros((2, 3), np.float32)}, p),
        "other metadata": lambda p: save_file(
            {"x": np.zeros(1)}, p, {"ticket": "0 " + json.dumps({"format": "other"})}
        ),
        "huge header": lambda p: p.write_bytes(struct.pack("<Q", 2**62) + b"{}"),
        "metadata is a list": lambda p: p.write_bytes(struct.pack("<Q", 2) + b"[]"),
    }.items():
        path = tmp_path / name
        write(path)
        with pytest.raises(TicketError, match="ticket"):
            load_ticket(path)


def test_another_version_is_named(content: bytes, tmp_path: Path) -> None:
    for version, words in ((2, "was written by lottery_jax 0.2 "), (9, "version 9")):
        changed = content.replace(b'\\"version\\": 3', b'\\"version\\": %d' % version)
        assert changed != content
        with pytest.raises(TicketError, match=words):
            load(changed, tmp_path)


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere"):
        load_ticket(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ({}, "must have the names"),
        ({"fc1.weight": np.zeros((5, 3), bool)}, "shape"),
        ({"fc1.weight": np.zeros((3, 5), np.uint8)}, "boolean"),
    ],
)
def test_masks_must_fit(masks: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_ticket(SOURCE, seed=0, masks=masks, method="test")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        ({"method": ""}, "method"),
        ({"tolerance": 0.1}, "target and tolerance must be given together"),
        ({"kept_budget": 3}, "budget"),
        ({"stored": {"fc1.weight": np.zeros((3, 5), np.float32)}}, "no part of its network"),
        ({"redraws": {"fc1.weight": np.array([[15, 1]])}}, "blocks 0 to 14"),
        ({"redraws": {"fc1.weight": np.array([[3, 256]])}}, "attempts 1 to 255"),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_made(changes: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_ticket(SOURCE, **{"seed": 0, "masks": {"fc1.weight": np.ones((3, 5), bool)}, "method": "test", **changes})


def test_an_unwritable_folder_leaves_nothing(ticket: Ticket, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="writable"):
        ticket.save(tmp_path / "missing" / "ticket")
    assert not list(tmp_path.iterdir())


def test_a_ticket_is_short_when_it_is_shown(ticket: Ticket) -> None:
    assert "pensia" in repr(ticket) and len(repr(ticket)) < 200


@pytest.mark.parametrize(
    ("network", "end"),
    [
        (Network(RandomLayer(Dense(3, 5), UNIFORM), Spec((3,))), "no guarantee, for inputs of any sign>"),
        (
            Network(RandomLayer(Dense(3, 5), UNIFORM), Spec((3,), True)),
            "no guarantee, for inputs that are never negative>",
        ),
        (
            Network(TensorDict((("w", CandidatesPerWeight(NamedTensor((5, 3)), 1, (UNIFORM,))),))),
            "15 random weights, no guarantee>",
        ),
    ],
    ids=["any sign", "never negative", "no graph"],
)
def test_a_ticket_says_which_inputs_it_is_for(network: Network, end: str) -> None:
    masks = {name: np.ones(drawn.shape, bool) for name, drawn in network.random_tensors.items()}
    shown = repr(make_ticket(network, seed=0, masks=masks, method="m" * 60))
    assert shown.endswith(end) and len(shown) < 200
