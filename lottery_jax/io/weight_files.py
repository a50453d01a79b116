"""Weights as people have them: a safetensors file, an index of several such files, or the folder that holds them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lottery_jax.errors import InputError, shown
from lottery_jax.io.files import read_regular
from lottery_jax.io.foreign_files import foreign_file
from lottery_jax.io.tensor_file import FormatError, TensorFile, TensorInfo

_INDEX = ".safetensors.index.json"
_MAX_INDEX_BYTES = 1 << 26
_MAX_SHARDS = 512  # each is an open file
_SHOWN_FILES = 4


class ShardedTensors:
    """The tensors of several safetensors files, as the index of a sharded model names them.

    Args:
        index: The file `*.safetensors.index.json`, which maps the name of each tensor to a file in its folder.

    Raises:
        InputError: The index is not one, or a file or a tensor that it names is missing.
    """

    def __init__(self, index: Path) -> None:
        self.path, self.where = index, f"the index {str(index)!r}"
        self._files: dict[str, TensorFile] = {}
        tensors: dict[str, TensorInfo] = {}
        self._shards = _weight_map(index, self.where)
        for name, shard in self._shards.items():
            if shard not in self._files:
                if not (index.parent / shard).exists():
                    raise InputError(
                        f"{self.where} names the shard {shard!r}, which does not exist. Download all shards into its"
                        " folder."
                    )
                self._files[shard] = _open_file(index.parent / shard)
            if name not in self._files[shard].tensors:
                raise InputError(
                    f"{self.where} names the tensor {name!r} in the shard {shard!r}, which lacks it. Download both"
                    " again."
                )
            tensors[name] = self._files[shard].tensors[name]
        self.tensors: Mapping[str, TensorInfo] = tensors

    def read(self, name: str, first: int, count: int) -> np.ndarray:
        """As ``TensorFile.read``."""
        return self._files[self._shards[name]].read(name, first, count)


WeightFile = TensorFile | ShardedTensors


def open_tensors(path: str | os.PathLike[str]) -> WeightFile:
    """The tensors of a file, of the index of a sharded model, or of the folder of either.

    Raises:
        InputError: The file cannot be read. A file of another format is named with the command that converts it.
    """
    found = Path(path)
    if found.is_dir():
        found = _in_folder(found)
    if found.name.endswith(".json") and _weight_map_of(found) is not None:
        return ShardedTensors(found)
    return _open_file(found)


def _open_file(path: Path) -> TensorFile:
    try:
        return TensorFile(path)
    except FormatError:
        kind = foreign_file(path)
        if kind is None:
            raise
        raise FormatError(f"the file {str(path)!r} must be a safetensors file, got {kind}") from None


def _in_folder(folder: Path) -> Path:
    """The index in a folder, else its only safetensors file."""
    names = sorted(entry.name for entry in folder.iterdir())
    for ending, kind in ((_INDEX, "index"), (".safetensors", "safetensors file")):
        found = [name for name in names if name.endswith(ending)]
        if "model" + ending in found or len(found) == 1:
            return folder / ("model" + ending if "model" + ending in found else found[0])
        if found:
            words = ", ".join(found[:_SHOWN_FILES]) + (", ..." if len(found) > _SHOWN_FILES else "")
            raise InputError(
                f"the folder {str(folder)!r} must have one {kind}, got {len(found)}: {words}. Name one of them."
            )
    for name in names:  # pytorch_model.bin, model.onnx: named as what it is
        if (folder / name).is_file() and not name.endswith(".json") and (kind := foreign_file(folder / name)):
            raise InputError(f"the folder {str(folder)!r} has no safetensors file, but {name!r}, {kind}")
    raise InputError(f"the folder {str(folder)!r} has no safetensors file. Name the file of the weights.")


def _weight_map_of(path: Path) -> object:
    """The `weight_map` of a JSON file; None if the file has none."""
    content = read_regular(path, _MAX_INDEX_BYTES + 1)
    if len(content) > _MAX_INDEX_BYTES:
        raise InputError(f"the index {str(path)!r} must have at most {_MAX_INDEX_BYTES:,} bytes. Choose another file.")
    try:
        row = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return row.get("weight_map") if isinstance(row, dict) else None


def _weight_map(index: Path, where: str) -> dict[str, str]:
    """The file name of each tensor; the index is untrusted, so that each must be a plain name in its own folder."""
    found = _weight_map_of(index)
    if not isinstance(found, dict) or not found:
        raise InputError(f"the weight_map of {where} must map tensors to files, got {shown(found)}. Download it again.")
    for shard in found.values():
        plain = isinstance(shard, str) and shard.isprintable() and shard == Path(shard).name
        if not plain or "\\" in shard or not shard.endswith(".safetensors"):
            raise InputError(
                f"the weight_map of {where} must name .safetensors files in its own folder, got {shown(shard)}."
                " Download it again."
            )
    if len(set(found.values())) > _MAX_SHARDS:
        raise InputError(f"{where} must name at most {_MAX_SHARDS} files, got {len(set(found.values()))}. Merge them.")
    return found
