"""Targets from safetensors files with PyTorch's or Flax's names and layout, and back into such files."""

import dataclasses
import fnmatch
import math
import os
from pathlib import Path

from lottery_jax.errors import InputError
from lottery_jax.importers.agreement import TARGET_FROM, Original, check_on_random_inputs
from lottery_jax.importers.architecture_match import (
    Match,
    first_difference,
    fitting,
    flattened_images,
    match_names,
    match_shapes,
    mlp_layers,
)
from lottery_jax.importers.onnx_target import import_onnx, is_onnx
from lottery_jax.importers.state_tensors import Shapes, StateTensors, listed_first, read_state, reparametrisations
from lottery_jax.io.files import write_atomically
from lottery_jax.io.tensor_file import FLOAT_DTYPES, RenamedTensors
from lottery_jax.io.weight_files import open_tensors
from lottery_jax.networks.architectures import architecture, mlp
from lottery_jax.networks.layers.normalization import Normalize
from lottery_jax.networks.layers.tensor_dict import NamedTensor, TensorDict
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec, checked_spec, child_path
from lottery_jax.networks.target import Target

_WAYS = (
    "Name it with --architecture (FILE.py:FUNCTION for a Network of your own), import the module with"
    " lottery_jax.target_from(module, example), or approximate its tensors with --model."
)


def import_target(
    path: str | os.PathLike[str],
    input_spec: Spec,
    classes: int,
    *,
    name: str | None = None,
    width: float = 1.0,
    normalize: Normalize | None = None,
    same_as: Original | None = None,
) -> Target:
    """The target in a safetensors file; its tensors stay in the file, in their own dtypes.

    Names may have the prefixes of PyTorch's wrappers or a common one. Linear layers may lack biases. Kernels of Flax
    are transposed, masks of `torch.nn.utils.prune` and weight normalisations are applied.

    Args:
        path: The file; the index of a sharded model (`model.safetensors.index.json`); the folder of either; or an .onnx
            file, which has its own graph and is proven as in `target_from`.
        input_spec: The input, that of the data set.
        classes: Outputs, the classes of the data set.
        name: Architecture (`networks.architectures`). By default it is inferred from names and shapes: consecutive
            layers (`fc1.weight`, `0.weight`, `net.2.bias`) are an MLP, others the only known architecture that fits.
        width: Multiplier of all hidden widths, if `name` is given.
        normalize: First node of architectures that normalise their inputs.
        same_as: The original, x [B, *input_spec.shape] -> outputs [B, classes]. The target is refused unless both have
            the same outputs on random inputs.

    Raises:
        InputError: If the file is not one of weights, or they do not fit. The first difference is named.
    """
    checked_spec(input_spec)
    if is_onnx(path):
        return _onnx_target(path, input_spec, classes, name, width)
    state = read_state(path)
    if name is None:
        name, match = _inferred(state, input_spec, classes, normalize)
    else:
        match = _named(state, architecture(name, input_spec, classes, width=width, normalize=normalize), name)
    network = match.network
    if network.output_spec is None or network.output_spec.shape != (classes,):
        outputs = network.output_spec and list(network.output_spec.shape)
        raise InputError(f"{state.where} must have {classes} outputs, got {outputs}. Choose another data set (--data).")
    assumed = f"{state.where} holds no graph: {name} is assumed with its activations, "
    assumed += "ReLU between the layers" if name == "mlp" else "poolings and order"
    notes = "; ".join([assumed, *filter(None, [match.how]), *state.notes])
    if same_as is None:
        return _target(state, match, (notes,))
    target = _target(state, match)
    check_on_random_inputs(target, same_as, what="same_as", advice=f"Note that {notes}. {TARGET_FROM}")
    return target


def _onnx_target(
    path: str | os.PathLike[str], input_spec: Spec, classes: int, name: str | None, width: float
) -> Target:
    if name is not None or width != 1.0:
        raise InputError("--architecture and --width must be omitted for an ONNX file, which has its own graph")
    target = import_onnx(path, input_spec).target
    outputs = target.network.output_spec
    if outputs is None or outputs.shape != (classes,):
        raise InputError(
            f"{str(path)!r} must have {classes} outputs, got {outputs and list(outputs.shape)}. Choose another data set"
            " (--data)."
        )
    return target


def target_like(
    source: Network, path: str | os.PathLike[str], *, name: str | None = None, width: float = 1.0
) -> Target:
    """The target in a file, for a ticket's source: its input, classes and normalisation are taken from the source.

    If its graph is unknown, the target has the tensors of its names. `name` and `width` are those of `import_target`.
    """
    if source.input_spec is None or source.output_spec is None:
        file = open_tensors(path)
        names = {name: name for name in source.target.tensors}
        missing = [name for name in names if name not in file.tensors]
        if missing:
            raise InputError(f"{file.where} must hold {listed_first(missing)}. Choose the file of the model.")
        return Target(source.target, RenamedTensors(file, names))
    normalize = next((node for _, node in source.nodes() if isinstance(node, Normalize)), None)
    return import_target(
        path, source.input_spec, source.output_spec.shape[-1], name=name, width=width, normalize=normalize
    )


def target_of_network(network: Network, path: str | os.PathLike[str]) -> Target | None:
    """The target of a network with the tensors in a file; None if the file has tensors of other names or shapes."""
    if is_onnx(path):
        return None if network.input_spec is None else import_onnx(path, network.input_spec).target
    state = read_state(path)
    match = match_names(network, state.shapes) or match_shapes(network, state.shapes)
    return _target(state, match) if match is not None and match.network == network else None


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


def _inferred(state: StateTensors, input_spec: Spec, classes: int, normalize: Normalize | None) -> tuple[str, Match]:
    """The architecture of these names and shapes, and the network with its tensors."""
    shapes = state.shapes
    if layers := mlp_layers(shapes):
        inputs, outputs = shapes[f"{layers[0]}.weight"][1], shapes[f"{layers[-1]}.weight"][0]
        if (inputs, outputs) != (math.prod(input_spec.shape), classes):
            raise InputError(
                f"{state.where} maps {inputs} inputs to {outputs} classes ({_listed(shapes)}), but the data set has"
                f" {math.prod(input_spec.shape)} inputs and {classes} classes. Choose another data set (--data)."
            )
        return "mlp", _mlp(shapes, layers, input_spec)
    found, nearest = fitting(shapes, input_spec, classes, normalize)
    if len(found) > 1:
        raise InputError(
            f"{state.where} must fit one architecture, but fits {' and '.join(found)}. Name it with --architecture."
        )
    if found:
        return next(iter(found.items()))
    if nearest is not None:
        raise InputError(f"{state.where} must hold a {nearest[0]}: {first_difference(nearest[1], shapes)}. {_WAYS}")
    raise InputError(f"{state.where} must hold a known architecture for this data set, got {_listed(shapes)}. {_WAYS}")


def _named(state: StateTensors, network: Network, name: str) -> Match:
    """A named architecture with these tensors."""
    own, layers = mlp_layers(network.tensors), mlp_layers(state.shapes)
    assert network.input_spec is not None
    if own and layers and _mlp(network.tensors, own, network.input_spec).network == network:
        # The network has the names of the file, as without the name of the architecture.
        match = _mlp(state.shapes, layers, network.input_spec)
        weights = [[shape for shape in each.tensors.values() if len(shape) > 1] for each in (match.network, network)]
        if weights[0] == weights[1]:
            return match
    match = match_names(network, state.shapes) or match_shapes(network, state.shapes)
    if match is None:
        raise InputError(
            f"{state.where} must hold a {name}: {first_difference(network, state.shapes)}. Check --architecture,"
            " --width and --data."
        )
    return match


def _mlp(shapes: Shapes, layers: list[str], input_spec: Spec) -> Match:
    """The MLP of these layers."""
    sizes = [shapes[f"{layers[0]}.weight"][1], *(shapes[f"{name}.weight"][0] for name in layers)]
    network = mlp(sizes, input_spec, bias=[f"{layer}.bias" in shapes for layer in layers], names=layers)
    return Match(network, {name: name for name in network.tensors})


def _target(state: StateTensors, match: Match, notes: tuple[str, ...] = ()) -> Target:
    """The target with its tensors in the file; inputs of Flax's layers behind an image are put channels first."""
    views = {new: state.views[old] for new, old in match.names.items()}
    for layer, image in flattened_images(match.network).items() if state.is_flax else ():
        weight = child_path(layer, "weight")
        views[weight] = dataclasses.replace(views[weight], image=image)
    return Target(match.network, RenamedTensors(state.reader, views), notes=notes)


def _listed(shapes: Shapes) -> str:
    return listed_first([f"{name} {list(shape)}" for name, shape in shapes.items()])


def load_model(path: str | os.PathLike[str], pattern: str | None = None) -> tuple[Target, dict[str, str]]:
    """The tensors of a safetensors file to approximate, without the graph of the model; they stay in the file.

    Args:
        path: The file; the index of a sharded model (`model.safetensors.index.json`); or the folder of either.
        pattern: Case-sensitive shell pattern (* ? [abc]) of the names of float tensors. By default all 2-D and 4-D
            float tensors are chosen: matrices, embeddings and convolutions.

    Returns:
        The target, in the order of the file, and the reason for each skipped tensor.
    """
    file = open_tensors(path)
    chosen, skipped = {}, {}
    for name, tensor in file.tensors.items():
        if not name:
            skipped[name] = "its name is empty"
        elif pattern is not None and not fnmatch.fnmatchcase(name, pattern):
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
        found = listed_first([f"{name} ({reason})" for name, reason in skipped.items()])
        raise InputError(f"{file.where} must hold {expected}, got {found}. Choose others with --pattern.")
    for one in reparametrisations(file.tensors):
        if not chosen.keys().isdisjoint(one.parts):
            raise one.refused(file.where)
    model = Network(TensorDict(tuple(chosen.items())))
    return Target(model, RenamedTensors(file, {name: name for name in chosen})), skipped
