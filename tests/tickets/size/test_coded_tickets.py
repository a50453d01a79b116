"""Tickets whose masks are coded: the same tickets in smaller files, and refused where anything in them is wrong."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lottery_jax.approximation import Budget, ToleranceObjective, plan_job, run_in_memory
from lottery_jax.approximation.run import run_to_file
from lottery_jax.cli.main import main
from lottery_jax.constructions import Pensia, Scalar, ScalarShared
from lottery_jax.errors import TicketError
from lottery_jax.io.tensor_file import read_array
from lottery_jax.networks.transforms import Lock, PrePrune, ShareLayers
from lottery_jax.tickets.export import export_masks, export_weights
from lottery_jax.tickets.ticket import Ticket, load_ticket, make_ticket, stores_coded
from lottery_jax.tickets.verify import verify
from lottery_jax.tickets.work_limit import WorkLimitError
from tests.cli.calling import answer, lottery_jax, matrices, refusal
from tests.tickets.forging import TARGET, TOLERANCE, Header, Tensors, forge, read, small_target

ANY_SIGN = small_target(nonnegative=False, biases=True)
JOBS: dict[str, Callable[[], Ticket]] = {
    "pensia": lambda: run_in_memory(plan_job(TARGET, Pensia(12), ToleranceObjective(0.1), seed=0)),
    "any sign": lambda: run_in_memory(plan_job(ANY_SIGN, Pensia(12), ToleranceObjective(0.1, "smallest"), seed=1)),
    "redrawn": lambda: run_in_memory(plan_job(TARGET, Scalar(3), ToleranceObjective(0.1, max_redraws=200), seed=0)),
    "shared": lambda: run_in_memory(
        plan_job(TARGET, ScalarShared(10), ToleranceObjective(0.2, max_redraws=50), seed=0)
    ),
    "budget": lambda: run_in_memory(plan_job(TARGET, Scalar(8), Budget(60, k_max=3), seed=0)),
    "sparse": lambda: run_in_memory(
        plan_job(TARGET, Scalar(20), ToleranceObjective(0.1), seed=0, transforms=(PrePrune(0.6), Lock(0.1)))
    ),
    "folded": lambda: run_in_memory(
        plan_job(TARGET, Pensia(16), ToleranceObjective(0.1), seed=0, transforms=(ShareLayers(),))
    ),
}


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coded ticket with blocks that were redrawn."""
    path = tmp_path_factory.mktemp("coded") / "ticket"
    JOBS["redrawn"]().save(path, coded=True)
    assert verify(path, target=TARGET).holds
    return path


@pytest.mark.parametrize(
    "name", [name if name in ("redrawn", "sparse") else pytest.param(name, marks=pytest.mark.slow) for name in JOBS]
)
def test_they_are_the_same_tickets(name: str, tmp_path: Path) -> None:
    ticket = JOBS[name]()
    plain, path = tmp_path / "plain", tmp_path / "coded"
    ticket.save(plain)
    assert ticket.save(path, coded=True) == path.stat().st_size
    again = load_ticket(path)
    assert set(again.content.tensors) == set(ticket.content.tensors)
    for tensor in ticket.content.tensors:
        np.testing.assert_array_equal(read_array(again.content, tensor), read_array(ticket.content, tensor))
    again.save(tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == plain.read_bytes()
    load_ticket(plain).save(tmp_path / "again", coded=True)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    target = ANY_SIGN if name == "any sign" else TARGET
    assert verify(path, target=target) == verify(plain, target=target)
    for export in (export_weights, export_masks):
        files = [tmp_path / "from plain", tmp_path / "from coded"]
        assert [export(load_ticket(one), out) for one, out in zip((plain, path), files, strict=True)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_any_masks_are_written_even_those_that_no_seed_allows(tmp_path: Path) -> None:
    """Weights behind edges that are pruned, kept all the same: a learned mask may have them."""
    network = Pensia(12).source(TARGET)
    random = np.random.default_rng(0)
    masks = {name: random.random(drawn.shape) < 0.3 for name, drawn in network.random_tensors.items()}
    ticket = make_ticket(network, seed=0, masks=masks, method="random")
    ticket.save(tmp_path / "ticket", coded=True)
    for name, mask in load_ticket(tmp_path / "ticket").masks.items():
        np.testing.assert_array_equal(mask, masks[name])


def test_a_file_that_is_cut_or_changed_is_refused_in_a_sentence(
    coded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = coded.read_bytes()
    path = tmp_path / "wrong"
    for wrong in (content[:-3], content[: len(content) // 2], content[:9], content[:-1] + b"\xff"):
        path.write_bytes(wrong)
        sentence = refusal(capsys, 2, "verify", path)
        assert "truncated or damaged" in sentence or "changed after it was written" in sentence
        out = tmp_path / "out"
        refusal(capsys, 2, "export", path, "--plain", "--out", out)
        assert [file.name for file in tmp_path.iterdir()] == ["wrong"], "nothing is half-written"


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = JOBS["redrawn"]()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lottery_jax.io.checksummed_file.os.fsync", full)
    with pytest.raises(Exception, match="free some space"):
        ticket.save(tmp_path / "ticket", coded=True)
    assert list(tmp_path.iterdir()) == []


def _words(tensors: Tensors) -> np.ndarray:
    return tensors["coded.words"].view("<u4")


def _parameters(*bits: str) -> np.ndarray:
    text = "".join(bits)
    return np.packbits(np.frombuffer(text.encode(), np.uint8) - ord("0"))


FORGERIES: dict[str, Callable[[Header, Tensors], Any]] = {
    "words too few": lambda h, t: t.update({"coded.words": t["coded.words"][:-4]}),
    "words too many": lambda h, t: t.update({"coded.words": np.tile(t["coded.words"], 2)}),
    "no words": lambda h, t: (
        t.update({"coded.words": t["coded.words"][:0]}),
        t["coded.segments"].__setitem__((0, 0), 0),
    ),
    "a word that is 0 last": lambda h, t: _words(t).__setitem__(-1, 0),
    "another word": lambda h, t: _words(t).__setitem__(0, _words(t)[0] ^ 1),
    "a word left": lambda h, t: (
        t.update({"coded.words": np.concatenate([np.full(4, 7, np.uint8), t["coded.words"]])}),
        t["coded.segments"].__setitem__((0, 0), len(_words(t))),
    ),
    "another checksum": lambda h, t: t["coded.segments"].__setitem__((0, 1), 1),
    "a negative length": lambda h, t: t["coded.segments"].__setitem__((0, 0), -1),
    "a length beyond": lambda h, t: t["coded.segments"].__setitem__((0, 0), 2**62),
    "segments too many": lambda h, t: t.update({"coded.segments": np.tile(t["coded.segments"], (2, 1))}),
    "segments of another shape": lambda h, t: t.update({"coded.segments": t["coded.segments"][0]}),
    "segments in floats": lambda h, t: t.update({"coded.segments": t["coded.segments"].astype(np.float64)}),
    "no parameters": lambda h, t: t.update({"coded.parameters": t["coded.parameters"][:0]}),
    "parameters that are cut": lambda h, t: t.update({"coded.parameters": t["coded.parameters"][:-1]}),
    "parameters with more behind": lambda h, t: t.update(
        {"coded.parameters": np.concatenate([t["coded.parameters"], np.ones(1, np.uint8)])}
    ),
    "parameters without an end": lambda h, t: t.update({"coded.parameters": np.zeros(100_000, np.uint8)}),
    "unknown rows": lambda h, t: t.update({"coded.parameters": _parameters("00100", "1" * 59)}),
    "rows without classes": lambda h, t: t.update({"coded.parameters": _parameters("1", "1", "010", "1" * 91)}),
    "other counts": lambda h, t: t["coded.parameters"].__setitem__(1, t["coded.parameters"][1] ^ 4),
    "parameters alone": lambda h, t: [t.pop(name) for name in ("coded.words", "coded.segments")],
    "a plain mask beside them": lambda h, t: t.update({"mask.fc1.weight": np.zeros(21, np.uint8)}),
    "redraws beside them": lambda h, t: t.update({"redraws.fc1.weight": np.array([[3, 1]])}),
    "another tensor": lambda h, t: t.update({"coded.more": np.zeros(3, np.uint8)}),
    "another source": lambda h, t: h.update(seed=1),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_codes_are_refused(name: str, coded: Path, tmp_path: Path) -> None:
    header, tensors = read(coded)
    FORGERIES[name](header, tensors)
    path = forge(tmp_path / "forged", header, tensors)
    with pytest.raises(TicketError) as caught:
        verify(path, target=TARGET)
    assert "\n" not in str(caught.value)


def test_no_change_of_a_byte_gives_another_ticket(coded: Path, tmp_path: Path) -> None:
    """Whatever is changed in the coded tensors under a right digest: refused, or the masks as they were."""
    header, tensors = read(coded)
    masks, random = load_ticket(coded).masks, np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        own = {name: value.copy() for name, value in tensors.items()}
        victim = own[random.choice(["coded.parameters", "coded.words"])]
        victim[random.integers(len(victim))] ^= 1 << random.integers(8)
        path = forge(tmp_path / "forged", header, own)
        try:
            found = load_ticket(path).masks
        except TicketError:
            refused += 1
        else:
            assert all((found[name] == mask).all() for name, mask in masks.items())
    assert refused > 50


def test_a_claim_of_very_many_weights_needs_a_long_file(coded: Path, tmp_path: Path) -> None:
    header, tensors = read(coded)
    nodes = dict(header["network"]["root"]["nodes"])
    nodes["fc1"]["layer"].update(inputs=1 << 20, outputs=1 << 20)
    nodes["fc2"]["layer"].update(inputs=1 << 20)
    header["network"]["input_spec"][0] = [1 << 20]
    path = forge(tmp_path / "forged", header, tensors)
    with pytest.raises(WorkLimitError, match=r"e14 operations .* give --limit \d+ "):
        load_ticket(path)
    with pytest.raises(TicketError, match=r"blocks|rows"):
        load_ticket(path, limit=math.inf)
    # The same with counts that are right: sizes that are equally likely, and nothing drawn again.
    tensors["coded.parameters"] = _parameters("1" * 20, "0000")
    with pytest.raises(TicketError, match="more than the 1 segments"):
        load_ticket(forge(path, header, tensors), limit=math.inf)


def test_jobs_write_them_and_go_from_one_form_to_the_other(tmp_path: Path) -> None:
    job = plan_job(TARGET, Scalar(9), ToleranceObjective(TOLERANCE), seed=0)
    sizes = []
    for coded_now in (True, False, True):
        done = run_to_file(job, tmp_path / "ticket", coded=coded_now)
        assert stores_coded(tmp_path / "ticket") == coded_now and done.path == tmp_path / "ticket"
        sizes.append((tmp_path / "ticket").read_bytes())
    assert sizes[0] == sizes[2] and verify(tmp_path / "ticket", target=TARGET).holds
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ticket"]


def test_the_command_line_has_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    matrices(tmp_path / "target.safetensors", **{"0.weight": (30, 64), "2.weight": (10, 30)})
    out, words = tmp_path / "ticket", ("--candidates", 8, "--tolerance", 0.4)
    found = answer(capsys, "approximate", "--target", tmp_path / "target.safetensors", *words, "--coded", "--out", out)
    assert found["holds"] and stores_coded(out) and found["ticket_bytes"] == out.stat().st_size
    assert found["bits_per_target_weight"] == sum(found["description_bits_by_part"].values()) / 2220
    assert 0 < found["rounding_bits_per_target_weight"] < found["bits_per_target_weight"]
    assert lottery_jax("export", out, "--plain", "--out", tmp_path / "plain") == 0
    assert not stores_coded(tmp_path / "plain") and "one bit for each weight" in capsys.readouterr().out
    assert lottery_jax("export", tmp_path / "plain", "--coded", "--out", tmp_path / "again") == 0
    assert (tmp_path / "again").read_bytes() == out.read_bytes()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(out)])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert f"{found['bits_per_target_weight']:.3f} per weight" in text
    assert "Rounding the target to a grid with the same largest residual takes" in text
    sentence = refusal(capsys, 2, "export", out, "--plain", "--masks", "--out", tmp_path / "x")
    assert "one of them" in sentence
