"""Every weight within a tolerance: what is redrawn, what stays, and which solvers may search."""

import numpy as np
import pytest

from lottery_jax.approximation import ToleranceObjective, plan_job, run_in_memory
from lottery_jax.constructions import Construction, Pensia, Scalar, ScalarShared
from lottery_jax.errors import InputError
from lottery_jax.networks.target import Target
from lottery_jax.rng.random_tensor import MAX_ATTEMPTS
from lottery_jax.subset_sum import MeetInTheMiddle, Pareto, Randomized, Signed
from lottery_jax.tickets.certificate import Certificate
from lottery_jax.tickets.reconstruct import effective_weights
from lottery_jax.tickets.ticket import Ticket
from lottery_jax.tickets.verify import verify
from tests.constructions.catalogue import CHUNK, COUNT, TARGETS, Nearest, bag

OF = "mlp, inputs never negative"


def found(objective: ToleranceObjective, construction: Construction, target: Target) -> tuple[Ticket, Certificate]:
    ticket = run_in_memory(plan_job(target, construction, objective, seed=0, chunk_weights=CHUNK))
    return ticket, verify(ticket, target=target)


@pytest.mark.parametrize("construction", [Pensia(COUNT), Scalar(COUNT)])
def test_failures_stay_are_counted_and_are_drawn_again(construction: Construction) -> None:
    """More redraws mend more weights, touch no other, and what never succeeds keeps its first draw."""
    target, before = TARGETS[OF](), None
    counts = []
    for redraws in (0, 1, 2, 200):
        ticket, certificate = found(ToleranceObjective(0.004, max_redraws=redraws), construction, target)
        assert max(ticket.redraws(name)[:, 1].max(initial=0) for name in target.network.tensors) <= redraws
        assert certificate.holds == (certificate.within_tolerance == target.weights)
        counts.append(certificate.within_tolerance)
        if before is not None:
            for name in target.network.tensors:
                again = np.setdiff1d(ticket.redraws(name)[:, 0], before.redraws(name)[:, 0])
                same = np.ones(ticket.network.random_tensors[name].blocks, bool)
                same[again] = False
                masks = (found.mask(name).reshape(len(same), -1)[same] for found in (before, ticket))
                np.testing.assert_array_equal(*masks)
        before = ticket
    assert counts[0] < counts[1] < counts[2] < counts[3] == target.weights, "the test is too easy, or too hard"
    assert before is not None and before.header.settings["max_redraws"] == 200 <= MAX_ATTEMPTS


def test_a_solver_of_ones_own_is_used_and_named() -> None:
    ticket, _ = found(ToleranceObjective(0.1, solver=Nearest()), Scalar(COUNT), bag())
    assert ticket.header.settings["solver"] == "Nearest()"
    assert max(ticket.mask(name).sum(-1).max() for name in ticket.network.random_tensors) == 1
    ticket, certificate = found(ToleranceObjective(0.05, solver=Randomized(left=1)), ScalarShared(COUNT), bag())
    assert certificate.target_weights == bag().weights, "one that needs a key"


@pytest.mark.parametrize("solver", [Pareto(1), Signed()])
def test_only_plain_subsets_make_a_ticket(solver) -> None:
    name = type(solver).__name__
    with pytest.raises(InputError, match=rf"one subset of numbers.*got {name}|{name}.*one subset for each weight"):
        found(ToleranceObjective(solver=solver), Scalar(COUNT), bag())


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_what_was_drawn_again_is_within_in_exact_arithmetic(tolerance: float) -> None:
    """Also where the tolerance is near float32's own steps: the search allows for its rounding."""
    target, checked = TARGETS["mlp, inputs of any sign"](), 0
    objective = ToleranceObjective(tolerance, max_redraws=100, solver=MeetInTheMiddle())
    for construction in (Pensia(COUNT), Scalar(COUNT)):
        ticket, _ = found(objective, construction, target)
        for name, made in effective_weights(ticket).items():
            again = ticket.redraws(name)[:, 0]
            residuals = np.abs(made - target.array(name).astype(np.float64)).max(0).reshape(-1)
            assert (residuals[again] <= tolerance).all()
            checked += len(again)
    assert checked
