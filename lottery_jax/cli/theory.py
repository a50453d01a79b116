"""`lottery-jax theory`: the size of the random network that each theorem requires for an architecture."""

import dataclasses
import math
from pathlib import Path
from typing import TextIO

import numpy as np

from lottery_jax.cli.messages import print_json
from lottery_jax.cli.settings import Theory
from lottery_jax.constructions.pensia import Pensia
from lottery_jax.data import load
from lottery_jax.data.datasets import CLASSES, DATASETS, SHAPES
from lottery_jax.errors import InputError, suggest
from lottery_jax.io.tensor_file import InMemoryTensors
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.layers.normalization import Normalize
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.rewrites import fold_batch_norm
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.target import Target
from lottery_jax.rng.random_tensor import DiagonalLayout
from lottery_jax.tasks.task import STATISTICS
from lottery_jax.theory.theorem import Requirement
from lottery_jax.theory.theorems import THEOREMS

_SUFFIXES = "", "K", "M", "G", "T", "P"


def run_theory(command: Theory, results: TextIO) -> int:
    """Print a row per theorem, and one for `pensia` as it is implemented."""
    network = _network(command)
    rows = [
        theorem().require(network, tolerance=command.tolerance, delta=command.delta) for theorem in THEOREMS.values()
    ]
    rows.append(pensia_requirement(network, command.candidates))
    if command.json:
        for row in rows:
            print_json({**dataclasses.asdict(row), "widest": row.widest}, results)
    else:
        _print_table(command, network, rows, results)
    return 0


def pensia_requirement(network: Network, candidates: int) -> Requirement:
    """The exact size of the source that `pensia` draws for an architecture."""
    found = Requirement(
        theorem=f"ours, n={candidates}",
        paper="the construction `pensia` as implemented",
        error="weight",
        origin="exact",
        constant=f"{candidates} candidates per weight (an option); the numbers are exact",
        covered=0,
        layers=len(network.weight_nodes),
    )
    construction = Pensia(candidates)
    try:
        zeros = InMemoryTensors({name: np.zeros(shape, np.float32) for name, shape in network.tensors.items()})
        source = construction.source(fold_batch_norm(Target(network, zeros)))
    except InputError as error:
        return dataclasses.replace(found, note=f"Not applicable: {error}.")
    gadgets = [leaf for leaf in source.sources.values() if isinstance(leaf, Gadget)]
    layouts = [leaf.random_tensors()["first"].layout for leaf in gadgets]
    first = sum(layout.inputs**2 * layout.units for layout in layouts if isinstance(layout, DiagonalLayout))
    second = sum(leaf.layer.weights * leaf.units for leaf in gadgets)
    return dataclasses.replace(
        found,
        covered=len(gadgets),
        depth=2 * len(gadgets),
        hidden=tuple((leaf.layer.inputs + leaf.layer.bias) * leaf.units for leaf in gadgets),
        source_weights=source.source_weights,
        note=f"Edges outside the block pattern are not drawn; with them there are {first + second:,} weights."
        " The kept weights depend on the target: run `approximate`.",
    )


def _network(command: Theory) -> Network:
    name = command.data
    if Path(name).suffix == ".npz":
        dataset = load(name)
        given, classes = Spec(dataset.shape, dataset.nonnegative), dataset.classes
    elif name in SHAPES:
        given, classes = Spec(SHAPES[name], True), CLASSES
    else:
        raise InputError(f"data set {name!r} is unknown; {suggest(name, DATASETS)}, or name a .npz file with images")
    constants = STATISTICS.get(name)
    normalize = None if constants is None else Normalize(*constants)
    return architecture(command.architecture, given, classes, width=command.width, normalize=normalize)


def _print_table(command: Theory, network: Network, rows: list[Requirement], results: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=results, highlight=False, markup=False)
    weights = sum(math.prod(shape) for shape in network.approximated.values())
    console.print(
        f"{command.architecture} for {command.data}: {weights:,} weights to approximate; eps {command.tolerance:g},"
        f" delta {command.delta:g}. Width: the widest hidden layer."
    )
    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("theorem", no_wrap=True)
    for name in ("layers", "depth", "width", "source", "kept"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("constants", no_wrap=True)
    for row in rows:
        numbers = (row.widest, row.source_weights, row.kept_weights)
        depth = "-" if row.depth is None else str(row.depth)
        table.add_row(row.theorem, f"{row.covered}/{row.layers}", depth, *map(short, numbers), row.origin)
    console.print(table)
    for row in rows:
        error = {"weight": "eps of each weight", "output": "eps of the output", "exact": "exact"}[row.error]
        sentence = f"{row.paper}; {error}. Constants: {row.constant}. {row.note}".strip()
        console.print(Text.assemble((f"{row.theorem}: ", "bold"), sentence))


def short(number: int | None) -> str:
    """A number in at most five characters, "-" for None.

    >>> short(999), short(8_337_000), short(1_424_173_504), short(None)
    ('999', '8.34M', '1.42G', '-')
    """
    if number is None:
        return "-"
    if number < 1000:
        return str(number)
    power = min((len(f"{number}") - 1) // 3, len(_SUFFIXES) - 1)
    value = number / 1000**power
    digits = max(0, 3 - len(str(int(value))))
    return f"{value:.{digits}f}{_SUFFIXES[power]}"
