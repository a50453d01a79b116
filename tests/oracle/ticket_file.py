"""The file of a ticket: container, header, digests and masks (docs/ticket-format.md)."""

import dataclasses
import hashlib
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.oracle.coded_masks import decode_masks
from tests.oracle.effective import OracleTicket
from tests.oracle.layers import child_path, children
from tests.oracle.random_weights import RandomTensor, random_tensors

Array = np.ndarray
DTYPES = {"I64": "<i8", "F64": "<f8", "F32": "<f4", "I32": "<i4", "BF16": "<u2", "F16": "<f2", "U8": "u1"}
NAMES = {
    "I64": "int64",
    "F64": "float64",
    "F32": "float32",
    "I32": "int32",
    "BF16": "bfloat16",
    "F16": "float16",
    "U8": "uint8",
}


def read_container(path: Path) -> tuple[dict[str, str], dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """Metadata, and dtype, shape and bytes of each tensor."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    rows = json.loads(content[8 : 8 + length])
    metadata, found = rows.pop("__metadata__"), {}
    for name, row in rows.items():
        start, stop = row["data_offsets"]
        found[name] = row["dtype"], tuple(row["shape"]), content[8 + length + start : 8 + length + stop]
    return metadata, found


def floats(dtype: str, shape: tuple[int, ...], content: bytes) -> Array:
    values = np.frombuffer(content, DTYPES[dtype])
    if dtype == "BF16":
        values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.reshape(shape)


def read_ticket(path: Path) -> OracleTicket:
    """Read a ticket and check both digests."""
    metadata, raw = read_container(path)
    recorded, _, text = metadata["ticket"].partition(" ")
    sha = hashlib.sha256(text.encode())
    for name in sorted(raw):
        dtype, shape, content = raw[name]
        sha.update(f"{name} {NAMES[dtype]} {shape}".encode() + content)
    assert sha.hexdigest() == recorded, "the digest of the file differs"
    header = json.loads(text)
    assert (header["format"], header["version"], header["sampler_version"]) == ("lottery_jax ticket", 3, 1)
    sources, random = network_tensors(header["network"])
    assert source_digest(random, header["seed"]) == header["source_sha256"], "the digest of the source differs"
    tensors = {name: floats(*entry) for name, entry in raw.items()}
    ticket = OracleTicket(header, sources, random, {}, {}, tensors)
    for name, tensor in random.items():
        ticket.attempts[name] = np.zeros(tensor.blocks, np.int64)
    if "coded.words" in tensors:
        decode_masks(ticket)
        return ticket
    for name, tensor in random.items():
        if (rows := tensors.get(f"redraws.{name}")) is not None:
            ticket.attempts[name][rows[:, 0]] = rows[:, 1]
        bits = np.unpackbits(tensors[f"mask.{name}"], count=math.prod(tensor.shape), bitorder="little")
        ticket.masks[name] = bits.astype(bool).reshape(tensor.rows, tensor.width)
    return ticket


def network_tensors(network: Mapping[str, Any]) -> tuple[dict[str, Mapping[str, Any]], dict[str, RandomTensor]]:
    """The random layers by path, and their random tensors by name with absolute streams, parents first."""
    sources, random, stream = {}, {}, 0
    for path, node in walk(network["root"], ""):
        if "layer" not in node:
            continue
        sources[path], following = node, stream
        for name, tensor in random_tensors(node).items():
            placed = dataclasses.replace(tensor, stream=stream + tensor.stream)
            random[child_path(path, name)] = placed
            following = max(following, placed.stream + placed.streams)
        stream = 0 if network.get("share_layers") else following
    return sources, random


def walk(node: Mapping[str, Any], path: str) -> list[tuple[str, Mapping[str, Any]]]:
    """All nodes with their paths, parents first."""
    inside = [part for name, child in children(node).items() for part in walk(child, child_path(path, name))]
    return [(path, node), *inside]


def source_digest(random: Mapping[str, RandomTensor], seed: int) -> str:
    """SHA-256 of up to 256 evenly spaced blocks of the first draw of each random tensor."""
    sha = hashlib.sha256()
    for name in sorted(random):
        tensor = random[name]
        count = min(tensor.blocks, 256)
        blocks = np.arange(count) * tensor.blocks // count
        weights, _ = tensor.draw(seed, blocks, np.zeros(count, np.int64))
        sha.update(f"{name} float32 {weights.shape}".encode() + weights.astype(np.float32).tobytes())
    return sha.hexdigest()
