"""What a target's file does not fix is reported as taken from the ticket; another expected network is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lottery_jax import approximate, export_target, load_model
from lottery_jax.errors import InputError
from lottery_jax.networks.architectures import architecture, mlp
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.conv import Conv
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.normalization import Normalize
from lottery_jax.networks.layers.pooling import AveragePool, Flatten, MaxPool
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target
from lottery_jax.tickets.given_target import TargetFile, network_text, read_network
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.tickets.verify import verify
from tests.cli.calling import lottery_jax
from tests.constructions.catalogue import COVERED, random_target
from tests.tickets.forging import forge, read, resourced


def ticket_for(target: Target, construction: str = "scalar") -> Ticket:
    entry = COVERED[construction]
    return approximate(
        target, seed=0, construction=entry.construction, tolerance=entry.tolerance, max_redraws=entry.max_redraws
    )


def pooled(pool: type[MaxPool] | type[AveragePool]) -> Network:
    """A graph that no architecture has; the kind of its pooling is in no tensor."""
    nodes = (("conv", Conv(1, 2, (3, 3))), ("relu", Relu()), ("pool", pool((2, 2))), ("flatten", Flatten()))
    return Network(Chain((*nodes, ("head", Dense(8, 2)))), Spec((6, 6, 1), nonnegative=True))


def test_inputs_are_taken_from_the_ticket_and_said_to_be(tmp_path: Path) -> None:
    """One file of weights, and images of another layout: the order of the pixels is the ticket's choice."""
    weights = random_target(mlp((8, 6, 4), Spec((2, 2, 2), nonnegative=True), bias=True)).arrays()
    export_target(Target(mlp((8, 6, 4), Spec((8,)), bias=True), weights), tmp_path / "target.safetensors")  # type: ignore[arg-type]
    networks = [mlp((8, 6, 4), Spec(shape, True), bias=True) for shape in ((2, 2, 2), (1, 4, 2), (4, 2, 1))]
    for network in networks:
        ticket = ticket_for(Target(network, weights))  # type: ignore[arg-type]
        found = verify(ticket, target=tmp_path / "target.safetensors")
        assert network.input_spec is not None
        shape = list(network.input_spec.shape)
        assert found.holds and found.taken_from_ticket == (f"inputs {shape} that are never negative",)
        for expected in networks:
            again = verify(ticket, target=tmp_path / "target.safetensors", expect=expected)
            assert again.taken_from_ticket == () and again.holds == (expected == network)
            assert expected == network or f"it is for inputs {shape}" in again.reasons[0]
            assert verify(ticket, expect=expected).outcome == again.outcome, "the ticket's copy of the target"
        given = verify(ticket, target=Target(network, weights))  # type: ignore[arg-type]
        assert given.holds and given.taken_from_ticket == ()


def test_a_ticket_for_other_signs_of_inputs(tmp_path: Path) -> None:
    networks = {sign: mlp((8, 6, 4), Spec((8,), sign)) for sign in (True, False)}
    tickets = {sign: ticket_for(random_target(network)) for sign, network in networks.items()}
    holds = {
        (made, asked): verify(tickets[made], expect=networks[asked]).holds for made in networks for asked in networks
    }
    assert holds == {(True, True): True, (True, False): False, (False, True): True, (False, False): True}


def test_the_normalisation_of_inputs_is_taken_from_the_ticket(tmp_path: Path) -> None:
    given, names = Spec((8, 8, 1), nonnegative=True), []
    honest = architecture("vit", given, 3, width=1 / 32, normalize=Normalize((0.5,), (0.25,)))
    weights = random_target(honest).arrays()
    forged = architecture("vit", given, 3, width=1 / 32, normalize=Normalize((0.125,), (4.0,)))
    export_target(Target(honest, weights), tmp_path / "target.safetensors")  # type: ignore[arg-type]
    file = TargetFile(tmp_path / "target.safetensors", "vit", 1 / 32)
    for network, numbers in ((honest, "(x - [0.5]) / [0.25]"), (forged, "(x - [0.125]) / [4]")):
        ticket = ticket_for(Target(network, weights))  # type: ignore[arg-type]
        found = verify(ticket, target=file)
        assert found.holds and found.taken_from_ticket[1] == f"the normalisation 'normalize', {numbers}"
        names.append(verify(ticket, target=file, expect=honest))
    assert names[0].holds and names[1].outcome == "broken" and "Normalize" in names[1].reasons[0]


@pytest.mark.parametrize(
    ("change", "words"), [("average_pool", "'pool', AveragePool"), ("front", "the layer 'blur', AveragePool")]
)
def test_a_layer_in_front_of_a_network_of_no_architecture(change: str, words: str, tmp_path: Path) -> None:
    network = pooled(MaxPool)
    target = random_target(network)
    export_target(target, tmp_path / "target.safetensors")
    ticket_for(target).save(tmp_path / "ticket")
    with pytest.raises(InputError, match="architecture"):
        verify(tmp_path / "ticket", target=tmp_path / "target.safetensors")
    options = {"target": tmp_path / "target.safetensors", "expect": network}
    assert verify(tmp_path / "ticket", **options).holds
    header, tensors = read(tmp_path / "ticket")
    nodes = header["network"]["root"]["nodes"]
    if change == "front":
        nodes.insert(0, ["blur", {"kind": "average_pool", "size": [3, 3], "stride": [1, 1], "padding": [1, 1]}])
    else:
        nodes[2][1]["kind"] = change
    path = forge(tmp_path / "forged", resourced(header), tensors)
    assert verify(path).holds, "what the ticket says of itself"
    found = verify(path, **options)
    assert found.outcome == "broken" and words in found.reasons[0]


@pytest.mark.parametrize(
    ("construction", "make"),
    [
        ("pensia", lambda: architecture("resnet20", Spec((4, 4, 1)), 3, width=1 / 16)),
        ("otsuka", lambda: architecture("vit", Spec((4, 4, 1)), 3, width=1 / 32)),
    ],
)
def test_the_networks_before_and_after_rewrites_are_expected_alike(
    construction: str, make: Callable[[], Network], tmp_path: Path
) -> None:
    """Batch normalisations are folded and attention is merged in the ticket, and not in the file."""
    target = random_target(make())
    export_target(target, tmp_path / "target.safetensors")
    ticket = ticket_for(target, construction)
    (tmp_path / "network.json").write_text(network_text(ticket.network))
    for expected in (target.network, ticket.network.target, tmp_path / "network.json"):
        found = verify(ticket, target=tmp_path / "target.safetensors", expect=expected)
        assert found.holds and found.taken_from_ticket == (), found.reasons
    assert read_network(tmp_path / "network.json") == ticket.network.target


def test_a_model_without_a_graph_is_the_choice_of_tensors(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    save_file({name: random.normal(size=(4, 5)).astype(np.float32) for name in "abc"}, tmp_path / "model.safetensors")
    part = load_model(tmp_path / "model.safetensors", "a")[0]
    ticket = approximate(part, seed=0, construction="scalar", tolerance=0.1)
    found = verify(ticket, target=tmp_path / "model.safetensors")
    assert found.holds and found.taken_from_ticket == ("the choice of 1 tensors of the model",)
    whole = load_model(tmp_path / "model.safetensors")[0].network
    assert verify(ticket, expect=whole).outcome == "broken"


@pytest.mark.parametrize(
    "content", ["", "[", "[]", "{}", '{"input_spec": null, "root": {}}', "[" * 10**5, '{"root": NaN}', "\xff"]
)
def test_a_file_that_holds_no_network_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    path.write_bytes(content.encode("latin-1"))
    ticket = ticket_for(random_target(mlp((4, 2), Spec((4,)))))
    with pytest.raises(InputError, match="network file"):
        verify(ticket, expect=path)
    for missing in (tmp_path / "missing", tmp_path, "/dev/zero"):
        with pytest.raises(InputError, match="must be an existing file"):
            verify(ticket, expect=missing)
    with pytest.raises(InputError, match="without random layers"):
        verify(ticket, expect=ticket.network)


def test_the_command_line_says_what_it_took_and_refuses_another_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = random_target(mlp((8, 6, 4), Spec((2, 2, 2), nonnegative=True)))
    export_target(target, tmp_path / "target.safetensors")
    ticket_for(target).save(tmp_path / "ticket")
    network = tmp_path / "network.json"
    words = ["verify", tmp_path / "ticket", "--target", tmp_path / "target.safetensors", "--quiet"]

    def said(code: int, *more: str | Path) -> str:
        assert lottery_jax(*words, *more) == code
        return capsys.readouterr().out

    assert lottery_jax("export", tmp_path / "ticket", "--network", "--out", network) == 0
    assert "the network that the ticket is for" in capsys.readouterr().out
    out = said(0)
    assert "Taken from the ticket" in out and "inputs [2, 2, 2]" in out
    assert json.loads(said(0, "--json"))["taken_from_ticket"] == ["inputs [2, 2, 2] that are never negative"]
    assert "Taken from the ticket" not in said(0, "--expect", network)
    row = json.loads(network.read_text())
    row["input_spec"][0] = [8]
    network.write_text(json.dumps(row))
    assert "BROKEN: it is for inputs [2, 2, 2]" in said(1, "--expect", network)
