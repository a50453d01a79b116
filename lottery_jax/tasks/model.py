"""A model's file whose graph is unknown: which of its tensors are approximated."""

import fnmatch
import os

from lottery_jax.errors import InputError
from lottery_jax.networks.layers.bag import Bag, BagTensor
from lottery_jax.networks.network import Network
from lottery_jax.networks.target import Target
from lottery_jax.storage.store import View
from lottery_jax.storage.tensor_file import FLOATS, Tensor, TensorFile


def load_model(path: str | os.PathLike[str], pattern: str | None = None) -> tuple[Target, dict[str, str]]:
    """The tensors of a safetensors file to approximate, in its order, and why each of the others is not.

    Without a pattern, all 2-D and 4-D float tensors: matrices, embeddings and convolutions. With one (shell
    wildcards: * ? [abc], letters as they are), every float tensor whose name matches. They stay in the file.
    Raises `InputError` for none.
    """
    file = TensorFile(path)
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
    bag = Bag(tuple((tensor.name, BagTensor(tensor.shape)) for tensor in chosen))
    return Target(Network(bag), View(file, {tensor.name: tensor.name for tensor in chosen})), skipped


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
