"""Tickets as an attacker writes them: any content, under a digest that is right for it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.io.checksummed_file import ChecksummedFile, checksummed_bytes
from lottery_jax.io.tensor_file import read_array
from lottery_jax.networks.network import network_from_json
from lottery_jax.networks.target import Target
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
