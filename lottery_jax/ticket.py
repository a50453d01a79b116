"""The ticket: a source recipe and packed masks. It is a file format, and nothing in it is code."""

import dataclasses
import functools
import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from lottery_jax import sampler
from lottery_jax.errors import InputError, TicketError
from lottery_jax.files import write_atomically
from lottery_jax.networks import architecture as arch
from lottery_jax.networks.network import MaskedNetwork, fixed_network

FORMAT = "lottery_jax ticket"
VERSION = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Ticket:
    """A pruned random network: `architecture` and `seed` give the source, `masks` say which weights are kept.

    masks: tensor name -> bool array, True where the weight is kept. redraws: which blocks were drawn again.
    target: the weights [I, O] of each layer that a construction approximates, with the `tolerance` it promised.
    settings: what made the ticket (JSON values), for the reader; nothing depends on it.
    """

    architecture: arch.Architecture
    seed: int
    masks: Mapping[str, np.ndarray]
    method: str
    redraws: arch.Redraws = dataclasses.field(default_factory=dict)
    target: tuple[np.ndarray, ...] | None = None
    tolerance: float | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        arch.check(self.architecture)
        expected = {tensor.name: tensor.shape for tensor in arch.source_tensors(self.architecture)}
        found = {name: mask.shape for name, mask in self.masks.items()}
        if expected != found:
            raise InputError(f"the masks do not fit the architecture: expected {expected}, found {found}")
        for name, mask in self.masks.items():
            if mask.dtype != bool:
                raise InputError(f"mask {name} must be boolean, not {mask.dtype}")
        if self.target is not None:
            wanted = [(layer.inputs, layer.outputs) for layer in self.architecture]
            given = [weight.shape for weight in self.target]
            if wanted != given:
                raise InputError(f"the target's layers must have shapes {wanted}, found {given}")

    @functools.cached_property
    def source(self) -> dict[str, np.ndarray]:
        """The random weights, float32, regenerated on the host."""
        return arch.draw_source(self.architecture, self.seed, self.redraws)

    def network(self) -> MaskedNetwork:
        """The masked random network as a Flax module: x [B, I] -> logits [B, O]."""
        return fixed_network(self.architecture, self.source, self.masks)

    @property
    def source_weights(self) -> int:
        return arch.source_weights(self.architecture)

    @property
    def kept_weights(self) -> int:
        return sum(int(np.count_nonzero(mask)) for mask in self.masks.values())

    def to_bytes(self) -> bytes:
        """The file's bytes: safetensors, deterministic, with a digest over everything."""
        tensors: dict[str, np.ndarray] = {
            f"mask.{name}": np.packbits(mask, bitorder="little") for name, mask in self.masks.items()
        }
        tensors |= {f"redraws.{name}": np.ascontiguousarray(r, np.int32) for name, r in self.redraws.items() if len(r)}
        for place, weight in enumerate(self.target or ()):
            tensors[f"target.{place}"] = np.ascontiguousarray(weight, np.float32)
        header = {
            "format": FORMAT,
            "version": VERSION,
            "sampler_version": sampler.VERSION,
            "architecture": arch.to_json(self.architecture),
            "seed": self.seed,
            "method": self.method,
            "tolerance": self.tolerance,
            "settings": dict(self.settings),
            "source_sha256": _digest("", self.source),
        }
        text = json.dumps(header, sort_keys=True)
        # One entry: safetensors writes several in no fixed order, and equal tickets shall be equal files.
        return save_safetensors(tensors, metadata={"ticket": f"{_digest(text, tensors)} {text}"})

    def save(self, path: str | os.PathLike[str]) -> int:
        """Write the file whole or not at all; returns its size in bytes."""
        content = self.to_bytes()
        write_atomically(Path(path), content)
        return len(content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Ticket":
        """Read a ticket; raises `TicketError` for a file that is foreign, truncated or changed in any bit."""
        path = Path(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read ticket {str(path)!r}: {error.strerror}; check the path") from error
        header, tensors = _parse(content, str(path))
        try:
            return cls._from_parts(header, tensors)
        except (InputError, KeyError, TypeError, ValueError) as error:
            raise TicketError(f"{str(path)!r} is not a valid ticket: {error}") from error

    @classmethod
    def _from_parts(cls, header: dict[str, Any], tensors: dict[str, np.ndarray]) -> "Ticket":
        architecture = arch.from_json(header["architecture"])
        masks, redraws = {}, {}
        for tensor in arch.source_tensors(architecture):
            size = int(np.prod(tensor.shape))
            packed = tensors.pop(f"mask.{tensor.name}")
            if packed.dtype != np.uint8 or packed.size != (size + 7) // 8:
                raise ValueError(f"mask {tensor.name} does not have {size} bits")
            bits = np.unpackbits(packed, count=size, bitorder="little")
            masks[tensor.name] = bits.astype(bool).reshape(tensor.shape)
            if f"redraws.{tensor.name}" in tensors:
                redraws[tensor.name] = tensors.pop(f"redraws.{tensor.name}")
        target = tuple(tensors.pop(f"target.{place}") for place in range(len(tensors)))
        ticket = cls(
            architecture,
            header["seed"],
            masks,
            header["method"],
            redraws,
            target or None,
            header["tolerance"],
            header["settings"],
        )
        if _digest("", ticket.source) != header["source_sha256"]:
            raise ValueError("the source drawn from its seed is not the one it was made for")
        return ticket


def _parse(content: bytes, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        (length,) = struct.unpack("<Q", content[:8])
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        tensors = load_safetensors(content)
        digest, _, text = metadata["ticket"].partition(" ")
        header = json.loads(text)
        known = header.get("format") == FORMAT
    except (
        struct.error,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        SafetensorError,
        OverflowError,
    ) as error:
        raise TicketError(f"{name!r} is not a lottery_jax ticket, or it is truncated or damaged") from error
    if not known:
        raise TicketError(f"{name!r} is a safetensors file but not a lottery_jax ticket")
    if (header.get("version"), header.get("sampler_version")) != (VERSION, sampler.VERSION):
        raise TicketError(
            f"{name!r} has ticket version {header.get('version')} and sampler version {header.get('sampler_version')};"
            f" this program reads {VERSION} and {sampler.VERSION}"
        )
    if _digest(text, tensors) != digest:
        raise TicketError(f"{name!r} was changed after it was written: its checksum does not match its content")
    return header, tensors


def _digest(text: str, tensors: Mapping[str, np.ndarray]) -> str:
    sha = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        sha.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        sha.update(tensor.data if tensor.size else b"")
    return sha.hexdigest()
