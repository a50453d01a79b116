"""The ticket file: round trip, size, and refusal of everything that was not written here."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from lottery_jax.constructions import approximate
from lottery_jax.errors import InputError, TicketError
from lottery_jax.networks.architecture import Linear
from lottery_jax.sampler import Sampler
from lottery_jax.ticket import Ticket

LAYER = Linear(5, 3, Sampler.uniform(-1, 1))


@pytest.fixture(scope="module")
def ticket():
    rng = np.random.default_rng(0)
    weights = [rng.uniform(-0.3, 0.3, (6, 4)).astype(np.float32), rng.uniform(-0.3, 0.3, (4, 2)).astype(np.float32)]
    return approximate(weights, seed=2**50 + 1, candidates=8, tolerance=0.02)


@pytest.fixture(scope="module")
def content(ticket):
    return ticket.to_bytes()


def test_round_trip(ticket, tmp_path):
    path = tmp_path / "ticket.safetensors"
    assert ticket.save(path) == path.stat().st_size
    again = Ticket.load(path)
    assert (again.architecture, again.seed, again.method, again.tolerance, again.settings) == (
        ticket.architecture,
        ticket.seed,
        ticket.method,
        ticket.tolerance,
        ticket.settings,
    )
    for name, mask in ticket.masks.items():
        np.testing.assert_array_equal(again.masks[name], mask)
        np.testing.assert_array_equal(again.source[name], ticket.source[name])
    for mine, theirs in zip(ticket.target, again.target, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert again.to_bytes() == path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_masks_cost_one_bit(ticket, content):
    bits = sum(mask.size for mask in ticket.masks.values())
    weights = 4 * sum(weight.size for weight in ticket.target)
    assert len(content) < bits / 8 + weights + 4000


def load(content, tmp_path):
    path = tmp_path / "changed.safetensors"
    path.write_bytes(content)
    return Ticket.load(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_flipped_bit_is_refused(content, tmp_path_factory, data):
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    changed = bytearray(content)
    changed[place // 8] ^= 1 << place % 8
    with pytest.raises(TicketError):
        load(bytes(changed), tmp_path_factory.mktemp("flip"))


def test_any_truncation_is_refused(content, tmp_path):
    for length in [*range(0, len(content), max(1, len(content) // 60)), len(content) - 1]:
        with pytest.raises(TicketError):
            load(content[:length], tmp_path)
    with pytest.raises(TicketError):
        load(content + b"\0", tmp_path)


def test_foreign_files_are_refused(tmp_path):
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
            Ticket.load(path)


def test_another_version_is_named(content, tmp_path):
    changed = content.replace(b'\\"version\\": 1', b'\\"version\\": 9')
    assert changed != content
    with pytest.raises(TicketError, match="version 9"):
        load(changed, tmp_path)


def test_a_missing_file_is_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"nowhere"):
        Ticket.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ({}, "expected"),
        ({"0.kernel": np.zeros((3, 5), bool)}, "expected"),
        ({"0.kernel": np.zeros((5, 3), np.uint8)}, "boolean"),
    ],
)
def test_masks_must_fit(masks, words):
    with pytest.raises(InputError, match=words):
        Ticket((LAYER,), 0, masks, "test")


def test_an_unwritable_folder_leaves_nothing(ticket, tmp_path):
    with pytest.raises(InputError, match="writable"):
        ticket.save(tmp_path / "missing" / "ticket")
    assert not list(tmp_path.iterdir())
