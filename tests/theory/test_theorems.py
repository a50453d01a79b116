"""The theorems' sizes: known answers by hand, monotonicity, and what is said where a theorem covers nothing."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery_jax.errors import InputError
from lottery_jax.networks.architectures import architecture, mlp
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.theory import THEOREMS, theorem_named
from lottery_jax.theory.theorem import layer_shapes
from lottery_jax.theory.theorems import (
    Burkholz2022,
    Kumar2025,
    Natale2024,
    Otsuka2025,
    Pensia2020,
    PensiaLower,
    entropy,
)

SMALL = mlp((4, 3, 2), Spec((4,)))
"""Two layers, 3 x 4 and 2 x 3: 18 weights."""
IMAGE = Spec((28, 28, 1), True)
NETWORKS = {
    name: architecture(name, given, 10)
    for name, given in (("lenet5", IMAGE), ("fc2", IMAGE), ("vit", Spec((32, 32, 3), True)))
}


def test_pensia_by_hand() -> None:
    """C = 2, eps = 0.1, L = 2: 2 * 4 log(4 * 2 * 12 / 0.1) = 54.94 and 2 * 3 log(4 * 2 * 6 / 0.1) = 37.04 units."""
    found = Pensia2020(factor=2.0).require(SMALL, tolerance=0.1)
    assert (found.depth, found.hidden, found.widest) == (4, (55, 38), 55)
    assert found.source_weights == 55 * (4 + 3) + 38 * (3 + 2)
    first, second = round(55 / 4 / 2 * 12), round(38 / 3 / 2 * 6)  # half of the second matrices
    assert found.kept_weights == first + 55 + second + 38


def test_the_lower_bound_counts_bits() -> None:
    found = PensiaLower().require(SMALL, tolerance=1 / 8)
    assert found.source_weights == 3 * 18 and found.kept_weights is None
    assert found.hidden == (math.ceil(36 / 7), math.ceil(18 / 5))


def test_natale_solves_its_inequality() -> None:
    theorem = Natale2024(kept=3, factor=1.5)
    count = theorem.samples(0.01)
    asked = 1.5 * math.log2(3 / 0.01)
    assert count * entropy(3 / count) >= asked > (count - 1) * entropy(3 / (count - 1))
    assert theorem.require(SMALL, tolerance=0.01).hidden == (8 * count, 6 * count)


def test_burkholz_has_one_layer_more() -> None:
    """rho = 1 * log(18 / 0.01) = 7.5, so 8 copies: 64 units first, then 8 copies of 3 neurons and the constant."""
    found = Burkholz2022(factor=1.0).require(SMALL, tolerance=0.1, delta=0.01)
    assert found.depth == 3 and found.hidden == (2 * 8 * 4, 8 * 3)
    assert found.source_weights == 4 * 64 + 64 * 8 * 4 + 24 * 2


def test_kumar_takes_more_than_two_samples_for_a_bit() -> None:
    assert [Kumar2025().samples(2.0**-bits) for bits in (2, 4, 7)] == [3, 7, 13]
    assert Kumar2025().require(SMALL, tolerance=1 / 16).hidden == (2 * 4 * 7, 2 * 3 * 7)


def test_otsuka_counts_each_head() -> None:
    """A vit of 128 features, 4 heads, 4 layers: n_K >= 128 log(8 * 4 * 128^1.5 / eps)."""
    found = Otsuka2025(factor=1.0).require(NETWORKS["vit"], tolerance=0.01)
    keys, values = (math.ceil(128 * math.log(each)) for each in (8 * 4 * 128**1.5 / 0.01, 2 * 4 * 128**1.5 / 0.01))
    assert (found.depth, found.covered, found.widest) == (8, 4, keys)
    assert found.source_weights == 4 * 4 * 2 * 128 * (keys + values)


@pytest.mark.parametrize("name", THEOREMS)
def test_each_theorem_says_where_it_is_from(name: str) -> None:
    theorem = theorem_named(name)
    assert theorem.__doc__ and theorem.origin in ("paper", "counting", "estimated")
    assert any(word in theorem.paper for word in ("arXiv", "ICLR"))
    if theorem.origin != "paper":
        assert any(word in theorem.constant for word in ("unchecked", "not given", "estimated here", "ours"))


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_layers_that_are_not_covered_are_named(network: Network) -> None:
    shapes = layer_shapes(network)
    for theorem in THEOREMS.values():
        found = theorem().require(network, tolerance=0.01)
        assert found.layers == len(shapes) and found.covered == sum(shape.kind in theorem.kinds for shape in shapes)
        assert (found.depth is None) == (found.covered == 0) == (found.source_weights is None)
        assert ("layers, not: " in found.note or "covers none" in found.note) == (found.covered < found.layers)
    projections = [name for name in network.approximated if ".attn." in name and name.endswith("bias")]
    weights = [math.prod(shape) for name, shape in network.approximated.items() if name not in projections]
    assert sum(shape.weights for shape in shapes) == sum(weights)
    assert "Not in the proof" in theorem_named("pensia").require(NETWORKS["vit"], tolerance=0.01).note


def test_a_batch_normalisation_is_a_bias() -> None:
    with_norm, plain = (layer_shapes(architecture(name, Spec((32, 32, 3)), 10))[0] for name in ("resnet20", "conv2"))
    assert with_norm.inputs == 4 and with_norm.weights == 16 * (27 + 1) and plain.inputs == 3


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(THEOREMS)),
    st.floats(1e-6, 0.4),
    st.floats(1e-6, 0.4),
    st.floats(1.0, 10.0),
    st.sampled_from(sorted(NETWORKS)),
)
def test_less_error_never_asks_for_less(name: str, tolerance: float, delta: float, times: float, network: str) -> None:
    def ask(tolerance: float, delta: float) -> tuple[int, int]:
        found = theorem_named(name).require(NETWORKS[network], tolerance=tolerance, delta=delta)
        return found.widest or 0, found.source_weights or 0

    here = ask(tolerance, delta)
    for nearer in (ask(tolerance / times, delta), ask(tolerance, delta / times)):
        assert nearer[0] >= here[0] and nearer[1] >= here[1]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=4), st.floats(1e-6, 0.4))
def test_the_source_is_larger_than_the_lower_bound(sizes: list[int], tolerance: float) -> None:
    """Pensia's own source against what counting asks for the same errors."""
    network = mlp(sizes, Spec((sizes[0],)))
    least = theorem_named("pensia-lower").require(network, tolerance=tolerance).source_weights
    found = theorem_named("pensia").require(network, tolerance=tolerance)
    assert least is not None and found.source_weights is not None and found.source_weights >= least
    assert found.kept_weights is not None and found.kept_weights <= found.source_weights


@pytest.mark.parametrize(
    ("tolerance", "delta", "named"),
    [(1.0, 0.1, "tolerance must be .* got 1.0"), (0.1, 1.5, "delta must be .* got 1.5")],
)
def test_bad_input_is_refused(tolerance: float, delta: float, named: str) -> None:
    for theorem in THEOREMS.values():
        with pytest.raises(InputError, match=named):
            theorem().require(SMALL, tolerance=tolerance, delta=delta)
    for value in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match="tolerance must be"):
            Pensia2020().require(SMALL, tolerance=value)
    with pytest.raises(InputError, match="did you mean 'pensia'"):
        theorem_named("pensa")
