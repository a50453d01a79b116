"""The ticket: a source recipe and packed masks. It is a file format that contains no code."""

import dataclasses
import functools
import importlib
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.errors import InputError, TicketError
from lottery_jax.importers.write_back import load_weights
from lottery_jax.io.checksummed_file import ChecksummedFile, checksummed_bytes, digest
from lottery_jax.io.files import finite_json, write_atomically
from lottery_jax.io.tensor_file import (
    FLOAT_DTYPES,
    FormatError,
    InMemoryTensors,
    RenamedTensors,
    TensorReader,
    read_array,
)
from lottery_jax.networks.forward import Forward, forward, without_dead_units
from lottery_jax.networks.network import NO_REDRAWS, Network, Redraws, clipped
from lottery_jax.networks.node import FixedGate
from lottery_jax.networks.rewrites import unfold_batch_norm
from lottery_jax.networks.target import Target
from lottery_jax.rng.forced_entries import forced_mask, has_forced_entries
from lottery_jax.rng.threefry import checked_seed
from lottery_jax.tickets.effective_slices import masked_weights, read_mask
from lottery_jax.tickets.header import FORMAT, Header, version_mismatch
from lottery_jax.tickets.plain_weights import WeightLayout, as_bcoo, in_layout, plain_weight
from lottery_jax.tickets.size.coded_file import is_coded, open_content, write_coded
from lottery_jax.tickets.size.conditioning import read_redraws
from lottery_jax.tickets.work_limit import HEADER_OPERATIONS, Work, WorkLimit, WorkLimitError, verification_work

ENTRY = "ticket"

_SLICE = 1 << 22  # bytes of a mask that are read at once


@dataclasses.dataclass(frozen=True, eq=False)
class Ticket:
    """A pruned random network: a header, and tensors in memory or in a file. Made by `make_ticket` or `load_ticket`.

    Attributes:
        header: The network, its seed and what is promised.
        content: For each random tensor ``mask.NAME``, one bit for each weight, and ``redraws.NAME``, int64 rows (block,
            attempt), if a block was redrawn; ``stored.NAME`` for tensors that are not random, float32; ``target.NAME``
            for approximated ones, if there is a promise.
    """

    header: Header
    content: TensorReader
    _built = None

    def __post_init__(self) -> None:
        network, found = self.network, dict(self.content.tensors)
        for name, tensor in network.random_tensors.items():
            mask, redraws = found.pop(f"mask.{name}", None), found.pop(f"redraws.{name}", None)
            if mask is None or mask.dtype != "U8" or mask.shape != ((tensor.size + 7) // 8,):
                raise InputError(f"the mask of {name} must have {tensor.size:,} bits")
            (last,) = self.content.read(f"mask.{name}", mask.size - 1, 1)
            if tensor.size % 8 and last >> tensor.size % 8:
                raise InputError(f"the mask of {name} has bits beyond its last weight")
            if redraws is not None:
                if redraws.dtype != "I64" or redraws.shape[1:] != (2,) or redraws.shape[0] > tensor.blocks:
                    raise InputError(
                        f"the redraws of {name} must be int64 rows (block, attempt), one for a block at most"
                    )
                tensor.check_redraws(name, self.redraws(name))
        for name, shape in network.tensors.items():
            stored = found.pop(f"stored.{name}", None)
            if stored is None or stored.dtype != "F32" or stored.shape != shape:
                raise InputError(f"the stored tensor {name} must be float32 of shape {list(shape)}")
        promised = self.header.tolerance is not None
        for name, shape in network.approximated.items() if promised else ():
            target = found.pop(f"target.{name}", None)
            if target is None or target.dtype not in FLOAT_DTYPES or target.shape != shape:
                raise InputError(f"the target of {name} must be floats of shape {list(shape)}")
        if promised and network.trained_tensors:
            raise InputError(
                "a ticket of trained weights must promise nothing: they can be near to any target; omit target and"
                " tolerance"
            )
        if found:
            raise InputError(f"a ticket must not contain {min(found)!r}; it is no part of its network")
        if self.header.kept_budget is not None and not promised:
            raise InputError("a budget of kept weights needs a target and a tolerance")

    @property
    def network(self) -> Network:
        """The source network, with its random layers."""
        return self.header.network

    @property
    def seed(self) -> int:
        return self.header.seed

    @property
    def file_bytes(self) -> int:
        """Size of the file, or of the tensors in memory."""
        tensors = self.content.tensors.values()
        return getattr(self.content, "bytes", None) or sum(tensor.nbytes for tensor in tensors)

    def mask(self, name: str) -> np.ndarray:
        """The mask of a random tensor, bool in its shape: True where the weight is kept."""
        return read_mask(self.network, self.content, name)

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """All masks by name."""
        return {name: self.mask(name) for name in self.network.random_tensors}

    def redraws(self, name: str) -> np.ndarray:
        """The redrawn blocks of a random tensor: int64 rows (block, attempt)."""
        return read_redraws(self.content, name)

    def source(self) -> dict[str, np.ndarray]:
        """All random weights, float32, drawn on the host from the seed."""
        return self.network.draw(self.seed, {name: self.redraws(name) for name in self.network.random_tensors})

    def masked_weights(self, name: str) -> np.ndarray:
        """The weights of a random tensor times its mask, float32; only kept ones are drawn.

        They exclude the gain of their layer, by which the network multiplies the layer's output.
        """
        return masked_weights(self.network, self.seed, self.content, name)

    def masked_source(self) -> dict[str, np.ndarray]:
        """All random weights times their masks, float32: what `network.module` takes, which multiplies by `gains`."""
        found = {}
        for name in self.network.random_tensors:
            found[name] = self.masked_weights(name)
        return found

    def weights(
        self, name: str, layout: WeightLayout = "torch", *, sparse: Literal["bcoo"] | None = None, mean: bool = False
    ) -> Any:
        """The weights that a plain network needs to compute what the ticket computes, gains included.

        Args:
            name: A tensor of the target's network, such as ``fc1.weight``.
            layout: ``torch`` for [out, in, height, width]. ``jax`` and ``flax``, which are equal, for kernels [in, out]
                and [height, width, in, out]. The inputs of a dense layer after `Flatten` are channels first in each.
            sparse: ``bcoo`` for a `jax.experimental.sparse.BCOO`, None for a NumPy array, float32.
            mean: Whether to take the mean if a target weight has several effective weights: one for inputs of each
                sign, or one for each copy of a neuron. No plain network computes exactly what such a ticket computes.

        Raises:
            InputError: The name, layout or format is unknown, or there are several effective weights and ``mean`` is
                False.
        """
        value = plain_weight(self.network, self.seed, self.content, name, mean=mean)
        value = in_layout(self.network.target, name, value, layout)
        if sparse not in (None, "bcoo"):
            raise InputError(f"sparse must be None or 'bcoo', got {sparse!r}")
        return value if sparse is None else as_bcoo(value)

    def torch_state_dict(self, network: Network | None = None, *, mean: bool = False) -> dict[str, Any]:
        """The `weights` as PyTorch tensors by name, for ``model.load_state_dict``.

        Args:
            network: The model's own network, if batch normalisations were folded for the ticket: they become neutral
                and add the folded bias. Default: the network without them.
            mean: As in `weights`.

        Raises:
            InputError: PyTorch is missing, the network is not the ticket's, or there are several effective weights and
                ``mean`` is False.
        """
        try:
            torch = importlib.import_module("torch")
        except ImportError:
            raise InputError("torch_state_dict needs PyTorch; run: pip install torch") from None
        arrays = self.plain_tensors(mean=mean)
        if network is not None:
            arrays = unfold_batch_norm(network, arrays)
        return {name: torch.tensor(value) for name, value in arrays.items()}

    def load_into(self, model: Any, example: Any = None, parameters: Any = None, *, mean: bool = False) -> Any:
        """The model whose target this ticket is for, with the ticket's weights.

        Normalisations that were folded into a layer stay in the model. The model with these weights is compared on
        random inputs with the plain network that has them.

        Args:
            model: As `target_from` takes it. A Flax NNX or PyTorch module is changed.
            example: As for `target_from`; by default one float example.
            parameters: As for `target_from`.
            mean: As in `weights`.

        Returns:
            The changed NNX or PyTorch module, a new Equinox module, the new parameters of a Linen module or a function,
            or the new ONNX model.

        Raises:
            InputError: The model has other layers than the ticket, or no parameter for a tensor.

        >>> from lottery_jax import approximate, target_from
        >>> model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        >>> ticket = approximate(target_from(model, (1, 3), nonnegative=True), seed=0)
        >>> bool((ticket.load_into(model).kernel[...] == ticket.weights("dense_1.weight", "flax")).all())
        True
        """
        network = self.network.target
        return load_weights(model, network, self.plain_tensors(mean=mean), example=example, parameters=parameters)

    def plain_tensors(self, *, mean: bool = False) -> dict[str, np.ndarray]:
        """All `weights` of the target's network by name."""
        return {name: self.weights(name, mean=mean) for name in self.network.target.tensors}

    @property
    def stored(self) -> dict[str, np.ndarray]:
        """The tensors of the network that are not random, float32, by name."""
        found = {}
        for name in self.network.tensors:
            found[name] = read_array(self.content, f"stored.{name}")
        return found

    @property
    def masked_stored(self) -> dict[str, np.ndarray]:
        """`stored`, with trained weights times their masks."""
        found = self.stored
        for name, own in self.network.trained_tensors.items():
            found[own] = np.where(self.mask(name), found[own], np.float32(0))
        return found

    @functools.cached_property
    def target(self) -> Target | None:
        """The ticket's unverified copy of its target; None if it promises nothing."""
        if self.header.tolerance is None:
            return None
        names = {name: f"target.{name}" for name in self.network.approximated}
        names |= {name: f"stored.{name}" for name in self.network.tensors}
        return Target(
            self.network.target,
            RenamedTensors(self.content, {name: names[name] for name in self.network.target.tensors}),
        )

    @property
    def kept_weights(self) -> int:
        return sum(count_kept(self.content, name) for name in self.network.random_tensors)

    def module(self) -> nnx.Module:
        """The masked random network as a Flax module: x [B, *input] -> [B, *output].

        If the network is for nonnegative inputs, it computes what the target computes for those only: no sign branches
        were built.
        """
        tensors = {name: jnp.asarray(value) for name, value in {**self.source(), **self.stored}.items()}
        return self.network.module(tensors, lambda name: FixedGate(jnp.asarray(self.mask(name))))

    def forward(self) -> Forward:
        """The masked random network as a function, compiled once for all tickets of one source.

        The restriction of `module` to nonnegative inputs applies. Hidden units that no kept weight reaches are omitted.
        The function is cached while a caller holds it.
        """
        built = self._built() if self._built is not None else None
        if built is None:
            network, random = without_dead_units(self.network, self.masked_source())
            built = forward(network, {**random, **self.masked_stored})
            object.__setattr__(self, "_built", weakref.ref(built))
        return built

    def to_bytes(self) -> bytes:
        """The file's bytes: safetensors, deterministic, with a digest over everything."""
        arrays = {}
        for name in self.content.tensors:
            arrays[name] = read_array(self.content, name)
        return checksummed_bytes(ENTRY, self.header.to_json(), arrays)

    def save(self, path: str | os.PathLike[str], *, coded: bool = False) -> int:
        """Write the file atomically, with masks and redraws entropy coded if `coded`; returns its size in bytes."""
        if coded:
            write_coded(Path(path), ENTRY, self.header.to_json(), self.network, self.seed, self.content)
        else:
            write_atomically(Path(path), self.to_bytes())
        return Path(path).stat().st_size

    def __repr__(self) -> str:
        header, weights = self.header, self.network.source_weights
        promise = f"within {header.tolerance:g}" if header.tolerance is not None else "no guarantee"
        promise += " of each tensor's largest" * header.relative
        given = self.network.input_spec
        signs = "that are never negative" if given and given.nonnegative else "of any sign"
        meant = f", for inputs {signs}" if given else ""
        return f"<Ticket by {clipped(header.method)}, seed {self.seed}, {weights:,} random weights, {promise}{meant}>"


def count_kept(content: TensorReader, name: str) -> int:
    """Number of kept weights of a random tensor."""
    mask, found = f"mask.{name}", 0
    size = content.tensors[mask].size
    for first in range(0, size, _SLICE):
        found += int(np.bitwise_count(content.read(mask, first, min(_SLICE, size - first))).sum(dtype=np.int64))
    return found


def make_ticket(
    network: Network,
    *,
    seed: int,
    masks: Mapping[str, np.ndarray],
    method: str,
    redraws: Redraws | None = None,
    stored: Mapping[str, np.ndarray] | None = None,
    target: Target | None = None,
    tolerance: float | None = None,
    kept_budget: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Ticket:
    """Make a ticket in memory.

    Args:
        masks: Boolean masks by random tensor, True for kept weights.
        redraws: Redrawn blocks by random tensor, int64 rows (block, attempt).
        stored: Tensors of the network that are not random, by name.
        target: The target, if the ticket shall promise to approximate it within `tolerance` (0 for equality).
        kept_budget: The promised largest number of kept weights.
        settings: How the ticket was made, JSON values for the reader. Losses that are not finite become None.

    Raises:
        InputError: Parts do not fit together.
    """
    if set(masks) != set(network.random_tensors):
        raise InputError(f"masks must have the names {sorted(network.random_tensors)}, got {sorted(masks)}")
    content: dict[str, np.ndarray] = {}
    for name, tensor in network.random_tensors.items():
        mask, rows = masks[name], (redraws or {}).get(name, NO_REDRAWS)
        if mask.shape != tensor.shape or mask.dtype != bool:
            raise InputError(
                f"the mask of {name} must be boolean of shape {tensor.shape}, got {mask.dtype.name} of {mask.shape}"
            )
        if has_forced_entries(tensor):
            forced = forced_mask(tensor, seed, rows)
            if (mask & (forced < 0)).any():
                raise InputError(f"the mask of {name} keeps weights that its source does not have; prune those")
            if (~mask & (forced > 0)).any():
                raise InputError(f"the mask of {name} prunes weights that its source has locked; keep those")
        content[f"mask.{name}"] = np.packbits(mask, bitorder="little")
    if (target is None) != (tolerance is None):
        raise InputError("target and tolerance must be given together; give both, or none")
    for name, rows in (redraws or {}).items():
        if len(rows):
            content[f"redraws.{name}"] = np.ascontiguousarray(rows, np.int64)
    for name, value in (stored or {}).items():
        content[f"stored.{name}"] = np.asarray(value, np.float32)
    if target is not None:
        content |= {f"target.{name}": target.array(name) for name in network.approximated}
    seed = checked_seed(seed)
    source_sha256, recorded = source_digest(network, seed), finite_json(dict(settings or {}))
    header = Header(network, seed, method, source_sha256, tolerance, kept_budget, recorded)
    return Ticket(header, InMemoryTensors(content))


def load_ticket(path: str | os.PathLike[str], *, limit: float = 1.0) -> Ticket:
    """Read a ticket; its content stays in the file and is read in slices.

    Args:
        limit: Multiple of the work (operations and bytes, to verify it and to run its network on one example) that a
            file of its size may ask for; infinity for files that you trust.

    Raises:
        TicketError: The file is foreign, truncated or changed in any bit, or its parts do not fit together.
        InputError: The file cannot be read, or asks for more work than the limit.
    """
    name = str(path)
    try:
        file = ChecksummedFile(path, ENTRY)
    except FormatError as error:
        raise TicketError(f"{name!r} is not a lottery_jax ticket, or it is truncated or damaged") from error
    except InputError as error:
        raise InputError(f"cannot read ticket: {error}") from None
    if file.header.get("format") != FORMAT:
        raise TicketError(f"{name!r} is a safetensors file but not a lottery_jax ticket")
    if reason := version_mismatch(file.header):
        raise TicketError(f"{name!r} {reason}")
    allowed = WorkLimit(repr(name), sum(tensor.nbytes for tensor in file.tensors.values()), limit)
    allowed.check(Work(HEADER_OPERATIONS * file.header_bytes, 0))
    try:
        file.check_digest()
        header = Header.from_json(file.header)
        promised = header.tolerance is not None
        allowed.check(verification_work(header.network, coded=is_coded(file), promised=promised))
        ticket = Ticket(header, open_content(file, header.network, header.seed, allowed))
        if source_digest(ticket.network, ticket.seed) != ticket.header.source_sha256:
            raise InputError("the source drawn from its seed is not the one it was made for")
        return ticket
    except WorkLimitError:
        raise
    except InputError as error:
        raise TicketError(f"{name!r} is not a valid ticket: {error}") from error


def stores_coded(path: str | os.PathLike[str]) -> bool:
    """True if the masks in a ticket's file are coded; raises `InputError` for any other file."""
    with ChecksummedFile(path, ENTRY) as file:
        return is_coded(file)


def source_digest(network: Network, seed: int) -> str:
    """Checksum of a sample of each random tensor: the whole source may be too large to draw."""
    samples = {}
    for name, tensor in network.random_tensors.items():
        samples[name] = tensor.checksum_sample(seed)
    return digest("", samples)
