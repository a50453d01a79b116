"""Clusters of threads in one process, whose board is in memory."""

import threading

from lottery_jax.workers.cluster import Cluster


class MemoryBoard:
    """A key-value store like JAX's coordination service."""

    def __init__(self) -> None:
        self.words: dict[str, str] = {}
        self.asked = 0
        self._turn = threading.RLock()

    def add(self, key: str, count: int) -> int:
        with self._turn:
            self.asked += 1
            self.words[key] = str(int(self.words.get(key, 0)) + count)
            return int(self.words[key])

    def claim(self, key: str, value: str) -> bool:
        with self._turn:
            self.asked += 1
            new = key not in self.words
            self.words.setdefault(key, value)
            return new

    def put(self, key: str, value: str) -> None:
        with self._turn:
            self.asked += 1
            self.words[key] = value

    def get(self, key: str) -> str | None:
        with self._turn:
            self.asked += 1
            return self.words.get(key)

    def under(self, folder: str) -> dict[str, str]:
        with self._turn:
            self.asked += 1
            start = f"{folder}/"
            return {key.removeprefix(start): value for key, value in self.words.items() if key.startswith(start)}

    def drop(self, key: str) -> None:
        with self._turn:
            self.asked += 1
            self.words.pop(key, None)


def member(board: MemoryBoard, process: int, processes: int = 2, patience: float = 60.0) -> Cluster:
    """A process of a cluster; processes come in any order."""
    return Cluster(board, process, processes, patience=patience)


def dies(cluster: Cluster) -> None:
    """The process sends no more heartbeats."""
    cluster._heartbeats.stop()
