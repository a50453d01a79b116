"""The target that a ticket is compared with, and what was taken from the ticket to complete it.

A file of weights has no graph. Its input's shape and sign and the normalisation of inputs are in no tensor, so they are
the ticket's own choice, unless the user gives the expected network.
"""

import dataclasses
import itertools
import json
import os
from pathlib import Path

from lottery_jax.errors import InputError
from lottery_jax.importers.state_dict import target_like, target_of_network
from lottery_jax.networks.layers.normalization import Normalize
from lottery_jax.networks.network import Network, clipped, network_from_json
from lottery_jax.networks.node import Container
from lottery_jax.networks.rewrites import match_network, match_rewrites, quantise
from lottery_jax.networks.target import Target

FileName = str | os.PathLike[str]

_MAX_BYTES = 1 << 24  # of a file with a network
_SHOWN_CHARACTERS = 80  # of a layer


@dataclasses.dataclass(frozen=True)
class TargetFile:
    """A .safetensors file with the weights of a target.

    Args:
        architecture: Name of its architecture. Default: guessed from the names in the file.
        width: Multiplier of all hidden widths of the architecture.
        quantise: Bits to which the weights are first rounded; None to keep them.
    """

    path: FileName
    architecture: str | None = None
    width: float = 1.0
    quantise: int | None = None

    def read(self, network: Network, *, expected: bool = False) -> Target:
        """The target with these weights, completed with the inputs and the normalisation of a network.

        An `expected` network also gives the graph, if its tensors are those of the file.
        """
        target = target_of_network(network, self.path) if expected and self.architecture is None else None
        if target is None:
            target = target_like(network, self.path, name=self.architecture, width=self.width)
        return target if self.quantise is None else quantise(target, self.quantise)


@dataclasses.dataclass(frozen=True, eq=False)
class GivenTarget:
    """The target in the form of the ticket's network; None if the ticket's own copy is compared.

    `taken_from_ticket` are the parts that neither the file nor the user fixes, in words. `faults` are differences of
    the ticket's network from the expected one, in sentences.
    """

    target: Target | None
    taken_from_ticket: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    @property
    def fixed(self) -> bool:
        """Whether the user gave all numbers of the target; a file lacks no more than the shape and sign of inputs."""
        return self.target is not None and len(self.taken_from_ticket) <= 1


def given_target(
    network: Network, target: Target | TargetFile | FileName | None, expect: Network | FileName | None
) -> GivenTarget:
    """Complete the target that the user gives with the expected network or, without one, with the ticket's.

    Args:
        network: The network of the ticket.
        target: The target, its file, or None.
        expect: The target's network, or its JSON file.
    """
    expected = expect if isinstance(expect, Network) or expect is None else read_network(expect)
    if expected is not None and expected.sources:
        raise InputError("expect must be the network of a target, without random layers. Pass `network.target`.")
    faults = () if expected is None else tuple(_differences(network, expected))
    if target is None:
        return GivenTarget(None, (), faults)
    taken: tuple[str, ...] = ()
    if not isinstance(target, Target):
        file = target if isinstance(target, TargetFile) else TargetFile(target)
        taken = () if expected is not None else _taken(network)
        target = file.read(network) if expected is None else file.read(expected, expected=True)
    if target.network.root != network.target.root:  # a ticket of an unfolded network is compared as it is
        target = match_rewrites(target, network)
    return GivenTarget(target, taken, faults)


def read_network(path: FileName) -> Network:
    """The network in a JSON file, as `network_text` and `export --network` write it; raises `InputError`."""
    where = f"the network file {str(path)!r}"
    if not Path(path).is_file():  # nor a pipe or a device, which may never end
        raise InputError(f"{where} must be an existing file. Write one with lottery-jax export --network.")
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{where} cannot be read ({error.strerror}). Choose a readable file.") from None
    if len(content) > _MAX_BYTES:
        raise InputError(f"{where} must have at most {_MAX_BYTES:,} bytes. Choose a file that export --network wrote.")
    try:
        row = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError(f"{where} must be JSON. Write one with lottery-jax export --network.") from None
    try:
        return network_from_json(row)
    except InputError as error:
        raise InputError(f"{where} must hold a network, but {error}") from None


def network_text(network: Network) -> str:
    """The network of a target as JSON text that `read_network` reads; a ticket's random layers are replaced.

    >>> from lottery_jax.networks.architectures import mlp
    >>> from lottery_jax.networks.node import Spec
    >>> network_text(mlp((2, 1), Spec((2,)))).split()[:2]
    ['{', '"input_spec":']
    """
    return json.dumps(network.target.to_json(), indent=1) + "\n"


def _taken(network: Network) -> tuple[str, ...]:
    """What a file of weights does not fix, as the ticket has it."""
    if network.input_spec is None:
        return (f"the choice of {len(network.approximated):,} tensors of the model",)
    found = [_inputs(network)]
    for path, node in network.nodes():
        if isinstance(node, Normalize):
            numbers = (", ".join(f"{number:.6g}" for number in part) for part in (node.mean, node.deviation))
            found.append("the normalisation {!r}, (x - [{}]) / [{}]".format(clipped(path), *numbers))
    return tuple(found)


def _inputs(network: Network) -> str:
    spec = network.input_spec
    if spec is None:
        return "no inputs"
    return f"inputs {list(spec.shape)} {'that are never negative' if spec.nonnegative else 'of any sign'}"


def _differences(network: Network, expected: Network) -> list[str]:
    """How the ticket's network differs from the expected one; a ticket for inputs of any sign covers all."""
    own = network.target
    other = expected if expected.root == own.root else match_network(expected, network)
    found, shapes = [], [each.input_spec and each.input_spec.shape for each in (own, other)]
    covered = own.input_spec is None or not own.input_spec.nonnegative
    if shapes[0] != shapes[1] or (other.input_spec and not (covered or other.input_spec.nonnegative)):
        found.append(f"it is for {_inputs(own)}, and {_inputs(other)} are expected")
    if own.root != other.root:
        found.append(_first_difference(own, other))
    return found


def _first_difference(own: Network, other: Network) -> str:
    """The first layer that differs, in words."""
    layers = []
    for network in (own, other):
        nodes = [(path, node) for path, node in network.nodes() if not isinstance(node, Container)]
        layers.append([f"{clipped(path)!r}, {str(node)[:_SHOWN_CHARACTERS]}" for path, node in nodes])
    for found, expected in itertools.zip_longest(*layers, fillvalue="nothing"):
        if found != expected:
            return f"its network has the layer {found} where the expected one has {expected}"
    return "its layers are not connected as those of the expected network"
