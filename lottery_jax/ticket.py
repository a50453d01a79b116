"""The ticket: a source recipe and packed masks. It is a file format, and nothing in it is code."""

import dataclasses
import functools
import numbers
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lottery_jax import sampler
from lottery_jax.errors import InputError, TicketError
from lottery_jax.files import write_atomically
from lottery_jax.networks import architecture as arch
from lottery_jax.networks.copies import check_redraws, sampled_blocks
from lottery_jax.networks.network import MaskedNetwork, fixed_network
from lottery_jax.sealed import FLOAT_TYPES, SealedFile, digest, seal
from lottery_jax.tensor_file import FormatError

FORMAT = "lottery_jax ticket"
VERSION = 1
ENTRY = "ticket"


@dataclasses.dataclass(frozen=True, eq=False)
class Ticket:
    """A pruned random network: `architecture` and `seed` give the source, `masks` say which weights are kept.

    masks: tensor name -> bool array, True where the weight is kept. redraws: which blocks were drawn again.
    target: the weights of each layer that a construction approximates, with the `tolerance` it promised: [I, O]
    float32, or a model's tensors as they are. A model's ticket is read whole here; `model_certificate` reads slices.
    settings: what made the ticket (JSON values), for the reader; nothing depends on it. kept_budget: the number of kept
    weights that a ticket promises not to exceed.
    """

    architecture: arch.Architecture
    seed: int
    masks: Mapping[str, np.ndarray]
    method: str
    redraws: arch.Redraws = dataclasses.field(default_factory=dict)
    target: tuple[np.ndarray, ...] | None = None
    tolerance: float | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    kept_budget: int | None = None

    def __post_init__(self) -> None:
        arch.check(self.architecture)
        expected = {tensor.name: tensor.shape for tensor in arch.source_tensors(self.architecture)}
        found = {name: mask.shape for name, mask in self.masks.items()}
        if expected != found:
            raise InputError(f"the masks do not fit the architecture: expected {expected}, found {found}")
        for name, mask in self.masks.items():
            if mask.dtype != bool:
                raise InputError(f"mask {name} must be boolean, not {mask.dtype}")
        if self.tolerance is not None and not (isinstance(self.tolerance, float | int) and self.tolerance > 0):
            raise InputError(f"tolerance must be a positive number, not {self.tolerance!r}")
        budget = self.kept_budget
        if budget is not None and (isinstance(budget, bool) or not isinstance(budget, numbers.Integral) or budget < 0):
            raise InputError(f"kept_budget must be a whole number from 0 up, not {budget!r}")
        if self.target is None:
            if arch.copies(self.architecture):
                raise InputError("the ticket of a model needs its target; there is nothing else that it could promise")
        else:
            wanted = [arch.target_shape(layer) for layer in self.architecture]
            given = [weight.shape for weight in self.target]
            if wanted != given:
                raise InputError(f"the target's layers must have shapes {wanted}, found {given}")
            if not all(weight.dtype in FLOAT_TYPES for weight in self.target):
                raise InputError(f"the target must hold floats, not {[weight.dtype.name for weight in self.target]}")
        for place, layer in enumerate(arch.copies(self.architecture)):
            if self.tolerance is None or self.tolerance == np.inf:
                raise InputError("the ticket of a model needs a tolerance")
            if f"{place}.kernel" in self.redraws:
                check_redraws(layer, self.redraws[f"{place}.kernel"])

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
        model = bool(arch.copies(self.architecture))
        rows = np.int64 if model else np.int32
        tensors |= {f"redraws.{name}": np.ascontiguousarray(r, rows) for name, r in self.redraws.items() if len(r)}
        for place, weight in enumerate(self.target or ()):
            tensors[f"target.{place}"] = np.ascontiguousarray(weight, weight.dtype if model else np.float32)
        header = ticket_header(
            self.architecture, self.seed, self.method, self.tolerance, self.settings, source_digest(self)
        )
        if self.kept_budget is not None:
            header["kept_budget"] = int(self.kept_budget)
        return seal(ENTRY, header, tensors)

    def save(self, path: str | os.PathLike[str]) -> int:
        """Write the file whole or not at all; returns its size in bytes."""
        content = self.to_bytes()
        write_atomically(Path(path), content)
        return len(content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Ticket":
        """Read a ticket; raises `TicketError` for a file that is foreign, truncated or changed in any bit."""
        with open_ticket(path) as file:
            try:
                file.check_digest()
                tensors = {name: file.array(name) for name in file.tensors}
                return cls._from_parts(file.header, tensors)
            except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
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
            header.get("kept_budget"),
        )
        if source_digest(ticket) != header["source_sha256"]:
            raise ValueError("the source drawn from its seed is not the one it was made for")
        return ticket


def ticket_header(
    architecture: arch.Architecture,
    seed: int,
    method: str,
    tolerance: float | None,
    settings: Mapping[str, Any],
    source_sha256: str,
) -> dict[str, Any]:
    """What a ticket's file says about itself."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "sampler_version": sampler.VERSION,
        "architecture": arch.to_json(architecture),
        "seed": seed,
        "method": method,
        "tolerance": tolerance,
        "settings": dict(settings),
        "source_sha256": source_sha256,
    }


def source_digest(ticket: Ticket) -> str:
    """Checksum of the source: of all random weights, or of `sampled_blocks` of each tensor of a model."""
    if arch.copies(ticket.architecture):
        return model_source_digest(ticket.architecture, ticket.seed)
    return digest("", ticket.source)


def model_source_digest(architecture: arch.Architecture, seed: int) -> str:
    """`source_digest` of a model's ticket: a whole model's source would be too large to draw for a checksum."""
    tensors = zip(arch.copies(architecture), arch.source_tensors(architecture), strict=True)
    return digest("", {tensor.name: sampled_blocks(layer, seed, tensor.stream) for layer, tensor in tensors})


def open_ticket(path: str | os.PathLike[str]) -> SealedFile:
    """A ticket's file open for reading in slices, its header checked; `check_digest` checks the rest.

    Raises `TicketError` where it is no ticket of this version, `InputError` where it cannot be read.
    """
    name = str(path)
    try:
        file = SealedFile(path, ENTRY)
    except FormatError as error:
        raise TicketError(f"{name!r} is not a lottery_jax ticket, or it is truncated or damaged") from error
    except InputError as error:
        raise InputError(f"cannot read ticket: {error}") from None
    header = file.header
    versions = (header.get("version"), header.get("sampler_version"))
    if header.get("format") != FORMAT:
        file.close()
        raise TicketError(f"{name!r} is a safetensors file but not a lottery_jax ticket")
    if versions != (VERSION, sampler.VERSION):
        file.close()
        raise TicketError(
            f"{name!r} has ticket version {versions[0]} and sampler version {versions[1]};"
            f" this program reads {VERSION} and {sampler.VERSION}"
        )
    return file
