"""Tickets as an attacker writes them: any content, under a digest that is right for it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.io.checksummed_file import ChecksummedFile, checksummed_bytes
from lottery_jax.io.tensor_file import read_array
from lottery_jax.networks.network import Network, network_from_json
from lottery_jax.networks.target import Target
from lottery_jax.tickets import header as ticket_header
from lottery_jax.tickets.size.coded_file import (
    PARAMETERS,
    SEGMENTS,
    WORDS,
    _segment_checksum,
    _span_checksum,
    pack_codes,
)
from lottery_jax.tickets.size.conditioning import WORD, coding_order, segments
from lottery_jax.tickets.size.mask_codes import MaskCode
from lottery_jax.tickets.ticket import ENTRY, source_digest

Header = dict[str, Any]
Tensors = dict[str, np.ndarray]


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and tensors of a ticket's file."""
    with ChecksummedFile(path, ENTRY) as file:
        return json.loads(json.dumps(file.header)), {name: read_array(file, name).copy() for name in file.tensors}


def forge(path: Path, header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Path:
    """Write a ticket's file with a valid digest."""
    path.write_bytes(checksummed_bytes(ENTRY, header, tensors))
    return path


def resourced(header: dict[str, Any]) -> dict[str, Any]:
    """The header with the checksum of the source that it describes, where it describes one."""
    return {**header, "source_sha256": source_digest(network_from_json(header["network"]), header["seed"])}


def small_target(*, nonnegative: bool = True, biases: bool = False, seed: int = 0) -> Target:
    """A network of 9 inputs, 6 hidden units and 4 outputs."""
    random = np.random.default_rng(seed)
    weights = [random.uniform(-0.5, 0.5, shape).astype(np.float32) for shape in ((6, 9), (4, 6))]
    own = [random.uniform(-1, 1, size).astype(np.float32) for size in (6, 4)] if biases else None
    return mlp_target(weights, own, nonnegative=nonnegative)


TARGET = small_target(biases=True)
TOLERANCE = 0.1


def pruned_whole(path: Path, network: Network, *, redrawn: bool = False, stored: Tensors | None = None) -> Path:
    """A coded ticket that prunes every weight of any network, and costs no bits for that: its masks are a constant.

    Args:
        redrawn: Every block has attempt 1, which costs no bits either.
    """
    none, codes = np.zeros(0, np.int64), {}
    for name in coding_order(network):
        tensor = network.random_tensors[name]
        rows, width = ("own", tensor.width) if tensor.width <= WORD else ("words", WORD)
        attempts = np.array([0, tensor.blocks]) if redrawn else none
        codes[name] = MaskCode(rows, "all", None, np.array([-(-tensor.size // width)]), attempts)
    index = []
    for spans in segments(network, set(codes) if redrawn else ()):
        values = [np.full(span.count, span.redraws, np.uint8) for span in spans]
        index.append((0, _segment_checksum(list(map(_span_checksum, values)))))
    header = ticket_header.Header(network, 0, "nothing", source_digest(network, 0)).to_json()
    content = {PARAMETERS: pack_codes(codes), SEGMENTS: np.array(index, np.int64), WORDS: np.zeros(0, np.uint8)}
    return forge(path, header, content | {f"stored.{name}": value for name, value in (stored or {}).items()})
