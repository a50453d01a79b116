"""Targets: trained networks with their tensors in memory or in a file."""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from lottery_jax.errors import InputError
from lottery_jax.io.tensor_file import FLOAT_DTYPES, InMemoryTensors, TensorReader, read_array, to_float64
from lottery_jax.networks.forward import Forward, forward
from lottery_jax.networks.layers.normalization import BatchNorm
from lottery_jax.networks.network import Network, summary
from lottery_jax.networks.node import child_path

_SLICE = 1 << 20  # weights read at once
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """The trained network to approximate.

    Args:
        tensors: NumPy or JAX arrays by name, weights [out, in, ...] as in PyTorch; or a store of a file.
        notes: What an import assumed without a proof, in sentences.

    Raises:
        InputError: If the tensors do not have the names and shapes of the network, or are not floats.

    >>> from lottery_jax.networks.layers.dense import Dense
    >>> from lottery_jax.networks.layers.containers import Chain
    >>> from lottery_jax.networks.node import Spec
    >>> network = Network(Chain((("fc1", Dense(3, 2)),)), Spec((3,)))
    >>> Target(network, {"fc1.weight": np.ones((2, 3), np.float32)}).weights
    6
    """

    network: Network
    tensors: TensorReader
    notes: tuple[str, ...] = ()
    _scans: dict[str, "Scan"] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.network, Network):
            raise InputError(
                f"the network of a target must be a Network, got a {type(self.network).__name__}. Make it with"
                " `lottery_jax.networks`, or the whole target with `mlp_target`."
            )
        if isinstance(self.tensors, Mapping):
            for name, value in self.tensors.items():
                if isinstance(value, Mapping):
                    raise InputError(
                        f"the tensors of a target must be arrays by name, got a {type(value).__name__} for {name!r}."
                        " Pass a flat {'fc1.weight': [out, in], ...}, or pass them to `mlp_target`."
                    )
            object.__setattr__(self, "tensors", InMemoryTensors(self.tensors))
        if not isinstance(getattr(self.tensors, "tensors", None), Mapping):
            raise InputError(
                f"the tensors of a target must be arrays by name, got a {type(self.tensors).__name__}. Pass"
                " {'fc1.weight': [out, in], ...}, or pass weights of another layout to `mlp_target`."
            )
        if self.network.sources:
            raise InputError("the network of a target must have no random layers. Pass `network.target`.")
        found = {name: tensor.shape for name, tensor in self.tensors.tensors.items()}
        if found != self.network.tensors:
            raise InputError(f"the target must have the tensors {listed(self.network.tensors)}, got {listed(found)}")
        wrong = [name for name, tensor in self.tensors.tensors.items() if tensor.dtype not in FLOAT_DTYPES]
        if wrong:
            raise InputError(
                f"the target's tensors must be floats, got other types for {wrong}. Convert them to float32."
            )

    def __repr__(self) -> str:
        return f"<Target of {self.weights:,} weights, {summary(self.network)}>"

    @property
    def path(self) -> Path | None:
        """The file of the tensors; None if they are in memory."""
        return getattr(self.tensors, "path", None)

    @property
    def weights(self) -> int:
        """Number of weights that a construction approximates."""
        return sum(map(math.prod, self.network.approximated.values()))

    def array(self, name: str) -> np.ndarray:
        """A tensor in its own dtype."""
        return read_array(self.tensors, name)

    def arrays(self) -> dict[str, np.ndarray]:
        """All tensors as float32, by name."""
        found = {}
        for name in self.network.tensors:
            found[name] = self.array(name).astype(np.float32)
        return found

    def module(self) -> nnx.Module:
        """The target as a Flax module: x [B, *input] -> [B, *output]."""
        return self.network.module({name: jnp.asarray(value) for name, value in self.arrays().items()})

    def forward(self) -> Forward:
        """The target as a function x [B, *input] -> [B, *output], compiled once for all targets of one tree."""
        return forward(self.network, self.arrays())

    def scan(self, name: str) -> "Scan":
        """The range and the checksum of a tensor.

        Raises:
            InputError: Weights are NaN, infinite or beyond float32, or a variance is negative.
        """
        if name in self._scans:
            return self._scans[name]
        tensor, sha = self.tensors.tensors[name], hashlib.sha256()
        low, high, bad = np.inf, -np.inf, 0
        for start in range(0, tensor.size, _SLICE):
            count = min(_SLICE, tensor.size - start)
            stored = self.tensors.read(name, start, count)
            sha.update(stored.data)
            values = to_float64(stored, tensor.dtype)
            finite = np.abs(values) <= _FLOAT32_MAX  # false for NaN
            bad += count - int(np.count_nonzero(finite))
            low = min(low, float(values.min(initial=np.inf, where=finite)))
            high = max(high, float(values.max(initial=-np.inf, where=finite)))
        if bad:
            raise InputError(
                f"the target's tensor {name!r} must be finite, got {bad:,} of {tensor.size:,} weights that are NaN,"
                " infinite or beyond float32. Repair the tensor, or omit it."
            )
        if low < 0 and name in self._variances:
            raise InputError(
                f"the target's tensor {name!r} must be a variance of 0 or more, got {low:g}. Repair the tensor."
            )
        self._scans[name] = Scan(low, high, sha.hexdigest())
        return self._scans[name]

    @functools.cached_property
    def _variances(self) -> set[str]:
        """Names of the tensors that are variances."""
        nodes = self.network.nodes()
        return {child_path(path, "running_var") for path, node in nodes if isinstance(node, BatchNorm)}

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the tree and all tensors, without the sign of the input, which is not part of the function."""
        input_spec = self.network.input_spec
        facts = {**self.network.to_json(), "input_spec": None if input_spec is None else input_spec.shape}
        sha = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        for name in sorted(self.network.tensors):
            tensor = self.tensors.tensors[name]
            sha.update(f"{name} {tensor.dtype} {tensor.shape} {self.scan(name).sha256}".encode())
        return sha.hexdigest()


@dataclasses.dataclass(frozen=True)
class Scan:
    """The least and largest weight of a tensor, and the SHA-256 of its bytes."""

    low: float
    high: float
    sha256: str

    @property
    def largest(self) -> float:
        """The largest |weight|."""
        return max(-self.low, self.high)


def listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Names and shapes of tensors in words.

    >>> listed({"fc1.weight": (500, 784)})
    'fc1.weight [500, 784]'
    """
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or "nothing"
