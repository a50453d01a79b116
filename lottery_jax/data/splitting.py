"""Deterministic splits of examples, and the scaling of pixels."""

import concurrent.futures
import hashlib
import itertools
import zlib

import numpy as np

from lottery_jax.environment import cores
from lottery_jax.errors import InputError


def unit_floats(images: np.ndarray, white: int) -> np.ndarray:
    """Images uint8 [N, ...] divided by `white`, as float32, on all cores.

    >>> unit_floats(np.array([[0, 51]], np.uint8), 255)
    array([[0. , 0.2]], dtype=float32)
    """
    found, step = np.empty(images.shape, np.float32), 4096

    def scale(start: int) -> None:
        np.divide(images[start : start + step], np.float32(white), out=found[start : start + step])

    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        list(pool.map(scale, range(0, len(images), step)))
    return found


def fixed_order(images: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """A shuffle by hashes of the examples and the seed, independent of their order in a file."""
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    salts = map(int, labels) if labels.ndim == 1 else (zlib.crc32(label.tobytes()) for label in labels)
    person = seed.to_bytes(8, "little")
    digests = [
        hashlib.blake2b(row.data, digest_size=8, salt=salt.to_bytes(4, "little"), person=person).digest()
        for row, salt in zip(rows, salts, strict=True)
    ]
    return np.argsort(np.array(digests, "S8").view(">u8"), kind="stable")


def stratified(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The order changed so that every interval has the classes in their overall proportions."""
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    return order[np.argsort(position[order], kind="stable")]


def divided(
    name: str, images: np.ndarray, labels: np.ndarray, fractions: dict[str, float], seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Examples and labels of each named fraction, at least one each, and of ``train``, the rest.

    Classes, labels [N], are in proportion. Raises `InputError` if no example is left for training.

    Args:
        name: Of the examples, in sentences.
        fractions: Of each split but ``train``.
    """
    order = fixed_order(images, labels, seed)
    order = stratified(labels, order) if labels.ndim == 1 else order
    # The sum rounds up a product such as 30 * 0.1 that should be whole.
    sizes = [max(int(len(labels) * fraction + 1e-9), 1) for fraction in fractions.values()]
    bounds = [0, *itertools.accumulate(sizes), len(labels)]
    if bounds[-2] >= len(labels):
        names = " and ".join([*fractions, "train"])
        raise InputError(
            f"{name} must have at least {len(fractions) + 1} examples for {names}, got {len(labels)}. Add examples, or"
            " give smaller fractions."
        )
    parts = (order[start:stop] for start, stop in itertools.pairwise(bounds))
    return {part: (images[chosen], labels[chosen]) for part, chosen in zip([*fractions, "train"], parts, strict=True)}
