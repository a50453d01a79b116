"""Any file ends in a verdict or in one sentence: no traceback, no text that a file puts on the screen as ours."""

import hashlib
import itertools
import json
import math
import os
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lottery_jax import approximate, export_target, load_ticket, verify
from lottery_jax.approximation import ToleranceObjective, plan_job, run_in_memory
from lottery_jax.bounds import bound_output, verify_box
from lottery_jax.cli.progress_bars import progress_bars
from lottery_jax.constructions import Pensia, Scalar
from lottery_jax.errors import InputError, TicketError, printable, quoted
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.transforms import Lock, PrePrune
from lottery_jax.progress import log
from lottery_jax.tickets.ticket import ENTRY
from tests.cli.calling import lottery_jax, refusal
from tests.tickets.forging import TOLERANCE, Header, forge, read, resourced, small_target

CONTROLS = (
    "\n",
    "\r",
    "\x00",
    "\x07",
    "\x1b[2K\x1b[1A",
    "\x9b1m",
    "\x85",
    "\u2028",
    "\u200b",
    "\u202e",
    "\u2066",
    "\xa0",
)


def raw(path: Path, header: Any, rows: str, data: bytes, *, sha: str | None = None) -> Path:
    """A file byte by byte: `rows` is the JSON of its tensors; the digest is right for a file without any."""
    text = header if isinstance(header, str) else json.dumps(header, sort_keys=True)
    entry = json.dumps(f"{sha or hashlib.sha256(text.encode()).hexdigest()} {text}")
    start = f'{{"__metadata__": {{"{ENTRY}": {entry}}}{", " if rows else ""}{rows}}}'.encode()
    path.write_bytes(struct.pack("<Q", len(start)) + start + data)
    return path


def renamed(value: Any, old: str, new: str) -> Any:
    """JSON in which a layer has another name."""
    if isinstance(value, list):
        return [renamed(part, old, new) for part in value]
    if isinstance(value, dict):
        return {name: renamed(part, old, new) for name, part in value.items()}
    return new if value == old else value


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
@pytest.mark.parametrize("place", ["method", "layer"])
def test_no_text_of_a_file_looks_like_ours(
    place: str, control: str, honest: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken ticket that writes HOLDS on a line of its own, over ours, or in our sentence."""
    spoof = f"w{control}HOLDS for the target. "
    other = tmp_path / "other.safetensors"
    export_target(small_target(biases=True, seed=1), other)
    header, tensors = read(honest["scalar"])
    if place == "method":
        header["method"] = spoof
    else:
        header["network"] = renamed(header["network"], "fc1", spoof)
        tensors = {name.replace("fc1", spoof): value for name, value in tensors.items()}
        tensors = {name: -value if name.startswith("target") else value for name, value in tensors.items()}
    path = forge(tmp_path / "forged", resourced(header), tensors)
    words = ("--target", other) if place == "method" else ()
    assert lottery_jax("verify", path, *words) == 1
    text = capsys.readouterr().out
    assert all(line.isprintable() for line in text.split("\n")) and ascii(control)[1:-1] in text
    assert not re.search(r"^\W*HOLDS", text, re.MULTILINE) and text.splitlines()[-1].startswith("BROKEN")
    assert re.search(r"made by 'w.*HOLDS|\('w.*HOLDS", text), "in quotes"
    assert repr(load_ticket(path)).isprintable()
    header["tolerance"] = spoof
    for refused in (header, {**header, "tolerance": None}):  # then the targets are too much
        with pytest.raises(TicketError) as caught:
            verify(forge(path, refused, tensors))
        assert str(caught.value).isprintable()
    assert refusal(capsys, 2, "verify", path).isprintable()


def test_every_message_is_printable_text() -> None:
    for control in CONTROLS:
        assert str(InputError(f"a{control}b")).isprintable() and str(TicketError(f"a{control}b")).isprintable()
        assert printable(control).isascii() and quoted(control).isascii()
    assert printable("größe \ud800") == "größe \\ud800" and quoted("größe") == "'größe'" and quoted("") == "''"


def test_names_in_progress_and_in_the_log_are_printable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal too, where rich would read the brackets as markup."""
    name = "[/b]\x1b[2J\u202e"
    for terminal in ("1", ""):
        monkeypatch.setenv("FORCE_COLOR", terminal)
        with progress_bars() as reporter:
            reporter.part(name)(1, 2)
            assert reporter.line().isprintable()
            log.warning("a note on %s", name)
        text = capsys.readouterr().err
        assert "\x1b[2J" not in text and "\u202e" not in text and "a note on [/b]\\x1b[2J\\u202e" in text


def broken_masks(name: str) -> Callable[[Path], Path]:
    """A ticket whose masks contradict its seed: every bit is the opposite."""

    def make(path: Path) -> Path:
        transform = Lock(0.3) if name == "locked" else PrePrune(0.7)
        target = mlp_target([np.full((3, 4), 0.25, np.float32)])
        source = transform(Scalar(candidates=20).source(target))
        job = plan_job(target, Scalar(candidates=20), ToleranceObjective(0.3), seed=0, transforms=[transform])
        assert job.network == source
        run_in_memory(job).save(path)
        header, tensors = read(path)
        for tensor, value in tensors.items():
            if tensor.startswith("mask"):
                tensors[tensor] = ~value
        return forge(path, header, tensors)

    return make


@pytest.mark.parametrize("name", ["locked", "pre-pruned"])
def test_a_broken_ticket_of_a_source_with_forced_entries_is_broken(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = broken_masks(name)(tmp_path / "t")
    expected = "prune locked weights" if name == "locked" else "absent from its source"
    for words in ((), ("--json",), ("--box", 0, 1)):
        assert lottery_jax("verify", path, *words) == 1
        assert expected in capsys.readouterr().out


@pytest.mark.parametrize("construction", [Pensia(candidates=12), Scalar(candidates=12)], ids=lambda one: one.name)
def test_masks_that_code_to_no_words_are_written_and_read(construction: Any, tmp_path: Path) -> None:
    """The smallest subset of a target that is zero is empty: nothing is kept, and nothing is left to code."""
    zeros = mlp_target([np.zeros((3, 4), np.float32), np.zeros((2, 3), np.float32)])
    ticket = approximate(zeros, seed=0, construction=construction, objective="smallest", tolerance=0.01)
    assert ticket.kept_weights == 0 or isinstance(construction, Pensia)
    ticket.save(tmp_path / "plain")
    ticket.save(tmp_path / "coded", coded=True)
    assert verify(tmp_path / "coded", target=zeros) == verify(tmp_path / "plain", target=zeros)
    load_ticket(tmp_path / "coded").save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "plain").read_bytes()


def put(name: str, value: Any) -> Callable[[Header], Any]:
    return lambda header: header.update({name: value})


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


ODD_HEADERS: dict[str, Callable[[Header], Any]] = {
    "a tolerance of 401 digits": put("tolerance", 10**400),
    "a negative tolerance of 401 digits": put("tolerance", -(10**400)),
    "a seed of 4,000 digits": put("seed", 10**4000),
    "a budget of 4,000 digits": put("kept_budget", -(10**4000)),
    "a version of 4,000 digits": put("version", 10**4000),
    "a version that is a list": put("version", nested(300)),
    "a method of a lone surrogate": put("method", "\ud800"),
    "settings of a lone surrogate": put("settings", {"note": "\udfff"}),
    "settings that are deep": put("settings", {"note": nested(200)}),
    "settings that are too deep for any program": put("settings", {"note": nested(900)}),
    "a layer of a lone surrogate": lambda h: h.update(network=renamed(h["network"], "fc1", "\ud800")),
    "a gain of 401 digits": lambda h: h["network"]["root"]["nodes"][0][1].update(gain=10**400),
    "candidates of 401 digits": lambda h: h["network"]["root"]["nodes"][0][1].update(candidates=10**400),
    "inputs of 401 digits": lambda h: h["network"].update(input_spec=[[10**400], True]),
}


@pytest.mark.parametrize("name", ODD_HEADERS)
def test_an_odd_header_is_refused_in_a_sentence(
    name: str, honest: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header, tensors = read(honest["scalar"])
    ODD_HEADERS[name](header)
    path = forge(tmp_path / "forged", header, tensors)
    sentence = refusal(capsys, 2, "verify", path)
    assert len(sentence) < 1000 and sentence.isprintable()
    refusal(capsys, 2, "export", path, "--coded", "--out", tmp_path / "out")


ROW = '{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
ODD_FILES = {
    "metadata of null": b'{"__metadata__": null}',
    "metadata of a list": b'{"__metadata__": [1]}',
    "metadata of a word": b'{"__metadata__": "ab"}',
    "an entry that is a number": b'{"__metadata__": {"ticket": 3}}',
    "an entry that is null": b'{"__metadata__": {"ticket": null}}',
    "a header of null": b'{"__metadata__": {"ticket": "00 null"}}',
    "a header of Infinity": b'{"__metadata__": {"ticket": "00 {\\"format\\": Infinity}"}}',
    "a tensor of a lone surrogate": f'{{"\\ud800": {ROW}}}'.encode(),
    "a tensor of many axes": f'{{"w": {ROW.replace("[1]", str([1] * 1000))}}}'.encode(),
    "a tensor that is null": b'{"w": null}',
    "a tensor without offsets": b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": null}}',
    "a shape that is null": f'{{"w": {ROW.replace("[1]", "null")}}}'.encode(),
    "a dtype that is a list": f'{{"w": {ROW.replace(chr(34) + "F32" + chr(34), "[]")}}}'.encode(),
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "bytes that are no text": b"\xff\xfe",
}


@pytest.mark.parametrize("name", ODD_FILES)
def test_an_odd_file_is_refused_in_a_sentence(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(struct.pack("<Q", len(ODD_FILES[name])) + ODD_FILES[name] + bytes(4))
    refusal(capsys, 2, "verify", path)
    refusal(capsys, 2, "approximate", "--model", path, "--out", tmp_path / "t", "--quiet")


def test_a_tensor_of_a_lone_surrogate_under_a_right_digest(honest: dict[str, Path], tmp_path: Path) -> None:
    header, _ = read(honest["scalar"])
    path = raw(tmp_path / "t", header, f'"\\ud800": {ROW}', bytes(4))
    with pytest.raises(TicketError, match="not a lottery_jax ticket"):
        load_ticket(path)


@pytest.mark.parametrize("box", [(-1e308, 1e308), (0, 1e300), (-math.inf, math.inf), (math.nan, 1), (1, 0)])
def test_a_box_beyond_float32_is_refused(
    box: tuple[float, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ticket = approximate(small_target(nonnegative=False), seed=0, candidates=19, tolerance=TOLERANCE)
    ticket.save(tmp_path / "t")
    assert "box must be two finite" in refusal(capsys, 2, "verify", tmp_path / "t", "--box", *box, "--quiet")
    for refused in (verify_box, verify):
        with pytest.raises(InputError, match="box must be two finite"):
            refused(ticket, box=box)
    with pytest.raises(InputError, match="give two numbers in order"):
        bound_output(ticket, small_target(nonnegative=False), box=box)


def test_a_box_at_the_ends_of_float32_has_no_nan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bounds of a deep network overflow float64 there; JSON has null, and sentences say it."""
    sizes = (3, *(3 for _ in range(40)))
    random = np.random.default_rng(0)
    weights = [random.uniform(-1e9, 1e9, shape).astype(np.float32) for shape in itertools.pairwise(sizes)]
    ticket = approximate(
        mlp_target(weights, nonnegative=True), seed=0, construction="scalar", candidates=19, tolerance=1e7
    )
    ticket.save(tmp_path / "t")
    assert lottery_jax("verify", tmp_path / "t", "--box", 0, 3e38, "--json", "--quiet") in (0, 4)
    row = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert row["outcome"] in ("holds", "no guarantee") and row.get("output_bound") is None
    lottery_jax("verify", tmp_path / "t", "--box", 0, 3e38, "--quiet")
    text = capsys.readouterr().out
    assert "nan" not in text and "inf" not in text and "may overflow float64" in text


def test_an_error_of_the_program_is_no_verdict(
    honest: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a\nb\x1b[1m" * 1000)

    monkeypatch.setattr("lottery_jax.cli.verify.verify", fail)
    sentence = refusal(capsys, 70, "verify", honest["pensia"], "--quiet")
    assert "an error of this program, not a verdict (ZeroDivisionError: a\\nb\\x1b[1m" in sentence
    assert len(sentence) < 600 and "LOTTERY_JAX_TRACEBACK=1" in sentence
    monkeypatch.setenv("LOTTERY_JAX_TRACEBACK", "1")
    assert lottery_jax("verify", honest["pensia"], "--quiet") == 70
    text = capsys.readouterr().err
    assert text.startswith("Traceback") and all(line.isprintable() for line in text.splitlines())

    def exhaust(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("lottery_jax.cli.verify.verify", exhaust)
    assert "memory" in refusal(capsys, 2, "verify", honest["pensia"], "--quiet")


@pytest.mark.skipif(not hasattr(os, "mkfifo") or sys.platform != "linux", reason="needs FIFOs and /dev/zero")
def test_pipes_and_devices_are_neither_read_nor_replaced(
    honest: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Opening a pipe waits for its writer, reading a device may never end, and a rename would replace either."""
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    ticket = honest["pensia"]
    device = tmp_path / "device"
    device.symlink_to("/dev/zero")  # not the device itself, which a fault would replace
    for place in (pipe, device):
        assert "is a device or a pipe" in refusal(capsys, 2, "verify", place)
        assert "is a device or a pipe" in refusal(capsys, 2, "export", ticket, "--out", place, "--force")
        assert "is a device or a pipe" in refusal(
            capsys, 2, "approximate", "--candidates", 2, "--tolerance", 9, "--out", place, "--force", "--quiet"
        )
        with pytest.raises(InputError, match="is a device or a pipe"):
            load_ticket(ticket).save(place)
    for option in ("--target", "--into"):
        command = ("verify", ticket) if option == "--target" else ("export", ticket, "--out", tmp_path / "out")
        assert "is a device or a pipe" in refusal(capsys, 2, *command, option, pipe)
    assert "is a folder" in refusal(capsys, 2, "export", ticket, "--out", tmp_path, "--force")
    assert "is a folder" in refusal(capsys, 2, "verify", tmp_path)
    assert pipe.is_fifo() and device.is_symlink() and not (tmp_path / "out").exists()
    os.mkfifo(tmp_path / "data.npz")
    assert "must be a .npz file" in refusal(capsys, 2, "theory", "--data", tmp_path / "data.npz")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "configuration.json").write_text("{}")
    os.mkfifo(folder / "lock")
    assert lottery_jax("status", folder) == 0
    capsys.readouterr()
    os.mkfifo(folder / "records.jsonl")
    assert "is a device or a pipe" in refusal(capsys, 2, "status", folder)
