"""Planning a job: what is refused before any work, what a ticket depends on, and how the work is cut."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lottery_jax.approximation.job as job_module
from lottery_jax.approximation import Budget, Job, ToleranceObjective, plan_job
from lottery_jax.constructions import Pensia, Scalar, ScalarShared
from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.layers.tensor_dict import NamedTensor, TensorDict
from lottery_jax.networks.network import Network
from lottery_jax.networks.target import Target
from lottery_jax.subset_sum import MeetInTheMiddle
from tests.constructions.catalogue import COUNT, TARGETS, bag


def of_one(name: str, value: np.ndarray) -> Target:
    fine = np.ones((2, 2), np.float32)
    tree = TensorDict((("fine", NamedTensor((2, 2))), (name, NamedTensor(value.shape))))
    return Target(Network(tree), {"fine": fine, name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("construction", [Scalar(COUNT), ScalarShared(COUNT)])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.full((2, 3), np.nan, np.float32), "6 of 6 weights that are NaN"),
        (np.array([[1, np.inf]], np.float16), "1 of 2 weights"),
        (np.array([[1, np.nan, np.inf]], ml_dtypes.bfloat16), "2 of 3 weights"),
        (np.array([[1, 1e300]]), "1 of 2 weights that are NaN, infinite or beyond float32"),
    ],
    ids=["float32", "float16", "bfloat16", "float64"],
)
def test_a_weight_that_is_no_number_is_refused_by_the_name_of_its_tensor(construction, value, words) -> None:
    with pytest.raises(InputError, match=f"tensor 'layer.weight' must be finite, got {words}"):
        plan_job(of_one("layer.weight", value), construction, ToleranceObjective(), seed=0)


def test_what_is_stored_as_it_is_must_be_numbers_too() -> None:
    target = TARGETS["transformer, inputs of any sign"]()
    name = next(name for name in target.network.tensors if name not in target.network.approximated)
    broken = {**target.arrays(), name: np.full_like(target.array(name), np.nan)}
    with pytest.raises(InputError, match=f"tensor '{name}' must be finite"):
        plan_job(Target(target.network, broken), Pensia(COUNT), ToleranceObjective(), seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_a_tensor_without_weights_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="sizes from 1 up"):
        of_one("empty", np.zeros(shape, np.float32))


@pytest.mark.parametrize("kind", [np.int32, np.uint8])
def test_a_tensor_of_whole_numbers_is_refused(kind: type) -> None:
    with pytest.raises(InputError, match=r"must be floats, got other types for \['steps'\]"):
        of_one("steps", np.ones((2, 2), kind))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"construction": lambda: Scalar(0)}, "candidates must be from 1 to 32767"),
        ({"construction": lambda: Pensia(1 << 15)}, "candidates must be from 1 to 32767"),
        ({"construction": lambda: Scalar(8.0)}, "candidates must be from 1 to 32767"),  # type: ignore[arg-type]
        ({"construction": lambda: Scalar(8, range="modl")}, "did you mean 'model'"),  # type: ignore[arg-type]
        ({"objective": ToleranceObjective(0.0)}, "tolerance must be a positive finite number"),
        ({"objective": ToleranceObjective(float("nan"))}, "tolerance"),
        ({"objective": ToleranceObjective(float("inf"))}, "tolerance"),
        ({"objective": ToleranceObjective(select="smalest")}, "did you mean 'smallest'"),
        ({"objective": ToleranceObjective(max_redraws=-1)}, "max_redraws must be from 0 to 255"),
        ({"objective": ToleranceObjective(max_redraws=1.5)}, "max_redraws must be from 0 to 255"),  # type: ignore[arg-type]
        ({"objective": ToleranceObjective(max_redraws=256)}, "max_redraws must be from 0 to 255"),
        ({"objective": ToleranceObjective(select="smallest"), "construction": lambda: Scalar(41)}, "40"),
        ({"objective": ToleranceObjective(solver=MeetInTheMiddle()), "construction": lambda: Scalar(45)}, "45"),
        ({"objective": Budget()}, "either kept"),
        ({"objective": Budget(kept=3, error=0.5)}, "either kept"),
        ({"objective": Budget(3, k_max=-1)}, "k_max"),
        ({"objective": Budget(3, k_max=1.5)}, "k_max"),  # type: ignore[arg-type]
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"seed": 1.0}, "seed"),
        ({"seed": np.int64(-1)}, "seed"),
        ({"chunk_weights": 12}, "multiple of 8"),
        ({"chunk_weights": 0}, "multiple of 8"),
        ({"chunk_weights": -8}, "multiple of 8"),
    ],
)
def test_impossible_options_are_refused(change: dict, words: str) -> None:
    options = {"construction": lambda: Scalar(COUNT), "objective": ToleranceObjective(), "seed": 0, **change}
    with pytest.raises(InputError, match=words):
        plan_job(bag(), options.pop("construction")(), options.pop("objective"), **options)


def planned(**changes: object) -> Job:
    options = {"target": bag(), "construction": Scalar(COUNT), "objective": ToleranceObjective(), "seed": 0, **changes}
    return plan_job(**options)  # type: ignore[arg-type]


def test_the_identity_is_of_all_that_a_ticket_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {name: bag().array(name).copy() for name in bag().network.tensors}
    arrays["half"][3] += 1
    network = TARGETS["mlp, inputs never negative"]()
    jobs = [
        planned(),
        planned(seed=1),
        planned(construction=Scalar(COUNT + 1)),
        planned(construction=Scalar(COUNT, range="model")),
        planned(construction=ScalarShared(COUNT)),
        planned(objective=ToleranceObjective(0.02)),
        planned(objective=ToleranceObjective(select="smallest")),
        planned(objective=ToleranceObjective(max_redraws=19)),
        planned(objective=ToleranceObjective(solver=MeetInTheMiddle())),
        planned(objective=Budget(9)),
        planned(objective=Budget(10)),
        planned(objective=Budget(error=9.0)),
        planned(objective=Budget(9, k_max=5)),
        planned(objective=Budget(9, importance={name: np.ones(value.shape) for name, value in arrays.items()})),
        planned(objective=Budget(9, importance={name: np.zeros(value.shape) for name, value in arrays.items()})),
        planned(target=Target(bag().network, arrays)),  # type: ignore[arg-type]
        planned(target=network, construction=Pensia(COUNT)),
        planned(target=TARGETS["mlp, inputs of any sign"](), construction=Pensia(COUNT)),
    ]
    assert len({job.identity for job in jobs}) == len(jobs)
    again = planned(chunk_weights=64)
    assert again.identity == jobs[0].identity == planned().identity
    assert again.fingerprint != jobs[0].fingerprint == planned().fingerprint, "chunks of other sizes are no use"
    monkeypatch.setattr(job_module.sampler, "SAMPLER_VERSION", 99)
    assert planned().identity != jobs[0].identity


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 12),
    chunk=st.sampled_from([8, 16, 24, 64, None]),
    kind=st.sampled_from([Scalar, ScalarShared, Pensia]),
    most=st.sampled_from([COUNT * 17, 2**32]),
)
def test_chunks_are_all_blocks_once_and_whole_bytes(rows, columns, chunk, kind, most) -> None:
    """Each begins at a byte of the mask, and lies on one stream."""
    with pytest.MonkeyPatch.context() as patch:
        if kind is not Pensia:
            patch.setattr("lottery_jax.rng.random_tensor.MAX_SIZE", most)
        target = mlp_target([np.ones((rows, columns), np.float32), np.ones((1, rows), np.float32)])
        job = plan_job(target, kind(COUNT), ToleranceObjective(), seed=0, chunk_weights=chunk)
        for problem in job.problems:
            chunks, drawn = [found for found in job.chunks if found.problem is problem], problem.random_tensor
            blocks = np.concatenate([found.first + np.arange(found.count) for found in chunks])
            np.testing.assert_array_equal(blocks, np.arange(drawn.blocks))
            for found in chunks:
                assert found.first * drawn.rows_per_block * drawn.width % 8 == 0
                streams, _ = drawn.positions(found.first + np.arange(found.count), 0)
                assert len(np.unique(streams)) == 1
                assert chunk is None or found.count <= max(chunk // drawn.rows_per_block, 8)
        assert sum(found.weights for found in job.chunks) == job.weights == rows * columns + rows
        assert [found.number for found in job.chunks] == list(range(len(job.chunks)))
