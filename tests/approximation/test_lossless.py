"""Lossless tickets: the promise is of each tensor's own last float32 bit, and the verifier holds a ticket to it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lottery_jax.approximation import ToleranceObjective, approximate, plan_job, run_in_memory
from lottery_jax.approximation.tolerance import LOSSLESS, make_lossless
from lottery_jax.constructions.registry import construction_named
from lottery_jax.constructions.scalar import Scalar
from lottery_jax.errors import InputError, TicketError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.target import Target
from lottery_jax.networks.transforms import Lock
from lottery_jax.tickets.header import Header
from lottery_jax.tickets.reconstruct import effective_weights
from lottery_jax.tickets.ticket import load_ticket
from lottery_jax.tickets.verify import verify
from tests.cli.calling import answer, refusal
from tests.tickets.forging import forge, read


def of_sizes(*, zeros: bool = False) -> Target:
    """Two layers whose weights differ a thousandfold in size; of odd largest weights, and with biases of zeros."""
    random = np.random.default_rng(5)
    weights = [
        (size * random.normal(size=shape)).astype(np.float32) for size, shape in ((1.7, (6, 9)), (1.1e-3, (4, 6)))
    ]
    return mlp_target(weights, [np.zeros(6, np.float32), np.full(4, 0.3, np.float32)] if zeros else None)


@pytest.mark.parametrize("name", ["scalar", pytest.param("scalar-shared", marks=pytest.mark.slow)])
def test_every_weight_is_within_half_the_last_bit_of_its_tensors_largest(name: str, tmp_path: Path) -> None:
    target = of_sizes(zeros=True)
    path = tmp_path / "ticket.safetensors"
    approximate(target, seed=3, construction=name, lossless=True, out=path)
    ticket = load_ticket(path)
    certificate = verify(ticket, target=target)
    assert certificate.holds and certificate.relative_tolerance == LOSSLESS == ticket.header.tolerance
    for tensor, made in effective_weights(ticket).items():
        wanted = target.array(tensor).astype(np.float64)
        last_bit = np.spacing(np.abs(target.array(tensor)).max()) if wanted.any() else 0.0
        assert np.abs(made - wanted).max() <= last_bit / 2
    largest = max(np.abs(target.array(tensor)).max() for tensor in target.network.approximated)
    assert certificate.tolerance == pytest.approx(LOSSLESS * largest)


def test_one_weight_beyond_its_own_tensors_bit_breaks_it() -> None:
    """An error that would pass beside the large tensor's weights does not pass in the small one."""
    target = of_sizes()
    construction, objective = make_lossless(target, Scalar(), ToleranceObjective())
    ticket = run_in_memory(plan_job(target, construction, objective, seed=0))
    arrays = {name: target.array(name) for name in target.network.tensors}
    small = arrays["fc2.weight"].copy()
    small[0, 0] += 1e-8  # a quarter of what the first tensor's weights may be off by
    moved = dataclasses.replace(target, tensors={**arrays, "fc2.weight": small})
    assert verify(ticket, target=target).holds
    found = verify(ticket, target=moved)
    assert not found.holds and found.within_tolerance == target.weights - 1 and found.tolerance > 1e-8
    assert "of their tensor's largest" in found.reasons[0]


def test_what_is_asked_of_it_otherwise_is_absolute() -> None:
    target = of_sizes()
    construction, objective = make_lossless(target, Scalar(), ToleranceObjective())
    ticket = run_in_memory(plan_job(target, construction, objective, seed=0))
    assert verify(ticket, target=target, tolerance=1e-6).relative_tolerance is None
    assert not verify(ticket, target=target, tolerance=1e-12).holds


@pytest.mark.parametrize("name", ["pensia", "natale", "malach", "orseau", "kumar", "binary", "otsuka"])
def test_constructions_of_products_refuse(name: str) -> None:
    with pytest.raises(InputError, match=rf"{name} cannot be lossless.*scalar"):
        approximate(of_sizes(), seed=0, construction=name, lossless=True)
    with pytest.raises(InputError, match=r"rounds its candidates|cannot"):
        ToleranceObjective(relative=True).check(construction_named(name)())


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(InputError, match="kept cannot be combined with lossless"):
        approximate(of_sizes(), seed=0, construction="scalar", lossless=True, kept=10)
    with pytest.raises(InputError, match=r"objective must be least-error.*got smallest"):
        approximate(of_sizes(), seed=0, construction="scalar", lossless=True, objective="smallest")
    with pytest.raises(InputError, match="range must be 'quarter' for a lossless ticket, got 'model'"):
        approximate(of_sizes(), seed=0, construction=Scalar(range="model"), lossless=True)
    exact = dataclasses.replace(
        of_sizes(), tensors={name: of_sizes().array(name).astype(np.float64) for name in of_sizes().network.tensors}
    )
    with pytest.raises(InputError, match=r"must be float32 for a lossless ticket, got float64"):
        approximate(exact, seed=0, construction="scalar", lossless=True)


def test_locked_weights_are_refused() -> None:
    """What they leave of a weight is rounded, and the search allows for no rounding here."""
    with pytest.raises(InputError, match="lossless cannot be combined with locked weights"):
        approximate(of_sizes(), seed=0, construction="scalar", lossless=True, transforms=[Lock(0.1)])


@pytest.mark.parametrize("relative", [1, "true", None, 0])
def test_a_forged_word_for_relative_is_refused(relative: object, tmp_path: Path) -> None:
    path = tmp_path / "ticket.safetensors"
    approximate(of_sizes(), seed=0, construction="scalar", candidates=8, out=path)
    header, tensors = read(path)
    assert "relative" not in header, "files from before there was such a promise are still the same"
    with pytest.raises(TicketError, match="relative"):
        load_ticket(forge(path, {**header, "relative": relative}, tensors))
    with pytest.raises(TicketError, match="relative"):
        load_ticket(forge(path, {**header, "relative": True, "tolerance": 0.0}, tensors))
    # Said of a ticket of large weights it is another promise, and the verifier holds it to that one.
    told = verify(forge(path, {**header, "relative": True, "tolerance": 1e-9}, tensors), target=of_sizes())
    assert told.outcome == "broken"
    assert Header.from_json(header).relative is False


def test_the_command_line_refuses_before_anything_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "approximate", "--lossless", "--out", tmp_path / "ticket.safetensors"
    assert "pensia cannot be lossless" in refusal(capsys, 2, *words)
    words += ("--construction", "scalar")
    assert "kept cannot be combined with lossless" in refusal(capsys, 2, *words, "--kept", 9)
    assert "lock none" in refusal(capsys, 2, *words, "--locked", 0.1)


@pytest.mark.slow
def test_the_digits_target_is_met_in_every_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(
        capsys, *("approximate", "--lossless", "--construction", "scalar"), "--out", tmp_path / "ticket.safetensors"
    )
    assert found["outcome"] == "holds" and found["relative_tolerance"] == LOSSLESS
    assert found["within_tolerance"] == found["target_weights"] and found["max_deviation"] < 1e-5
