"""Which architecture has the tensors of a state dict: by names without the prefixes of wrappers, else by shapes."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping

from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import natural_order
from lottery_jax.importers.state_tensors import Shapes, listed_first
from lottery_jax.networks.architectures import ARCHITECTURES, architecture
from lottery_jax.networks.layers.normalization import Normalize
from lottery_jax.networks.layers.pooling import Flatten
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Node, Spec, child_path

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Names that PyTorch's wrappers (DataParallel, compile, FSDP, checkpointing) put into paths."""


@dataclasses.dataclass(frozen=True)
class Match:
    """A network with the tensors of a state dict.

    `names` are the names of its tensors in the state dict. `how` says how they differ, in words.
    """

    network: Network
    names: dict[str, str]
    how: str = ""


def match_names(network: Network, shapes: Shapes) -> Match | None:
    """The network with these tensors by name, with or without the biases of its linear layers; None if others exist.

    Prefixes that are common to all names, and those of wrappers, may be removed.
    """
    for how, plain in _plain_names(shapes):
        changed = _with_biases(network, plain)
        if {name: shapes[old] for name, old in plain.items()} == changed.tensors:
            return Match(changed, {name: plain[name] for name in changed.tensors}, how)
    return None


def match_shapes(network: Network, shapes: Shapes) -> Match | None:
    """The network with these tensors, whatever their names: None unless their shapes fit in one way.

    Layers of equal shapes must have names that differ only in their numbers, and are taken in the order of these.
    """
    layers: dict[tuple, list[str]] = collections.defaultdict(list)
    for path, node in network.nodes():
        if node.tensors():
            layers[_signature(node.tensors())].append(path)
    stored: dict[str, Shapes] = collections.defaultdict(dict)
    for name, shape in shapes.items():
        stem, _, tensor = name.rpartition(".")
        stored[stem][tensor] = shape
    found: dict[tuple, list[str]] = collections.defaultdict(list)
    for stem in natural_order(sorted(stored)):
        found[_signature(stored[stem])].append(stem)
    if {key: len(paths) for key, paths in layers.items()} != {key: len(stems) for key, stems in found.items()}:
        return None
    names = {}
    for key, stems in found.items():
        if len({re.sub(r"\d+", "#", stem) for stem in stems}) > 1:
            return None
        for path, stem in zip(layers[key], stems, strict=True):
            names |= {child_path(path, tensor): child_path(stem, tensor) for tensor in stored[stem]}
    changed = _with_biases(network, names)
    if {name: shapes[old] for name, old in names.items()} != changed.tensors:
        return None
    pairs = [f"{stem} is {path}" for key in layers for path, stem in zip(layers[key], found[key], strict=True)]
    return Match(changed, {name: names[name] for name in changed.tensors}, f"by their shapes: {listed_first(pairs)}")


def fitting(
    shapes: Shapes, input_spec: Spec, classes: int, normalize: Normalize | None
) -> tuple[dict[str, Match], tuple[str, Network] | None]:
    """The known architectures with these tensors, by name; those whose names fit, if there are some.

    Returns:
        The fitting ones, and the nearest one that has the names but not the shapes, or None.
    """
    by_names: dict[str, Match] = {}
    by_shapes: dict[str, Match] = {}
    nearest, least = None, math.inf
    for known in ARCHITECTURES:
        try:
            network = architecture(known, input_spec, classes, normalize=normalize)
        except InputError:
            continue  # not for examples of this shape
        if mlp_layers(network.tensors):
            continue  # its names and sizes are taken from the file
        plain = _same_names(network, shapes)
        if plain is None and _axes(network.tensors) != _axes(shapes):
            continue
        for width in (1.0, *_widths(network, shapes, plain)):
            full = network if width == 1 else architecture(known, input_spec, classes, width=width, normalize=normalize)
            match = match_shapes(full, shapes) if plain is None else match_names(full, shapes)
            if match is not None:
                found = by_shapes if plain is None else by_names
                if match not in found.values():
                    found[known] = match
                break
            named = full.tensors.items() if plain else ()
            wrong = sum(shapes[plain[name]] != shape for name, shape in named if name in plain)  # type: ignore[index]
            if plain and wrong < least:
                nearest, least = (known, full), wrong
    return by_names or by_shapes, nearest


def first_difference(network: Network, shapes: Shapes) -> str:
    """The first tensor that differs from the network's, in words, and the number of others."""
    expected: Shapes = {}
    found: Shapes = {}
    for _, plain in _plain_names(shapes):
        tensors = _with_biases(network, plain).tensors
        if not expected or len(plain.keys() & tensors.keys()) > len(found.keys() & expected.keys()):
            expected, found = tensors, {name: shapes[old] for name, old in plain.items()}
    texts = []
    for name, shape in expected.items():
        if found.get(name) != shape:
            got = list(found[name]) if name in found else "no such tensor"
            texts.append(f"{name} must be {list(shape)}, got {got}")
    texts += [f"{name} {list(shape)} must not exist" for name, shape in found.items() if name not in expected]
    return texts[0] + (f" ({len(texts) - 1} more)" if len(texts) > 1 else "")


def mlp_layers(shapes: Shapes) -> list[str]:
    """The layers' names in natural order if all tensors are matrices that chain and their biases, else none.

    >>> mlp_layers({"fc2.weight": (2, 3), "fc1.weight": (3, 4), "fc1.bias": (3,)})
    ['fc1', 'fc2']
    """
    # Sorted first: the order of a file has no meaning.
    layers = natural_order(sorted(name.removesuffix(".weight") for name in shapes if name.endswith(".weight")))
    biases = {f"{name}.bias" for name in layers}
    inputs = None
    for name in layers:
        shape, bias = shapes[f"{name}.weight"], shapes.get(f"{name}.bias")
        if len(shape) != 2 or 0 in shape or inputs not in (None, shape[1]) or bias not in (None, shape[:1]):
            return []
        inputs = shape[0]
    if "" in layers:  # a tensor ".weight", whose layer has no name
        return []
    return layers if set(shapes) <= biases | {f"{name}.weight" for name in layers} else []


def flattened_images(network: Network) -> dict[str, tuple[int, ...]]:
    """The images [H, W, C] that linear layers read as vectors, by the path of the layer.

    >>> from lottery_jax.networks.architectures import mlp
    >>> flattened_images(mlp((12, 3, 2), Spec((2, 2, 3))))
    {'fc1': (2, 2, 3)}
    """
    found, image = {}, None
    for path, node in network.nodes():
        if isinstance(node, Flatten) and (spec := network.input_spec_of(path)) is not None:
            image = spec.shape if len(spec.shape) == 3 else None
        elif isinstance(node, LinearLayer) and image is not None:
            found[path], image = image, None
    return found


def _plain_names(names: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Names without prefixes, by steps: what was removed in words, and the old name of each new one."""
    old = {name: name for name in names}
    yield "", old
    plain = {".".join(part for part in name.split(".") if part not in _WRAPPERS): name for name in old}
    removed = [part for part in sorted(_WRAPPERS) if any(part in name.split(".") for name in old)]
    if removed and len(plain) == len(old):
        yield f"without {' and '.join(map(repr, removed))} in their names", plain
    else:
        plain = old
    prefix = ""
    while plain:
        starts = {name.partition(".")[0] for name in plain}
        if len(starts) != 1 or not all("." in name for name in plain):
            return
        prefix += f"{starts.pop()}."
        plain = {name.partition(".")[2]: before for name, before in plain.items()}
        yield f"without the prefix {prefix!r} of their names", plain


def _with_biases(network: Network, names: Mapping[str, object]) -> Network:
    """The network whose linear layers have biases exactly if these names of tensors contain them."""

    def changed(path: str, node: Node) -> Node:
        if not isinstance(node, LinearLayer) or node.bias == (child_path(path, "bias") in names):
            return node
        return dataclasses.replace(node, bias=not node.bias)  # type: ignore[type-var]

    return network.map_layers(changed)


def _signature(tensors: Mapping[str, tuple[int, ...]]) -> tuple:
    """Names and shapes of a layer's tensors, without the bias of a linear layer."""
    linear = len(tensors.get("weight", ())) > 1
    return tuple(sorted((name, shape) for name, shape in tensors.items() if not (linear and name == "bias")))


def _same_names(network: Network, shapes: Shapes) -> dict[str, str] | None:
    """The names in the state dict, without biases, if they are the network's; else None."""
    for _, plain in _plain_names(shapes):
        changed = _with_biases(network, plain)
        if set(changed.tensors) == set(plain):
            return plain
    return None


def _axes(shapes: Mapping[str, tuple[int, ...]]) -> dict[int, int]:
    """How many tensors have 2, 3, ... axes: equal for two widths of an architecture."""
    return collections.Counter(len(shape) for shape in shapes.values() if len(shape) > 1)


def _widths(network: Network, shapes: Shapes, plain: dict[str, str] | None) -> list[float]:
    """Width multipliers that may map the network's sizes to found ones.

    Widths are rounded, so many multipliers make one network; the least of them just rounds one of its layers up.
    """
    if plain is not None:
        known = {name: old for name, old in plain.items() if name in network.tensors and shapes[old]}
        sizes = {(shapes[old][0], network.tensors[name][0]) for name, old in known.items()}
    else:
        full = {shape[0] for shape in network.tensors.values() if len(shape) > 1}
        sizes = {(shape[0], size) for shape in shapes.values() if len(shape) > 1 for size in full}
    least = {(found - 0.5) / full * (1 + 1e-9) for found, full in sizes if found}
    return sorted({found / full for found, full in sizes if found} | least)
