"""docs/ticket-format.md names every kind of node, sampler, field and tensor of the format."""

import dataclasses
import re
import typing
from pathlib import Path

import pytest

from lottery_jax.networks.node import Node
from lottery_jax.networks.registry import NODES
from lottery_jax.rng.sampler import SAMPLER_VERSION, Sampler
from lottery_jax.tickets.header import VERSION, Header
from lottery_jax.tickets.size.coded_file import PARAMETERS, SEGMENTS, WORDS

PAGE = (Path(__file__).parents[1] / "docs" / "ticket-format.md").read_text()
WORDS_IN_CODE = set(re.findall(r"`([a-z_][a-z0-9_.]*)`", PAGE))


@pytest.mark.parametrize("kind", NODES)
def test_every_kind_of_node_has_a_row_with_its_fields(kind: str) -> None:
    node: type[Node] = NODES[kind]
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and f"`{kind}`" in line.split("|")[1]]
    assert rows
    fields = {field.name for field in dataclasses.fields(node)} - {"gain", "layer"}  # type: ignore[arg-type]
    named = set(re.findall(r"`([a-z_]+)`", " ".join(rows)))
    if like := re.match(r"as `(\w+)`", rows[0].split("|")[2].strip()):
        (other,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{like[1]}` |"))
        named |= set(re.findall(r"`([a-z_]+)`", other))
    assert fields <= named, fields - named


def test_every_field_of_the_header_and_of_samplers() -> None:
    names = {field.name for field in dataclasses.fields(Header)} | {"format", "version", "sampler_version"}
    assert names <= WORDS_IN_CODE
    assert f"| `version` | {VERSION} |" in PAGE and f"| `sampler_version` | {SAMPLER_VERSION} |" in PAGE
    kinds = typing.get_args(typing.get_type_hints(Sampler)["kind"])
    assert {*kinds, *(field.name for field in dataclasses.fields(Sampler))} - {"kind", "low", "high", "scale"} <= (
        WORDS_IN_CODE
    )
    assert {PARAMETERS, SEGMENTS, WORDS} <= WORDS_IN_CODE
