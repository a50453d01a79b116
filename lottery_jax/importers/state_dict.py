"""Targets from safetensors files in PyTorch layout, with PyTorch's usual names; and back into such files.

A model's file whose graph is unknown: which of its tensors are approximated.
"""

import fnmatch
import math
import os
from pathlib import Path

from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import in_order
from lottery_jax.io.files import write_atomically
from lottery_jax.io.tensor_file import FLOATS, Tensor, TensorFile, View
from lottery_jax.networks.architectures import ARCHITECTURES, architecture, mlp
from lottery_jax.networks.layers.normalization import Normalize
from lottery_jax.networks.layers.tensor_dict import NamedTensor, TensorDict
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target

Shapes = dict[str, tuple[int, ...]]

_SHOWN = 6  # tensors that a sentence lists


def import_target(
    path: str | os.PathLike[str],
    given: Spec,
    classes: int,
    *,
    name: str | None = None,
    width: float = 1.0,
    normalize: Normalize | None = None,
) -> Target:
    """Read the network of a .safetensors file; raises `InputError` where names or shapes do not fit.

    given, classes: those of the data set. name: its architecture (`networks.zoo`); if left out it is guessed from the
    names: layers that follow each other (`fc1.weight`, `0.weight`, `net.2.bias`, [out, in]) are an MLP, other names
    those
    of the zoo, at the width that the shapes have. Counters (`num_batches_tracked`) are ignored. The tensors stay in the
    file, in their own types.
    """
    path = Path(path)
    where = f"the target file {str(path)!r}"
    if path.suffix != ".safetensors":
        raise InputError(f"{where} does not end in .safetensors; convert it with safetensors.torch.save_file")
    file = TensorFile(path)
    tensors = {n: tensor for n, tensor in file.tensors.items() if n.rpartition(".")[2] != "num_batches_tracked"}
    wrong = [f"{n} is {tensor.dtype}" for n, tensor in tensors.items() if tensor.dtype not in FLOATS]
    if wrong:
        raise InputError(f"{where} holds numbers that are no floats ({_some(wrong)}); save it as float32")
    shapes = {n: tensor.shape for n, tensor in tensors.items()}
    if name is not None:
        network = architecture(name, given, classes, width=width, normalize=normalize)
    else:
        name, network = _guess(shapes, given, classes, normalize, where)
    if network.tensors != shapes:
        raise InputError(f"{where} is no {name}: {_differences(network.tensors, shapes)}")
    if network.output_spec is None or network.output_spec.shape != (classes,):
        raise InputError(
            f"{where} gives {network.output_spec}, but the data set has {classes} classes; choose another --data"
        )
    return Target(network, View(file, {n: n for n in network.tensors}))


def target_like(
    source: Network, path: str | os.PathLike[str], *, name: str | None = None, width: float = 1.0
) -> Target:
    """The target in a file that a ticket's source may have been made for; raises `InputError`.

    Of a model whose graph is unknown, the tensors of the source's names. What a network is given, its classes and the
    normalisation of its inputs are taken from the source, for no such file holds them.
    """
    if source.input_spec is None or source.output_spec is None:
        file = TensorFile(path)
        missing = [tensor for tensor in source.target.tensors if tensor not in file.tensors]
        if missing:
            raise InputError(
                f"the target file {str(path)!r} does not hold {_some(missing)}; choose the model's own file"
            )
        return Target(source.target, View(file, {tensor: tensor for tensor in source.target.tensors}))
    normalize = next((node for _, node in source.nodes() if isinstance(node, Normalize)), None)
    return import_target(
        path, source.input_spec, source.output_spec.shape[-1], name=name, width=width, normalize=normalize
    )


def export_target(target: Target, path: str | os.PathLike[str]) -> None:
    """Write a target as safetensors in PyTorch layout, whole or not at all, in the types that it has.

    >>> import numpy as np, tempfile
    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_target(mlp_target([np.ones((3, 4), np.float32)]), f"{folder}/target.safetensors")
    ...     import_target(f"{folder}/target.safetensors", Spec((4,)), 3).network.tensors
    {'fc1.weight': (3, 4)}
    """
    write_atomically(Path(path), target_bytes(target))


def target_bytes(target: Target) -> bytes:
    """The content of the file that `export_target` writes."""
    from safetensors.numpy import save

    return save({name: target.array(name) for name in target.network.tensors}, metadata={"format": "pt"})


def _guess(shapes: Shapes, given: Spec, classes: int, normalize: Normalize | None, where: str) -> tuple[str, Network]:
    """The network that a file's names and shapes plainly are, and what it is called."""
    layers = _mlp_layers(shapes)
    if layers:
        sizes = [shapes[f"{layers[0]}.weight"][1], *(shapes[f"{name}.weight"][0] for name in layers)]
        if (sizes[0], sizes[-1]) != (math.prod(given.shape), classes):
            raise InputError(
                f"{where} maps {sizes[0]} inputs to {sizes[-1]} classes ({_some(_shown(shapes))}), but the data set has"
                f" {math.prod(given.shape)} inputs and {classes} classes; choose the right one with --data"
            )
        return "mlp", mlp(sizes, given, bias=[f"{layer}.bias" in shapes for layer in layers], names=layers)
    for known in ARCHITECTURES:
        try:
            network = architecture(known, given, classes, normalize=normalize)
        except InputError:
            continue  # not for examples of this shape
        if set(network.tensors) != set(shapes) or _mlp_layers(network.tensors):
            continue  # an MLP of layers that do not follow each other is none
        sizes = {(shapes[name][0], shape[0]) for name, shape in network.tensors.items() if shapes[name]}
        for width in _widths(sizes) if network.tensors != shapes else ():
            scaled = architecture(known, given, classes, width=width, normalize=normalize)
            if scaled.tensors == shapes:
                return known, scaled
        return known, network
    raise InputError(
        f"{where} holds {_some(_shown(shapes))}, which is plainly none of the known architectures for this data set;"
        " name it with --architecture, or approximate its tensors alone with --model"
    )


def _widths(sizes: set[tuple[int, int]]) -> list[float]:
    """Multipliers that may make layers of their full sizes as wide as was found: (found, full).

    Widths are rounded, so that many multipliers make the same network; the least of them is where one of its layers is
    just rounded up.
    """
    least = {(found - 0.5) / full * (1 + 1e-9) for found, full in sizes if found}
    return sorted({found / full for found, full in sizes if found} | least)


def _mlp_layers(shapes: Shapes) -> list[str]:
    """Names of the layers, in natural order, where all tensors are matrices that chain, and their biases; else none."""
    # Sorted first: a file keeps no order that would mean anything.
    layers = in_order(sorted(name.removesuffix(".weight") for name in shapes if name.endswith(".weight")))
    biases = {f"{name}.bias" for name in layers}
    inputs = None
    for name in layers:
        shape, bias = shapes[f"{name}.weight"], shapes.get(f"{name}.bias")
        if len(shape) != 2 or 0 in shape or inputs not in (None, shape[1]) or bias not in (None, shape[:1]):
            return []
        inputs = shape[0]
    return layers if set(shapes) <= biases | {f"{name}.weight" for name in layers} else []


def _differences(expected: Shapes, found: Shapes) -> str:
    """What does not fit, in words: expected beside found."""
    missing = _shown({name: shape for name, shape in expected.items() if name not in found})
    foreign = _shown({name: shape for name, shape in found.items() if name not in expected})
    others = [
        f"{name} is {list(found[name])} in place of {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    parts = [
        (f"it lacks {_some(missing)}", missing),
        (f"it holds {_some(foreign)}, which has no place there", foreign),
        (_some(others), others),
    ]
    return "; ".join(words for words, given in parts if given)


def _shown(shapes: Shapes) -> list[str]:
    return [f"{name} {list(shape)}" for name, shape in shapes.items()]


def _some(words: list[str]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return (", ".join(words[:_SHOWN]) or "nothing") + more


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
    bag = TensorDict(tuple((tensor.name, NamedTensor(tensor.shape)) for tensor in chosen))
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
