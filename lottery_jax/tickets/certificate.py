"""The certificate: what ``verify`` found in a ticket, as plain values."""

import dataclasses
from typing import Literal

Outcome = Literal["holds", "broken", "no guarantee"]


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What ``verify`` found. A residual is ``|effective weight - target weight|``, in the target's units.

    Attributes:
        reasons: Why the ticket is broken, or why its promise is no guarantee, in sentences.
        largest_attempt: The largest attempt of a redrawn block.
        description_bits: Bits of everything that was free to choose, by part; the target is not counted.
        bits_per_target_weight: ``description_bits`` in all, for each approximated weight.
        samplers: The distributions of the random weights, in words.
        nonnegative_inputs: True if it is about nonnegative inputs only; None for a model without a graph.
        network: The approximated network, in words: layers, shapes [out, in, ...] and inputs.
        kept_budget: The promised largest number of kept weights.
        target_sha256: Digest of the target that the weights were compared with.
        own_target: True if that was only the ticket's unverified copy of the target.
        tolerance: Largest allowed residual (of the largest tensor, if the tolerance is relative).
        worst_weight: Index of the weight with the largest residual, in ``worst_tensor``.
        rounding_bits: Bits of the target rounded to a grid with the same largest residual (of each tensor, if the
            tolerance is relative), by part.
        box: The smallest and the largest input of the promise; None for a model without a graph.
        float32_addition: The largest move of an effective weight that float32 rounding amounts to, for all inputs, in
            the tensor `float32_tensor`, which is nearest to what is allowed; None if it has no bound.
        float32_allowed: The largest allowed one there: the tolerance, or a multiple of `float32_target_addition`.
        float32_target_addition: What float32 may add to the largest weight of that tensor in the target's own network.
        largest_value: Bound of all values and partial sums of the float32 network on the box, which the layer at the
            path `largest_value_layer` has; None if values behind that layer have no bound (``overflow_doubts``).
        copies_apart: Bound, on the box, of the distance of an output from the target's because copies of neurons
            differ; None without copies.
        copies_apart_allowed: The largest allowed one for that output.
        empty_promises: Tensors of which zero weights would be within the tolerance.
        trained: True if weights were trained, so that the ticket is not a strong lottery ticket.
        relative_tolerance: The tolerance as a fraction of each tensor's largest ``|target weight|``, if it is relative.
        taken_from_ticket: Parts of the target's network that its file does not fix, in words, as the ticket has them;
            empty if the network was given or expected.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    method: str
    seed: int
    source_weights: int
    kept_weights: int
    kept_by_tensor: dict[str, int]
    redrawn_blocks: int
    largest_attempt: int
    description_bits: dict[str, int]
    bits_per_target_weight: float
    samplers: tuple[str, ...]
    nonnegative_inputs: bool | None
    network: str
    kept_budget: int | None
    target_sha256: str | None
    own_target: bool
    tolerance: float | None
    target_weights: int | None
    within_tolerance: int | None
    mean_residual: float | None
    worst_residual: float | None
    worst_tensor: str | None
    worst_weight: tuple[int, ...] | None
    rounding_bits: dict[str, int] | None
    box: tuple[float, float] | None
    float32_addition: float | None
    float32_allowed: float | None
    float32_target_addition: float | None
    float32_tensor: str | None
    largest_value: float | None
    largest_value_layer: str | None
    copies_apart: float | None
    copies_apart_allowed: float | None
    empty_promises: tuple[str, ...]
    trained: bool
    relative_tolerance: float | None
    taken_from_ticket: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """True if every target weight is within the tolerance and every other promise is kept."""
        return self.outcome == "holds"

    @property
    def rounding_bits_per_target_weight(self) -> float | None:
        """All ``rounding_bits`` for each target weight; None if no residuals were computed."""
        if self.rounding_bits is None or self.target_weights is None:
            return None
        return sum(self.rounding_bits.values()) / self.target_weights
