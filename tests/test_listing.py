"""What the front door lists can be used where its name is asked for; all layers are in one import."""

import re

import pytest
from IPython.lib.pretty import pretty

import lottery_jax
from lottery_jax import layers
from lottery_jax.comparison.registry import select_methods
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.layers.tensor_dict import NamedTensor, TensorDict
from lottery_jax.networks.node import Spec
from lottery_jax.networks.registry import KINDS
from lottery_jax.networks.sources.base import Source
from tests.subset_sum.catalogue import SOLVERS

LISTS = ["list_architectures", "list_layers", "list_methods", "list_solvers"]


@pytest.mark.parametrize("name", LISTS)
def test_each_name_has_a_line_of_its_own(name: str) -> None:
    found = getattr(lottery_jax, name)()
    assert len(found) > 5 and all(re.fullmatch(r"[A-Za-z0-9(`\[].{8,350}\.", words) for words in found.values()), found
    lines = repr(found).split("\n")
    assert [line.split("  ")[0] for line in lines] == list(found)
    assert {line.index(words) for line, words in zip(lines, found.values(), strict=True)} == {max(map(len, found)) + 2}
    assert pretty(found) == repr(found)  # as a notebook shows it


def test_listed_architectures_and_methods_are_taken_by_name() -> None:
    for name in lottery_jax.list_architectures():
        assert architecture(name, Spec((32, 32, 1)), 10, width=0.1).output_spec == Spec((10,))
    labels = list(lottery_jax.list_methods())
    assert [method.label for method in select_methods(labels).methods] == labels


def test_listed_solvers_are_those_of_the_catalogue() -> None:
    """And those of Pareto fronts and vectors, which take other problems."""
    found = lottery_jax.list_solvers()
    assert set(found) == {*SOLVERS, "Pareto", "Vector", "VectorWindows"} <= set(lottery_jax.subset_sum.__all__)


def test_every_layer_of_a_network_is_in_one_import() -> None:
    """All kinds of nodes but random layers, and models without a graph."""
    kinds = {kind.__name__: kind for kind in KINDS if not issubclass(kind, (Source, TensorDict, NamedTensor))}
    assert {name: getattr(layers, name) for name in layers.__all__ if name != "Spec"} == kinds
    assert set(lottery_jax.list_layers()) == set(kinds)
    cells = re.findall(r"^\| (`.+`) \| \S.+ \|$", layers.__doc__ or "", re.MULTILINE)
    assert sorted(name for cell in cells for name in re.findall(r"`(\w+)`", cell)) == sorted(kinds)
