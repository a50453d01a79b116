"""Attention by merged products: what is drawn, whom the ticket approximates, and whom it cannot be said to."""

import contextlib
import functools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lottery_jax.approximation import Budget, ToleranceObjective, plan_job, run_in_memory
from lottery_jax.bounds import attack
from lottery_jax.constructions.otsuka import Otsuka
from lottery_jax.errors import InputError, TicketError
from lottery_jax.networks.layers.attention import MergedAttention
from lottery_jax.networks.rewrites import merge_attention
from lottery_jax.networks.sources.gadget import Gadget
from lottery_jax.networks.target import Target
from lottery_jax.theory.theorem import ATTENTION, LayerShape
from lottery_jax.theory.theorems import Otsuka2025
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.tickets.verify import verify
from tests.constructions.catalogue import CHUNK, COUNT, TARGETS
from tests.constructions.oracles import check_against_all_subsets
from tests.tickets.forging import forge, read, resourced

TOLERANCE = 0.03
ATTN = "blocks.0.attn"


@functools.cache
def target() -> Target:
    return TARGETS["transformer, inputs of any sign"]()


@functools.cache
def ticket() -> Ticket:
    return run_in_memory(plan_job(target(), Otsuka(COUNT), ToleranceObjective(TOLERANCE), seed=5, chunk_weights=CHUNK))


def test_the_source_has_the_widths_of_the_theorem() -> None:
    """n_K = n_V = n D for a head; biases are theirs not, and the first matrix is drawn where it may be kept."""
    network, size, heads = ticket().network, 4, 4
    shapes = {
        name: network.random_tensors[f"{ATTN}.{name}"].shape
        for name in ("qk.first", "qk.weight", "vo.first", "vo.weight")
    }
    assert shapes == {
        "qk.first": (size + 1, COUNT),
        "qk.weight": (heads * size, size, COUNT),
        "vo.first": (heads * size + 1, COUNT),
        "vo.weight": (size, heads * size, COUNT),
    }
    # With tokens of norm 1/2 at most, both logarithms are one; the constant is what n candidates make of it.
    each = 8 * heads * 0.5**3 * size**1.5 / TOLERANCE
    theorem = Otsuka2025(factor=COUNT / math.log(each) * (1 - 1e-9), alpha=0.5)
    (layer,) = theorem.source_layers([LayerShape("attn", ATTENTION, size, size, size, heads=heads)], 2, TOLERANCE, 0.1)
    assert layer.hidden == size * COUNT
    second = math.prod(shapes["qk.weight"]) + math.prod(shapes["vo.weight"])
    assert layer.weights == 2 * second
    vo = network.sources[f"{ATTN}.vo"]
    assert isinstance(vo, Gadget) and vo.layer.inputs * vo.units == heads * layer.hidden


def test_all_else_is_met_as_by_pensia() -> None:
    linear = {path for path, leaf in ticket().network.sources.items() if not leaf.relu}  # type: ignore[attr-defined]
    assert linear == {f"{ATTN}.qk", f"{ATTN}.vo"}
    for path, leaf in ticket().network.sources.items():
        given = ticket().network.input_spec_of(path)
        assert isinstance(leaf, Gadget)
        assert (leaf.units, leaf.input_signs("weight", given)) == (
            (COUNT, (1,)) if path in linear else (2 * COUNT, (1, -1))
        )


def test_every_subset_is_the_best_of_all() -> None:
    assert check_against_all_subsets(ticket(), merge_attention(target()), "least-error"), (
        "no redraw: the test is too easy"
    )


def test_it_is_held_to_the_four_matrices_and_to_their_products() -> None:
    found = verify(ticket(), target=target())
    assert found.holds and not found.own_target and found.target_weights == merge_attention(target()).weights
    assert verify(ticket(), target=merge_attention(target())).target_sha256 == found.target_sha256
    assert verify(ticket(), target=target(), tolerance=found.worst_residual / 2).outcome == "broken"  # type: ignore[operator]


@pytest.mark.slow
def test_its_worst_input_is_searched_against_the_four_matrices() -> None:
    assert 0 < attack(ticket(), target(), box=(-1, 1), starts=4, steps=2) < 0.2


@pytest.mark.parametrize("name", ["qkv.weight", "qkv.bias", "proj.weight", "proj.bias"])
def test_another_attention_is_another_target(name: str) -> None:
    values = target().arrays()
    values[f"{ATTN}.{name}"][0] += 0.5
    other = verify(ticket(), target=Target(target().network, values))  # type: ignore[arg-type]
    assert other.outcome == "broken" and "are not within 0.03" in other.reasons[0]


def test_other_heads_are_another_target() -> None:
    network = target().network

    def with_two(node: Any) -> Any:
        if node.kind == "attention":
            return type(node)(2, node.qkv, node.proj)
        inner = {name: with_two(child) for name, child in node.children().items()}
        return node.with_children(inner) if inner else node

    other = Target(type(network)(with_two(network.root), network.input_spec), target().arrays())  # type: ignore[arg-type]
    found = verify(ticket(), target=other)
    assert (found.outcome, found.reasons) == ("broken", ("its network has other layers than this target",))


def leaf_of(header: dict[str, Any]) -> dict[str, Any]:
    """The JSON of the merged attention."""

    def search(row: Any) -> dict[str, Any] | None:
        if isinstance(row, dict) and row.get("kind") == MergedAttention.kind:
            return row
        parts = row.values() if isinstance(row, dict) else row if isinstance(row, list) else ()
        return next((found for part in parts if (found := search(part)) is not None), None)

    found = search(header["network"])
    assert found is not None
    return found


FORGERIES: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "no heads": ("refused", lambda row: row.update(heads=0)),
    "a negative number of heads": ("refused", lambda row: row.update(heads=-4)),
    "heads in words": ("refused", lambda row: row.update(heads="four")),
    "more heads than were drawn": ("refused", lambda row: row.update(heads=8)),
    "as many heads as there may be": ("refused", lambda row: row.update(heads=2**31 - 1)),
    "products that are huge": ("refused", lambda row: row["qk"]["layer"].update(outputs=2**31 - 1)),
    "the products of each other": ("refused", lambda row: row.update(qk=row["vo"], vo=row["qk"])),
    "a product that is a chain": ("refused", lambda row: row.update(vo={"kind": "chain", "nodes": []})),
    "no product": ("refused", lambda row: row.pop("vo")),
    "a field too many": ("refused", lambda row: row.update(scale=2.0)),
    "products that say no bias": ("refused", lambda row: row["qk"]["layer"].update(bias=False)),
    "a ReLU between": ("broken", lambda row: row["qk"].update(relu=True)),
    "another scale": ("broken", lambda row: row["vo"].update(gain=row["vo"]["gain"] * 2)),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_products_never_hold(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    wanted, change = FORGERIES[name]
    folder = tmp_path_factory.mktemp("forged")
    ticket().save(folder / "honest")
    header, tensors = read(folder / "honest")
    change(leaf_of(header))
    with contextlib.suppress(InputError):  # of no network there is no checksum
        header = resourced(header)
    path = forge(folder / "forged", json.loads(json.dumps(header)), tensors)
    try:
        found = verify(path, target=target()).outcome
    except (TicketError, InputError):
        found = "refused"
    assert found == wanted


@pytest.mark.slow
def test_a_budget_is_kept() -> None:
    job = plan_job(target(), Otsuka(COUNT), Budget(500), seed=0, chunk_weights=CHUNK)
    found = verify(run_in_memory(job), target=target())
    assert found.holds and 0 < found.kept_weights <= 500


def test_what_has_no_attention_is_refused() -> None:
    with pytest.raises(InputError, match=r"otsuka is for attention between dense layers.*use pensia"):
        plan_job(TARGETS["mlp, inputs of any sign"](), Otsuka(COUNT), ToleranceObjective(), seed=0)


def test_products_of_any_type_are_refused_where_they_are_no_numbers() -> None:
    huge = {name: np.full_like(value, 1e30) for name, value in target().arrays().items()}
    with pytest.raises(InputError, match=r"qk\.weight.*beyond float32"):
        plan_job(Target(target().network, huge), Otsuka(COUNT), ToleranceObjective(), seed=0)  # type: ignore[arg-type]
