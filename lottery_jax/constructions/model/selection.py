"""Which tensors of a safetensors file are approximated, and what is known of each after one pass over it."""

import dataclasses
import fnmatch
import hashlib
import math

import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.tensor_file import FLOATS, Tensor, TensorFile

_SLICE = 1 << 20  # weights looked at at once


@dataclasses.dataclass(frozen=True)
class Scanned:
    """A tensor's largest |weight|, and the SHA-256 of its bytes."""

    largest: float
    sha256: str


def select(file: TensorFile, pattern: str | None = None) -> tuple[list[Tensor], dict[str, str]]:
    """The tensors to approximate, in the order of the file, and why each of the others is not.

    Without a pattern, all 2-D and 4-D float tensors: matrices, embeddings and convolutions. With one (shell
    wildcards: * ? [abc], letters as they are), every float tensor whose name matches. Raises `InputError` for none.
    """
    chosen, skipped = [], {}
    for tensor in file.tensors.values():
        reason = _reason(tensor, pattern)
        if reason:
            skipped[tensor.name] = reason
        else:
            chosen.append(tensor)
    if not chosen:
        asked = "no 2-D or 4-D float tensor" if pattern is None else f"no float tensor that matches {pattern!r}"
        listed = ", ".join(f"{name} ({reason})" for name, reason in list(skipped.items())[:5]) or "nothing"
        more = f" and {len(skipped) - 5} more" if len(skipped) > 5 else ""
        raise InputError(f"{file.where} holds {asked}, but {listed}{more}; choose others with --pattern")
    return chosen, skipped


def _reason(tensor: Tensor, pattern: str | None) -> str | None:
    if pattern is not None and not fnmatch.fnmatchcase(tensor.name, pattern):
        return "its name does not match"
    if tensor.dtype not in FLOATS:
        return f"its numbers are {tensor.dtype}, not {', '.join(FLOATS)}"
    if tensor.size == 0 or not tensor.shape:
        return f"its shape is {list(tensor.shape)}"
    if pattern is None and len(tensor.shape) not in (2, 4):
        return f"it is {len(tensor.shape)}-D"
    return None


def scan(file: TensorFile, tensor: Tensor) -> Scanned:
    """One pass over a tensor, slice by slice; refuses weights that are no numbers or beyond float32."""
    sha, largest, bad = hashlib.sha256(), 0.0, 0
    for start in range(0, tensor.size, _SLICE):
        count = min(_SLICE, tensor.size - start)
        sha.update(file.read(tensor.name, start, count).data)
        size = np.abs(file.read_float64(tensor.name, start, count))
        fine = size <= float(np.finfo(np.float32).max)  # false for NaN
        bad += count - int(np.count_nonzero(fine))
        largest = max(largest, float(size.max(initial=0.0, where=fine)))
    if bad:
        raise InputError(
            f"tensor {tensor.name!r} of {file.where} has {bad:,} of {tensor.size:,} weights that are NaN, infinite"
            " or beyond float32; repair it, or leave it out with --pattern"
        )
    assert math.isfinite(largest)
    return Scanned(largest, sha.hexdigest())
