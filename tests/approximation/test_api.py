"""`approximate`: its arguments make the job that is run, and contradictions are refused."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from lottery_jax.approximation import (
    ApproximationOptions,
    Budget,
    LossAware,
    ToleranceObjective,
    approximate,
    plan_job,
    run_approximation,
    run_in_memory,
)
from lottery_jax.approximation.importance import fisher_importance
from lottery_jax.bounds import bound_output
from lottery_jax.constructions import Pensia, Scalar
from lottery_jax.errors import InputError
from lottery_jax.networks.rewrites import quantise
from lottery_jax.subset_sum import Pareto, Randomized, Vector
from lottery_jax.tickets.ticket import stores_coded
from lottery_jax.tickets.verify import verify
from tests.constructions.catalogue import COUNT, TARGETS

OF = "mlp, inputs never negative"
ONES = {"fc1.weight": np.ones((6, 9)), "fc2.weight": np.ones((4, 6))}


@pytest.mark.parametrize(
    ("options", "construction", "objective"),
    [
        ({"candidates": COUNT}, Pensia(COUNT), ToleranceObjective()),
        ({"construction": Pensia(COUNT), "tolerance": 0.03}, Pensia(COUNT), ToleranceObjective(0.03)),
        (
            {"construction": "scalar", "candidates": COUNT, "max_redraws": 3},
            Scalar(COUNT),
            ToleranceObjective(max_redraws=3),
        ),
        (
            {"construction": Scalar(COUNT, range="model"), "objective": "smallest"},
            Scalar(COUNT, range="model"),
            ToleranceObjective(select="smallest"),
        ),
        (
            {"candidates": COUNT, "solver": Randomized(left=4)},
            Pensia(COUNT),
            ToleranceObjective(solver=Randomized(left=4)),
        ),
        ({"candidates": COUNT, "kept": 30}, Pensia(COUNT), Budget(30)),
        ({"candidates": COUNT, "kept": 30, "importance": ONES}, Pensia(COUNT), Budget(30, importance=ONES)),
    ],
)
def test_it_runs_the_job_that_it_is_told(options: dict, construction, objective, tmp_path: Path) -> None:
    target, seen = TARGETS[OF](), []
    wanted = run_in_memory(plan_job(target, construction, objective, seed=4)).to_bytes()
    assert approximate(target, seed=4, **options).to_bytes() == wanted
    ticket = approximate(target, seed=4, out=tmp_path / "t", progress=lambda *done: seen.append(done), **options)
    assert ticket.to_bytes() == (tmp_path / "t").read_bytes() == wanted
    assert seen[0] == (0, 78) and seen[-1] == (78, 78)


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint64])
def test_a_seed_may_be_an_integer_of_numpy(kind: type) -> None:
    target, options = TARGETS[OF](), {"candidates": COUNT, "tolerance": 0.1}
    assert approximate(target, seed=kind(5), **options).to_bytes() == approximate(target, seed=5, **options).to_bytes()
    for seed in (True, 5.0, np.float32(5), np.array([5]), jax.random.key(5), "5", None, -1, np.int8(-1), 2**64):
        with pytest.raises(InputError, match=r"seed must be (a whole number )?in \[0, 2\*\*64\), got"):
            approximate(target, seed=seed, **options)  # type: ignore[arg-type]


def test_an_importance_by_name_is_that_of_the_images() -> None:
    target, images = TARGETS[OF](), np.random.default_rng(0).random((5, 9), np.float32)
    options = {"seed": 4, "construction": "scalar", "candidates": COUNT, "kept": 30}
    arrays = fisher_importance(target, images, damping=1.0)
    by_name = approximate(target, **options, importance="fisher-damped", images=images)
    assert by_name.to_bytes() == approximate(target, **options, importance=arrays).to_bytes()
    loss_aware = run_in_memory(plan_job(target, Scalar(COUNT), LossAware(30, images, 0.1), seed=4))
    assert approximate(target, **options, images=images, damping=0.1).to_bytes() == loss_aware.to_bytes()


def test_a_rounded_target_is_approximated_and_recorded() -> None:
    target = TARGETS[OF]()
    result = run_approximation(
        target, ApproximationOptions(construction="scalar", candidates=COUNT, quantise_target=3), seed=4
    )
    assert result.ticket is not None and result.target.digest == quantise(target, 3).digest
    assert result.ticket.header.settings["quantised_target"] == {"bits": 3, "of_target_sha256": target.digest}
    again = approximate(target, seed=4, construction=Scalar(), candidates=COUNT, quantise_target=3)
    assert again.to_bytes() == result.ticket.to_bytes()


def test_an_output_tolerance_is_met() -> None:
    target = TARGETS[OF]()
    ticket = approximate(target, seed=1, candidates=COUNT, tolerance=0.1, output_tolerance=1.0, box=(0, 1))
    assert verify(ticket, target=target).holds and bound_output(ticket, target).largest <= 1.0


def test_masks_are_coded_where_that_is_asked(tmp_path: Path) -> None:
    target, options = TARGETS[OF](), {"seed": 4, "candidates": COUNT}
    plain = approximate(target, **options, out=tmp_path / "plain")
    coded = approximate(target, **options, out=tmp_path / "coded", coded=True)
    assert (stores_coded(tmp_path / "plain"), stores_coded(tmp_path / "coded")) == (False, True)
    assert coded.to_bytes() == plain.to_bytes()
    # What is there already is written anew in the other form, not searched again.
    approximate(target, **options, out=tmp_path / "coded")
    assert (tmp_path / "coded").read_bytes() == (tmp_path / "plain").read_bytes()


def test_workers_solve_its_chunks(tmp_path: Path) -> None:
    target, options = TARGETS[OF](), {"seed": 4, "candidates": COUNT}
    with ThreadPoolExecutor(2) as executor:
        found = approximate(target, **options, out=tmp_path / "ticket", executor=executor)
    assert found.to_bytes() == approximate(target, **options).to_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["ticket"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"out": None}, "out must name the ticket's file"),
        ({"kept": 9, "images": np.ones((2, 9))}, "a single process"),
    ],
)
def test_what_workers_cannot_share_is_refused(change: dict, words: str, tmp_path: Path) -> None:
    options = {"out": tmp_path / "ticket", "executor": object(), **change}
    with pytest.raises(InputError, match=words):
        approximate(TARGETS[OF](), seed=4, candidates=COUNT, **options)


def test_what_is_left_out_is_as_published() -> None:
    target = TARGETS[OF]()
    settings = approximate(target, seed=0, max_redraws=0).header.settings
    assert settings == plan_job(target, Pensia(21), ToleranceObjective(0.01, "least-error", 0), seed=0).settings | {
        "job": settings["job"]
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"construction": "penzia"}, "did you mean 'pensia'"),
        ({"objective": "smalest"}, "did you mean 'smallest'"),
        ({"candidates": 0}, "candidates"),
        (
            {"construction": Scalar(COUNT), "candidates": 9},
            r"candidates must be given once, got 9 and Scalar\(candidates=8",
        ),
        ({"importance": ONES}, "importance needs a budget of kept weights"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"kept": -1}, "whole number"),
        ({"coded": True}, "name the file with out"),
        ({"seed": -1}, "seed"),
        ({"kept": 9, "objective": "smallest"}, "kept cannot be combined with objective 'smallest'"),
        ({"kept": 9, "max_redraws": 3}, "kept cannot be combined with max_redraws 3"),
        ({"kept": 9, "tolerance": 0.1}, "kept cannot be combined with tolerance 0.1"),
        ({"lossless": True, "tolerance": 0.1}, "lossless cannot be combined with tolerance"),
        ({"lossless": True, "construction": "scalar", "candidates": 21}, "above 21 for a lossless ticket"),
        ({"images": np.ones((2, 9))}, "images need a budget"),
        ({"kept": 9, "images": np.ones((2, 9)), "importance": ONES}, "cannot be combined with importance arrays"),
        ({"kept": 9, "importance": "fisher"}, "give images or dataset"),
        ({"kept": 9, "importance": "fischer"}, "did you mean 'fisher'"),
        ({"kept": 9, "damping": 0.1}, "damping is an option of loss_aware"),
        ({"box": (0, 1)}, "give output_tolerance too"),
        ({"prune_target": 9}, "give the training data as dataset"),
        ({"prune_epochs": 9}, "prune_epochs is an option of prune_target"),
        ({"quantise_target": 0}, "from 1 to 24"),
    ],
)
def test_bad_input_is_refused(change: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        approximate(TARGETS[OF](), **{"seed": 0, **change})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (ONES, "a dict"),
        ([np.ones((6, 9))], "a list"),
        (nnx.Linear(9, 6, rngs=nnx.Rngs(0)), "a Linear"),
        ("model.safetensors", "the path 'model.safetensors'"),
        (Path("model.safetensors"), "the path 'model.safetensors'"),
        ((TARGETS[OF](), {}), "a tuple"),
        (None, "None"),
    ],
)
def test_what_is_no_target_is_refused(given, words: str) -> None:
    with pytest.raises(
        InputError, match=rf"takes a Target, not {words}; make one with mlp_target, import_target, load"
    ):
        approximate(given, seed=0)


def test_a_solver_is_recorded_and_chunks_of_another_are_not_resumed() -> None:
    target = TARGETS[OF]()
    ticket = approximate(target, seed=4, candidates=COUNT, solver=Randomized(left=4))
    assert (
        ticket.header.settings["solver"] == "Randomized(left=4, restarts=1)"
        and ticket.header.settings["objective"] == "least-error"
    )
    solvers = None, Randomized(left=4), Randomized(left=5)
    jobs = [plan_job(target, Pensia(COUNT), ToleranceObjective(solver=solver), seed=4) for solver in solvers]
    assert len({job.fingerprint for job in jobs}) == 3
    assert "solver" not in jobs[0].settings


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"solver": Pareto(2)}, "solver must be a solver .* one subset of numbers"),
        ({"solver": Vector()}, "solver must be a solver .* one subset of numbers"),
        ({"solver": "randomized"}, "solver must be a solver .* got 'randomized'"),
        ({"solver": Randomized(), "objective": "smallest"}, "objective cannot be combined with solver"),
        ({"solver": Randomized(), "kept": 30}, "kept cannot be combined with solver"),
    ],
)
def test_solvers_that_are_refused(options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        approximate(TARGETS[OF](), **{"seed": 4, "candidates": COUNT, **options})
