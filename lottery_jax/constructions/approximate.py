"""`approximate`: from the weights of a target to the ticket of a pruned random network that computes the same."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from lottery_jax.constructions.pensia import layer_gain, pensia_layer, pensia_plan
from lottery_jax.constructions.plan import Plan
from lottery_jax.constructions.scalar import scalar_layer, scalar_plan
from lottery_jax.constructions.solve_layer import solve_layer
from lottery_jax.errors import InputError, suggest
from lottery_jax.networks.architecture import Gadget, Parallel, SourceTensor, source_tensors
from lottery_jax.networks.architecture import check as check_architecture
from lottery_jax.subset_sum import Solver, choose
from lottery_jax.ticket import Ticket

Construction = Literal["pensia", "scalar", "scalar-shared"]
Objective = Literal["least-error", "smallest"]
CONSTRUCTIONS: tuple[Construction, ...] = ("pensia", "scalar", "scalar-shared")
OBJECTIVES: tuple[Objective, ...] = ("least-error", "smallest")


def choose_solver(candidates: int, objective: str) -> Solver:
    """The solver that `subset_sum.choose` picks for one of the two objectives of a construction."""
    if objective not in OBJECTIVES:
        raise InputError(f"objective {objective!r} is unknown; {suggest(objective, OBJECTIVES)}")
    return choose(candidates, objective=objective)


def approximate(
    weights: Sequence[np.ndarray],
    *,
    seed: int,
    construction: str = "pensia",
    candidates: int = 21,
    tolerance: float = 0.01,
    objective: str = "least-error",
    nonnegative: bool = True,
    max_redraws: int = 20,
    solver: Solver | None = None,
    progress: Callable[[int], None] | None = None,
) -> Ticket:
    """Find a ticket whose network computes the bias-free ReLU network with `weights` [I, O] within the tolerance.

    construction: `pensia` (the 2L network of Theorem 1), `scalar` (n copies of each edge) or `scalar-shared` (n
    copies per output row, as published). candidates: n per weight. tolerance: largest |error| per weight. objective:
    `least-error` or `smallest` (fewest kept). nonnegative: inputs are never negative. progress: called with the
    number of weights done. Weights that fail after `max_redraws` new draws stay, and `verify` counts them.

    >>> import numpy as np
    >>> from lottery_jax.certificate import verify
    >>> ticket = approximate([np.array([[0.3], [-0.2]], np.float32)], seed=0, candidates=10)
    >>> verify(ticket).within_tolerance
    2
    """
    check_target(weights, construction, candidates, tolerance, max_redraws)
    solver = solver or choose_solver(candidates, objective)
    architecture = source_architecture(weights, construction, candidates, nonnegative)
    masks, redraws, failures = {}, {}, 0
    for position, (tensor, plan) in enumerate(plans(architecture, weights, seed)):
        mask, redrawn, failed = solve_layer(
            plan,
            tensor.sampler,
            stream=tensor.stream,
            seed=seed,
            solver=solver,
            tolerance=tolerance,
            max_redraws=max_redraws,
            progress=progress,
        )
        masks[tensor.name], redraws[tensor.name] = mask, redrawn
        failures += failed
        if isinstance(plan.layer, Gadget):
            # A first edge is kept where some output uses its unit.
            masks[f"{position}.first"], redraws[f"{position}.first"] = mask.any(2), plan.redraws
    settings = {
        "construction": construction,
        "candidates": candidates,
        "objective": objective,
        "solver": repr(solver),
        "failures": failures,
    }
    ordered = {tensor.name: masks[tensor.name] for tensor in source_tensors(architecture)}
    name = construction if objective == "least-error" else f"{construction}-{objective}"
    target = tuple(np.asarray(weight, np.float32) for weight in weights)
    return Ticket(architecture, seed, ordered, name, redraws, target, tolerance, settings)


def source_architecture(
    weights: Sequence[np.ndarray], construction: str, candidates: int, nonnegative: bool
) -> tuple[Gadget | Parallel, ...]:
    """The random network in which a construction finds the target."""
    low, high = min(float(w.min()) for w in weights), max(float(w.max()) for w in weights)
    if low == high:
        low, high = low - 1.0, high + 1.0
    layers: list[Gadget | Parallel] = []
    for weight in weights:
        inputs, outputs = weight.shape
        if construction == "pensia":
            # Behind a ReLU nothing is negative, so only the first layer may need both signs.
            signed = not layers and not nonnegative
            layers.append(pensia_layer(inputs, outputs, candidates, signed=signed, gain=layer_gain(weight)))
        else:
            shared = construction == "scalar-shared"
            layers.append(scalar_layer(inputs, outputs, candidates, low, high, shared))
    check_architecture(tuple(layers))
    return tuple(layers)


def plans(
    architecture: Sequence[Gadget | Parallel], weights: Sequence[np.ndarray], seed: int
) -> Iterator[tuple[SourceTensor, Plan]]:
    """For each layer, the random tensor that its weights' subsets are taken from, and how."""
    tensors = {tensor.name: tensor for tensor in source_tensors(tuple(architecture))}
    for position, (layer, weight) in enumerate(zip(architecture, weights, strict=True)):
        exact = np.asarray(weight, np.float64)
        if isinstance(layer, Gadget):
            first = tensors[f"{position}.first"]
            plan = pensia_plan(layer, exact, position, first.stream, seed)
        else:
            plan = scalar_plan(layer, exact, position)
        yield tensors[plan.tensor], plan


def check_target(
    weights: Sequence[np.ndarray], construction: str, candidates: int, tolerance: float, max_redraws: int
) -> None:
    """Refuse what no construction can approximate."""
    if construction not in CONSTRUCTIONS:
        raise InputError(f"construction {construction!r} is unknown; {suggest(construction, CONSTRUCTIONS)}")
    if candidates < 1:
        raise InputError(f"candidates must be at least 1 per weight, not {candidates}; 21 is the published number")
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise InputError(f"tolerance must be a positive number, not {tolerance}")
    if max_redraws < 0:
        raise InputError(f"max_redraws must be 0 or more, not {max_redraws}")
    if not weights:
        raise InputError("the target has no layers")
    for place, weight in enumerate(weights):
        if weight.ndim != 2 or 0 in weight.shape:
            raise InputError(f"layer {place} of the target must be a matrix [inputs, outputs], not {weight.shape}")
        if not np.isfinite(weight).all():
            raise InputError(f"layer {place} of the target holds NaN or infinite weights; retrain or repair it")
