"""One forged file: read, verify, print and encode it within limits of time and memory, and judge a "holds"."""

import contextlib
import dataclasses
import io
import json
import resource
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from lottery_jax.cli.verify import certificate_row, print_certificate
from lottery_jax.errors import InputError, TicketError
from lottery_jax.networks.target import Target
from lottery_jax.tickets.certificate import Certificate
from lottery_jax.tickets.ticket import Ticket, load_ticket
from lottery_jax.tickets.verify import verify
from tests.fuzz.attacks import cancelling, costly, rescaled
from tests.fuzz.judge import judge, residual_ratio
from tests.fuzz.mutations import mutated
from tests.fuzz.originals import target_of
from tests.tickets.forging import forge, read, resourced

LIMITS = {"seconds": 10.0, "gib": 2.0}
"""Most that a file may take to be verified."""

_RESIDUAL = 1.01  # tolerances; two sums of huge terms in float64 differ a little
_ENCODED = 4  # one of so many readable tickets is also written with coded masks and read again


@dataclasses.dataclass(frozen=True)
class Trial:
    """What became of one forged file; `change` is how it was made, `ratio` that of a judged "holds"."""

    JUDGING: ClassVar[str] = "judging"
    """File with the number of the trial that is being judged: running a network may take longer than to verify it."""
    BAD: ClassVar[tuple[str, ...]] = ("wrong", "vacuous", "traceback", "slow", "memory", "died")

    number: int
    label: str
    change: str
    outcome: str
    reason: str
    ratio: float
    seconds: float
    gib: float

    @property
    def bad(self) -> bool:
        return self.outcome in self.BAD


class TooSlow(BaseException):
    """The time limit; not an `Exception`, so that no handler under test hides it."""


def run_trials(
    folder: Path,
    labels: Sequence[str],
    seed: int,
    first: int,
    count: int,
    *,
    keep: Path | None = None,
    debug: bool = False,
) -> Iterator[Trial]:
    """Trials first ... first + count - 1, from the originals in a folder; each depends on its number alone."""
    originals: dict[str, tuple[Any, Any, Ticket, Target]] = {}
    for number in range(first, first + count):
        label = labels[number % len(labels)]
        if label not in originals:
            path = folder / str(labels.index(label))
            ticket = load_ticket(path)
            originals[label] = *read(path), ticket, target_of(label, ticket)
        header, tensors, ticket, target = originals[label]
        random = np.random.default_rng((seed, number))
        change, path = _forged(folder / f"forged{first}", header, tensors, ticket, target, random)
        trial = run_trial(path, number, label, change, target if random.random() < 0.8 else None, debug=debug)
        if keep is not None and trial.bad:
            keep.mkdir(exist_ok=True)
            shutil.copyfile(path, keep / f"{number}-{trial.outcome}")
        yield trial


def _forged(
    path: Path, header: Any, tensors: Any, ticket: Ticket, target: Target, random: np.random.Generator
) -> tuple[str, Path]:
    """Write a forged file, and say how it was made."""
    kind = random.random()
    if kind < 0.08:
        attack = cancelling(ticket, target, random)
        if attack is not None:
            attack.save(path)
            return "cancelling", path
    if kind < 0.14:
        header, change = json.loads(json.dumps(header)), rescaled if random.random() < 0.9 else costly
        if header["network"]["input_spec"] is not None:
            change(header, random)
            with contextlib.suppress(TicketError, InputError):
                header = resourced(header)
            return change.__name__, forge(path, header, tensors)
    header, tensors = mutated(header, tensors, random)
    try:
        return "mutated", forge(path, header, tensors)
    except (ValueError, OverflowError):  # no file holds this: a lone surrogate is not UTF-8
        return "unwritable", forge(path, {}, {})


def run_trial(path: Path, number: int, label: str, change: str, target: Target | None, *, debug: bool = False) -> Trial:
    """Verify one file within the limits, and judge it if it holds."""
    start, ratio, certificate, ticket = time.perf_counter(), 0.0, None, None
    with _limits() as memory:
        try:
            outcome, reason = "refused", ""
            ticket = load_ticket(path)
            certificate = verify(ticket, target=target)
            outcome, reason = certificate.outcome, "; ".join(certificate.reasons)
            _print(certificate, path)
            if number % _ENCODED == 0:
                _encode(ticket, path)
        except (TicketError, InputError) as error:
            reason = str(error)
        except MemoryError:
            outcome, reason = "memory", traceback.format_exc(limit=-3)
        except TooSlow:
            outcome, reason = "slow", traceback.format_exc(limit=-6)
        except Exception:
            if debug:
                raise
            outcome, reason = "traceback", traceback.format_exc(limit=-4)
    seconds = time.perf_counter() - start
    if seconds > LIMITS["seconds"] and outcome != "memory":  # the alarm waits for long calls to end
        outcome = "slow"
    if outcome in Trial.BAD or certificate is None or ticket is None or not certificate.holds:
        return Trial(number, label, change, outcome, reason[:2000], ratio, seconds, memory[0])
    reference = target if target is not None else ticket.target
    assert reference is not None
    path.with_name(Trial.JUDGING).write_text(str(number))
    found = judge(ticket, reference, certificate, number, search=change != "costly")
    if found.wrong:
        outcome = "vacuous" if found.vacuous and found.ratio <= 1 else "wrong"
        reason = f"|g - f| {found.deviation:.4g}, {found.ratio:.4g} times what is allowed"
    elif not (residual := residual_ratio(path, reference, certificate)) <= _RESIDUAL:
        outcome, reason = "wrong", f"an independent reader finds a residual of {residual:.4g} tolerances"
    return Trial(number, label, change, outcome, reason[:2000], found.ratio, seconds, memory[0])


def _print(certificate: Certificate, path: Path) -> None:
    """The certificate in words and as strict JSON; both must be lines of printable characters."""
    row = certificate_row(certificate, path.stat().st_size) | {"ticket": "ticket"}
    for as_json in (False, True):
        out = io.StringIO()
        print_certificate(row, out, as_json=as_json)
        text = out.getvalue()
        if not text.replace("\n", "").isprintable():
            raise AssertionError(f"control characters of the file are printed: {text!r}")
        if as_json:
            json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")


def _encode(ticket: Ticket, path: Path) -> None:
    """The coded form of the ticket, read again."""
    coded = path.with_name(f"{path.name}.coded")
    ticket.save(coded, coded=True)
    again = load_ticket(coded)
    for name in ticket.network.random_tensors:
        if not np.array_equal(again.mask(name), ticket.mask(name)):
            raise AssertionError(f"the coded mask of {name!r} differs")


@contextlib.contextmanager
def _limits() -> Iterator[list[float]]:
    """End what takes longer, or more memory, than `LIMITS`; yields a list whose first number becomes the GiB used."""
    before, limit = _kib("VmRSS"), resource.getrlimit(resource.RLIMIT_DATA)
    used, ended = [0.0], threading.Event()
    bytes_now = _kib("VmData") * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (bytes_now + int(LIMITS["gib"] * 2**30), limit[1]))

    def slow(*_: Any) -> NoReturn:
        raise TooSlow

    def watch() -> None:
        while not ended.wait(0.05):
            used[0] = max(used[0], (_kib("VmRSS") - before) / 2**20)

    handler = signal.signal(signal.SIGALRM, slow)
    signal.setitimer(signal.ITIMER_REAL, LIMITS["seconds"])
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield used
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        ended.set()
        watcher.join()
        resource.setrlimit(resource.RLIMIT_DATA, limit)


def _kib(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0
