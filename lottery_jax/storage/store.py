"""Named tensors that are read in slices, whether they lie in memory or in a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes  # comes with JAX; gives NumPy its bfloat16
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.storage.tensor_file import STORED, Tensor, to_float64

TYPES = {**STORED, "BF16": np.dtype(ml_dtypes.bfloat16)}
"""NumPy's types by the names that the format has for them."""


def described(arrays: Mapping[str, np.ndarray]) -> list[Tensor]:
    """Arrays as the format describes them."""
    kinds = {dtype.name: kind for kind, dtype in TYPES.items()}
    return [Tensor(name, kinds[value.dtype.name], value.shape) for name, value in arrays.items()]


class Store(Protocol):
    """What `TensorFile` and `Arrays` have in common."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Types and shapes by name."""
        ...

    def read(self, name: str, first: int, count: int) -> np.ndarray:
        """Values first ... first + count - 1 of a tensor in row-major order, one-dimensional, as they are stored."""
        ...


class Arrays:
    """Tensors in memory, NumPy's or JAX's; raises `InputError` for what is no array of a type that files have.

    >>> store = Arrays({"w": np.arange(6, dtype=np.float32).reshape(2, 3)})
    >>> store.tensors["w"].shape, store.read("w", 4, 2)
    ((2, 3), array([4., 5.], dtype=float32))
    """

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self._arrays = {name: _array(name, value) for name, value in arrays.items()}
        self.tensors: Mapping[str, Tensor] = {tensor.name: tensor for tensor in described(self._arrays)}

    def read(self, name: str, first: int, count: int) -> np.ndarray:
        stored = STORED[self.tensors[name].dtype]
        return self._arrays[name].reshape(-1)[first : first + count].view(stored)


def _array(name: Any, value: Any) -> np.ndarray:
    """An array of a type that files have."""
    try:
        found = np.ascontiguousarray(value)
    except (TypeError, ValueError, RuntimeError):  # rows of different lengths, a JAX array that was donated
        raise InputError(f"the tensor {name!r} ({type(value).__name__}) is no array; convert it to float32") from None
    found = found.astype(found.dtype.newbyteorder("="), copy=False)  # what is read is taken for little-endian
    if found.dtype not in TYPES.values():
        raise InputError(f"the tensor {name!r} holds {found.dtype.name}, which is not stored; convert it to float32")
    if not isinstance(name, str):
        raise InputError(f"the tensor {name!r} has a {type(name).__name__} for a name; give it a str")
    return found


class View:
    """Some tensors of a store under names of their own. names: own name -> name in the store."""

    def __init__(self, store: Store, names: Mapping[str, str]) -> None:
        self._store, self._names = store, names
        self.tensors: Mapping[str, Tensor] = {name: store.tensors[there] for name, there in names.items()}

    @property
    def path(self) -> Path | None:
        """The file that the store is, if it is one."""
        return getattr(self._store, "path", None)

    def read(self, name: str, first: int, count: int) -> np.ndarray:
        return self._store.read(self._names[name], first, count)


def read_float64(store: Store, name: str, first: int, count: int) -> np.ndarray:
    """A slice of floats, as the exact float64 values."""
    return to_float64(store.read(name, first, count), store.tensors[name].dtype)


def read_array(store: Store, name: str) -> np.ndarray:
    """A whole tensor, in its own type and shape."""
    tensor = store.tensors[name]
    return store.read(name, 0, tensor.size).view(TYPES[tensor.dtype]).reshape(tensor.shape)
