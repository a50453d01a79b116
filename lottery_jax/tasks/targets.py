"""The target: a trained bias-free ReLU MLP, exchanged as safetensors in PyTorch layout."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.storage.files import write_atomically
from lottery_jax.networks.mlp import MLP

LAYER_NAME = re.compile(r"fc([1-9][0-9]*)\.weight")
FLOATS = ("F16", "BF16", "F32", "F64")


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """A trained network: weights float32 [I, O] of each layer, and the names of the tensors they came from.

    >>> Target((np.ones((4, 3), np.float32), np.ones((3, 2), np.float32))).sizes
    (4, 3, 2)
    """

    weights: tuple[np.ndarray, ...]
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = tuple(f"fc{number}.weight" for number in range(1, len(self.weights) + 1))
        object.__setattr__(self, "names", tuple(self.names) or names)
        weights = tuple(np.ascontiguousarray(weight) for weight in self.weights)
        object.__setattr__(self, "weights", weights)
        check_weights(dict(zip(self.names, (weight.T for weight in weights), strict=True)), "the target")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Inputs, hidden units of each layer, classes."""
        return (self.weights[0].shape[0], *(weight.shape[1] for weight in self.weights))

    @property
    def count(self) -> int:
        """Number of target weights."""
        return sum(weight.size for weight in self.weights)

    def network(self) -> MLP:
        """The target as a network: x [B, I] -> logits [B, classes]."""
        return MLP(self.weights)


def import_target(
    path: str | os.PathLike[str],
    shapes: Sequence[tuple[int, int]] | None = None,
    *,
    inputs: int | None = None,
    classes: int | None = None,
) -> Target:
    """Read `fc1.weight` [out, in], `fc2.weight`, ... from a .safetensors file; raises `InputError`.

    `shapes` are the expected [out, in] of the layers; `inputs` and `classes` are those of the data set.
    float16, bfloat16 and float64 become float32.
    """
    path = Path(path)
    where = f"the target file {str(path)!r}"
    tensors = _read(path, where)
    numbers = {int(match[1]): name for name in tensors if (match := LAYER_NAME.fullmatch(name))}
    count = len(shapes) if shapes is not None else max(len(numbers), 1)
    expected = {
        f"fc{number}.weight": list(shapes[number - 1]) if shapes is not None else "[out, in]"
        for number in range(1, count + 1)
    }
    if set(tensors) != set(expected):
        hint = " without biases" if any(name.endswith("bias") for name in tensors) else ""
        raise InputError(
            f"{where} must hold {_listing(expected)}{' ...' if shapes is None else ''} and nothing else,"
            f" but holds {_shapes(tensors)}; export a ReLU network of linear layers{hint} under these names"
        )
    tensors = {name: tensors[name] for name in expected}
    if shapes is not None and any(tensors[name].shape != tuple(shape) for name, shape in expected.items()):
        raise InputError(
            f"{where} must hold {_listing(expected)}, but holds {_shapes(tensors)}; choose the file of this network"
        )
    check_weights(tensors, where)
    target = Target(tuple(tensor.T for tensor in tensors.values()), tuple(tensors))
    if (inputs is not None and target.sizes[0] != inputs) or (classes is not None and target.sizes[-1] != classes):
        raise InputError(
            f"{where} maps {target.sizes[0]} inputs to {target.sizes[-1]} classes ({_shapes(tensors)}),"
            f" but the data set has {inputs} inputs and {classes} classes; choose the right one with --data"
        )
    return target


def export_target(target: Target, path: str | os.PathLike[str]) -> None:
    """Write a target as safetensors in PyTorch layout, whole or not at all; raises `InputError`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "target.safetensors"
    ...     export_target(Target((np.ones((4, 3), np.float32),)), path)
    ...     import_target(path, shapes=[(3, 4)]).sizes
    (4, 3)
    """
    write_atomically(Path(path), target_bytes(target))


def target_bytes(target: Target) -> bytes:
    """The content of the file that `export_target` writes."""
    from safetensors.numpy import save

    tensors = zip(target.names, target.weights, strict=True)
    return save({name: np.ascontiguousarray(weight.T) for name, weight in tensors}, metadata={"format": "pt"})


def check_weights(tensors: Mapping[str, np.ndarray], where: str) -> None:
    """Refuse tensors [out, in] that are no network: empty, not float32, not finite, or not in a chain."""
    if not tensors:
        raise InputError(f"{where} has no layers; give at least one")
    inputs = None
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or tensor.size == 0:
            raise InputError(
                f"{name} of {where} has shape {list(tensor.shape)}; a layer is a matrix [out, in] that is not empty"
            )
        if tensor.dtype != np.float32:
            raise InputError(f"{name} of {where} holds {tensor.dtype} numbers; convert them to float32")
        if inputs is not None and tensor.shape[1] != inputs:
            raise InputError(
                f"{name} of {where} takes {tensor.shape[1]} inputs, but the layer before it has {inputs}"
                f" outputs ({_shapes(tensors)}); the layers [out, in] must fit together"
            )
        inputs = tensor.shape[0]
        bad = int(np.count_nonzero(~np.isfinite(tensor)))
        if bad:
            raise InputError(
                f"{name} of {where} has {bad} weights that are NaN, infinite or beyond float32; train it again"
            )


def _read(path: Path, where: str) -> dict[str, np.ndarray]:
    """All tensors of a file as float32; raises InputError."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        raise InputError(f"{where} does not end in .safetensors; convert it with safetensors.torch.save_file")
    if not path.is_file():
        raise InputError(f"{where} does not exist or is not a file; check the path")
    try:
        with safe_open(path, framework="numpy") as file:
            names = sorted(file.keys())
            kinds = {name: file.get_slice(name).get_dtype() for name in names}
            wrong = [f"{name} is {kind}" for name, kind in kinds.items() if kind not in FLOATS]
            if wrong:
                raise InputError(f"{where} holds numbers that are no floats ({', '.join(wrong)}); save it as float32")
            with np.errstate(over="ignore"):  # what overflows is refused as infinite, by name
                return {name: np.asarray(file.get_tensor(name)).astype(np.float32) for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{where} is no readable safetensors file ({error}); export it again") from None


def _listing(expected: Mapping[str, object]) -> str:
    """Names and shapes in words: "fc1.weight [500, 784], ..."."""
    return ", ".join(f"{name} {shape}" for name, shape in expected.items()) or "nothing"


def _shapes(tensors: Mapping[str, np.ndarray]) -> str:
    """The listing of what was found."""
    return _listing({name: list(tensor.shape) for name, tensor in tensors.items()})
