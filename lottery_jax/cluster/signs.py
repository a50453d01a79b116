"""Signs of life: each process of a cluster gives them, and process 0 says who has none any more.

A process that is started again under its number is another one, with a name of its own: what its predecessor had begun
is free for everybody.
"""

import threading
import time

from lottery_jax.cluster.service import Board
from lottery_jax.errors import ClusterError
from lottery_jax.progress import log

_SECONDS = 1.0  # between two signs; of many processes more, for all of them are read by one
_MANY = 100


class Signs:
    """The signs of one process, given by a thread from `start` to `stop`, and what it knows of the others.

    name: of this process, NUMBER.LIFE. patience: seconds without a sign after which process 0 gives another up.
    lost: names of those that are given up, or have left. failed: why the job ends, in a sentence; None if it goes on.
    over: whether process 0 has said that everything is done.
    """

    def __init__(self, board: Board, process: int, processes: int, patience: float) -> None:
        self._board, self._patience, self._leads = board, patience, process == 0
        self._every = min(_SECONDS * max(processes / _MANY, 1), patience / 3)
        life = board.add(f"lives/{process}", 1)
        self.name = f"{process}.{life}"
        self.lost: set[str] = {f"{process}.{earlier}" for earlier in range(1, life)}
        self.failed: str | None = None
        self.over = False
        for name in self.lost:
            board.put(f"state/lost/{name}", "started again")
        self._seen: dict[str, tuple[str, float]] = {}
        self._count = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Give signs from here on."""
        self.beat()
        self._thread.start()

    def stop(self) -> None:
        """Give no more; what is told is not missed."""
        self._stopped.set()
        self._thread.join(2 * self._every)

    def beat(self) -> None:
        """Give one sign, and see what there is to know."""
        self._count += 1
        self._board.put(f"alive/{self.name}", str(self._count))
        if self._leads:
            self._look()
        self.look()

    def look(self) -> None:
        """See what was said."""
        said = self._board.under("state")
        self.lost = {name.removeprefix("lost/") for name in said if name.startswith("lost/")}
        self.failed, self.over = said.get("failed"), "over" in said

    def left(self) -> None:
        """Say that this process is not to be waited for; what it has taken is free."""
        self._board.put(f"state/lost/{self.name}", "left")

    def alive(self) -> set[str]:
        """Names of the processes that are not lost, of all that ever came."""
        return set(self._board.under("alive")) - self.lost

    def _look(self) -> None:
        """Say of whom there was no sign for too long; and of who gives one again, that it was not so."""
        now = time.monotonic()
        for name, sign in self._board.under("alive").items():
            before, since = self._seen.get(name, ("", now))
            if sign != before:
                self._seen[name] = sign, now
                if before and name in self.lost and self._board.get(f"state/lost/{name}") == "no sign":
                    self._board.drop(f"state/lost/{name}")
            elif now - since > self._patience and name not in self.lost:
                self._board.put(f"state/lost/{name}", "no sign")
                log.warning(
                    "process %s is lost: no sign of life for %.0f seconds; the others do what it has left",
                    *(name.partition(".")[0], self._patience),
                )

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            try:
                self.beat()
            except ClusterError:
                return  # who waits is told, too
