"""Targets from safetensors files with PyTorch's names and layout, and back into such files."""

import fnmatch
import math
import os
from pathlib import Path

from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import natural_order
from lottery_jax.io.files import write_atomically
from lottery_jax.io.tensor_file import FLOAT_DTYPES, RenamedTensors, TensorFile
from lottery_jax.networks.architectures import ARCHITECTURES, architecture, mlp
from lottery_jax.networks.layers.normalization import Normalize
from lottery_jax.networks.layers.tensor_dict import NamedTensor, TensorDict
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target

Shapes = dict[str, tuple[int, ...]]
_SHOWN_TENSORS = 6  # in a message


def import_target(
    path: str | os.PathLike[str],
    input_spec: Spec,
    classes: int,
    *,
    name: str | None = None,
    width: float = 1.0,
    normalize: Normalize | None = None,
) -> Target:
    """The target in a .safetensors file; its tensors stay in the file, in their own dtypes.

    Args:
        path: The file. `num_batches_tracked` is ignored.
        input_spec: The input, that of the data set.
        classes: Outputs, the classes of the data set.
        name: Architecture (`networks.architectures`). By default it is inferred from names and shapes: consecutive
            layers (`fc1.weight`, `0.weight`, `net.2.bias`) are an MLP, other names those of a known architecture.
        width: Multiplier of all hidden widths, if `name` is given.
        normalize: First node of architectures that normalise their inputs.
    """
    path = Path(path)
    where = f"the target file {str(path)!r}"
    if path.suffix != ".safetensors":
        raise InputError(f"{where} must end in .safetensors. Convert it with safetensors.torch.save_file.")
    file = TensorFile(path)
    tensors = {n: tensor for n, tensor in file.tensors.items() if n.rpartition(".")[2] != "num_batches_tracked"}
    wrong = [f"{n} is {tensor.dtype}" for n, tensor in tensors.items() if tensor.dtype not in FLOAT_DTYPES]
    if wrong:
        raise InputError(f"{where} must hold floats, got {_first(wrong)}. Save it as float32.")
    shapes = {n: tensor.shape for n, tensor in tensors.items()}
    if name is not None:
        network = architecture(name, input_spec, classes, width=width, normalize=normalize)
    else:
        name, network = _inferred(shapes, input_spec, classes, normalize, where)
    if network.tensors != shapes:
        raise InputError(f"{where} must hold a {name}, but {_differences(network.tensors, shapes)}")
    if network.output_spec is None or network.output_spec.shape != (classes,):
        outputs = network.output_spec and list(network.output_spec.shape)
        raise InputError(f"{where} must have {classes} outputs, got {outputs}. Choose another data set (--data).")
    return Target(network, RenamedTensors(file, {n: n for n in network.tensors}))


def target_like(
    source: Network, path: str | os.PathLike[str], *, name: str | None = None, width: float = 1.0
) -> Target:
    """The target in a file, for a ticket's source: its input, classes and normalisation are taken from the source.

    If its graph is unknown, the target has the tensors of its names. `name` and `width` are those of `import_target`.
    """
    if source.input_spec is None or source.output_spec is None:
        file = TensorFile(path)
        names = {name: name for name in source.target.tensors}
        missing = [name for name in names if name not in file.tensors]
        if missing:
            raise InputError(
                f"the target file {str(path)!r} must hold {_first(missing)}. Choose the file of the model."
            )
        return Target(source.target, RenamedTensors(file, names))
    normalize = next((node for _, node in source.nodes() if isinstance(node, Normalize)), None)
    return import_target(
        path, source.input_spec, source.output_spec.shape[-1], name=name, width=width, normalize=normalize
    )


def target_of_network(network: Network, path: str | os.PathLike[str]) -> Target | None:
    """The target of a network with the tensors in a file; None if the file has tensors of other names or shapes."""
    file = TensorFile(path)
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    return Target(network, RenamedTensors(file, {name: name for name in shapes})) if shapes == network.tensors else None


def export_target(target: Target, path: str | os.PathLike[str]) -> None:
    """Write a target as safetensors in PyTorch's layout, atomically, in its own dtypes.

    >>> import numpy as np, tempfile
    >>> from lottery_jax.importers.mlp_weights import mlp_target
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_target(mlp_target([np.ones((3, 4), np.float32)]), f"{folder}/target.safetensors")
    ...     import_target(f"{folder}/target.safetensors", Spec((4,)), 3).network.tensors
    {'fc1.weight': (3, 4)}
    """
    from safetensors.numpy import save

    tensors = {name: target.array(name) for name in target.network.tensors}
    write_atomically(Path(path), save(tensors, metadata={"format": "pt"}))


def _inferred(
    shapes: Shapes, input_spec: Spec, classes: int, normalize: Normalize | None, where: str
) -> tuple[str, Network]:
    """The architecture of these names and shapes, and its network."""
    layers = _mlp_layers(shapes)
    if layers:
        sizes = [shapes[f"{layers[0]}.weight"][1], *(shapes[f"{name}.weight"][0] for name in layers)]
        if (sizes[0], sizes[-1]) != (math.prod(input_spec.shape), classes):
            raise InputError(
                f"{where} maps {sizes[0]} inputs to {sizes[-1]} classes ({_first(_texts(shapes))}), but the data set"
                f" has {math.prod(input_spec.shape)} inputs and {classes} classes. Choose another data set (--data)."
            )
        return "mlp", mlp(sizes, input_spec, bias=[f"{layer}.bias" in shapes for layer in layers], names=layers)
    for known in ARCHITECTURES:
        try:
            network = architecture(known, input_spec, classes, normalize=normalize)
        except InputError:
            continue  # not for examples of this shape
        if set(network.tensors) != set(shapes) or _mlp_layers(network.tensors):
            continue  # an MLP whose layers do not chain
        sizes = {(shapes[name][0], shape[0]) for name, shape in network.tensors.items() if shapes[name]}
        for width in _widths(sizes) if network.tensors != shapes else ():
            scaled = architecture(known, input_spec, classes, width=width, normalize=normalize)
            if scaled.tensors == shapes:
                return known, scaled
        return known, network
    raise InputError(
        f"{where} must hold a known architecture for this data set, got {_first(_texts(shapes))}. Name it with"
        " --architecture, or approximate its tensors with --model."
    )


def _widths(sizes: set[tuple[int, int]]) -> list[float]:
    """Width multipliers that may map full sizes to found ones, from pairs (found, full).

    Widths are rounded, so many multipliers make one network; the least of them just rounds one of its layers up.
    """
    least = {(found - 0.5) / full * (1 + 1e-9) for found, full in sizes if found}
    return sorted({found / full for found, full in sizes if found} | least)


def _mlp_layers(shapes: Shapes) -> list[str]:
    """The layers' names in natural order if all tensors are matrices that chain and their biases, else none."""
    # Sorted first: the order of a file has no meaning.
    layers = natural_order(sorted(name.removesuffix(".weight") for name in shapes if name.endswith(".weight")))
    biases = {f"{name}.bias" for name in layers}
    inputs = None
    for name in layers:
        shape, bias = shapes[f"{name}.weight"], shapes.get(f"{name}.bias")
        if len(shape) != 2 or 0 in shape or inputs not in (None, shape[1]) or bias not in (None, shape[:1]):
            return []
        inputs = shape[0]
    return layers if set(shapes) <= biases | {f"{name}.weight" for name in layers} else []


def _differences(expected: Shapes, found: Shapes) -> str:
    """The differences of two sets of tensors in words."""
    missing = _texts({name: shape for name, shape in expected.items() if name not in found})
    foreign = _texts({name: shape for name, shape in found.items() if name not in expected})
    others = [
        f"{name} is {list(found[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    parts = (("lacks ", missing), ("has the unknown ", foreign), ("", others))
    return "; ".join(f"{verb}{_first(texts)}" for verb, texts in parts if texts)


def _texts(shapes: Shapes) -> list[str]:
    return [f"{name} {list(shape)}" for name, shape in shapes.items()]


def _first(texts: list[str]) -> str:
    """The first few, and the number of others."""
    more = f" and {len(texts) - _SHOWN_TENSORS} more" if len(texts) > _SHOWN_TENSORS else ""
    return (", ".join(texts[:_SHOWN_TENSORS]) or "nothing") + more


def load_model(path: str | os.PathLike[str], pattern: str | None = None) -> tuple[Target, dict[str, str]]:
    """The tensors of a safetensors file to approximate, without the graph of the model; they stay in the file.

    Args:
        pattern: Case-sensitive shell pattern (* ? [abc]) of the names of float tensors. By default all 2-D and 4-D
            float tensors are chosen: matrices, embeddings and convolutions.

    Returns:
        The target, in the order of the file, and the reason for each skipped tensor.
    """
    file = TensorFile(path)
    chosen, skipped = {}, {}
    for name, tensor in file.tensors.items():
        if pattern is not None and not fnmatch.fnmatchcase(name, pattern):
            skipped[name] = "its name does not match"
        elif tensor.dtype not in FLOAT_DTYPES:
            skipped[name] = f"its dtype is {tensor.dtype}, not {', '.join(FLOAT_DTYPES)}"
        elif tensor.size == 0 or not tensor.shape:
            skipped[name] = f"its shape is {list(tensor.shape)}"
        elif pattern is None and len(tensor.shape) not in (2, 4):
            skipped[name] = f"it is {len(tensor.shape)}-D"
        else:
            chosen[name] = NamedTensor(tensor.shape)
    if not chosen:
        expected = "a 2-D or 4-D float tensor" if pattern is None else f"a float tensor that matches {pattern!r}"
        found = _first([f"{name} ({reason})" for name, reason in skipped.items()])
        raise InputError(f"{file.where} must hold {expected}, got {found}. Choose others with --pattern.")
    model = Network(TensorDict(tuple(chosen.items())))
    return Target(model, RenamedTensors(file, {name: name for name in chosen})), skipped
