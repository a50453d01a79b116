"""Many devices in one process: eight simulated ones, in a process of their own, for JAX counts devices only once."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from lottery_jax import mlp_target
from lottery_jax.approximation import ToleranceObjective, plan_job, run_in_memory
from lottery_jax.constructions import Pensia
from lottery_jax.subset_sum import MeetInTheMiddle, Problem, solve
from lottery_jax.subset_sum.engine.devices import local_mesh
from tests.subset_sum import eight_devices


# In short: `tests/approximation/test_run.py` has eight devices, too.
@pytest.fixture(scope="module")
def found(tmp_path_factory):
    programs = tmp_path_factory.mktemp("programs")
    # Quick compilation instead of quick programs: the answers may not depend on that either.
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    flags += f" --xla_dump_to={programs} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=_(search|gather|reduce|draw)"
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    command = [sys.executable, "-W", "error", "-m", "tests.subset_sum.eight_devices"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    compiled = [path.read_text() for path in programs.glob("*after_optimizations.txt")]
    return json.loads(run.stdout) | {"programs": compiled}


@pytest.mark.slow
def test_eight_devices_answer_as_one_does(found):
    assert found["devices"] == 8
    assert found["different"] == []


@pytest.mark.slow
def test_pure_functions_answer_on_eight_devices_as_on_one(found):
    assert found["pure"] == []


@pytest.mark.slow
def test_all_eight_devices_work(found):
    assert found["at_work"] == 8


@pytest.mark.slow
def test_candidates_on_the_devices_stay_there(found):
    brought = found["brought"]
    assert brought["deliberate"] == [brought["candidates"]]  # so a copy would have been seen
    assert brought["solve"] and sum(brought["solve"]) < brought["candidates"] / 2


@pytest.mark.slow
def test_another_number_of_rows_to_solve_compiles_nothing(found):
    assert found["compiled"] == {"again": [], "compiler speaks": True}


@pytest.mark.slow
def test_a_ticket_from_eight_devices_is_the_same_file(found):
    assert found["ticket"] == eight_devices.ticket_digest()


def test_a_layer_cut_elsewhere_compiles_nothing(caplog):
    weights = np.random.default_rng(0).uniform(-0.2, 0.2, (100, 6)).astype(np.float32)
    target, masks = mlp_target([weights]), []
    for chunk in (400, 352):
        job = plan_job(target, Pensia(8), ToleranceObjective(0.2, max_redraws=0), seed=1, chunk_weights=chunk)
        with jax.log_compiles(chunk == 352):
            masks.append(run_in_memory(job).masks)
    assert len(job.chunks) == 2 and "Compiling" not in caplog.text
    assert masks[0].keys() == masks[1].keys()
    for name, mask in masks[0].items():
        np.testing.assert_array_equal(mask, masks[1][name])


def test_one_device_may_be_chosen():
    device = jax.local_devices()[0]
    assert list(local_mesh([device]).devices) == [device]
    with jax.default_device(device):
        assert list(local_mesh().devices) == [device]
    with jax.default_device("cpu"):
        assert list(local_mesh().devices) == jax.local_devices(backend="cpu")


@pytest.mark.slow
def test_devices_say_nothing_to_each_other(found):
    """The programs that were compiled for all eight hold no operation that exchanges anything."""
    many = [text for text in found["programs"] if "num_partitions=8" in text]
    names = {re.findall(r"^HloModule jit_(\w+?)[,.]", text)[0].strip("_") for text in many}
    assert names >= {"search", "gather", "reduce_on_devices", "draw_products", "closest_search"}
    talk = re.compile(r"(?:all-(?:reduce|gather|to-all)|collective|reduce-scatter|\bsend\b|\brecv\b).*")
    assert [words for text in many for words in talk.findall(text)] == []


def test_first_leaves_the_rest_out():
    candidates, targets = eight_devices.uniform(40, 6)
    whole = solve(Problem(candidates, targets, 0.01), MeetInTheMiddle())
    part = solve(Problem(candidates, targets, 0.01), MeetInTheMiddle(), count=17)
    np.testing.assert_array_equal(part.bits, whole.bits[:17])
    candidates[17:] = np.nan  # what is not asked for need not even be a number
    again = solve(Problem(candidates, targets, 0.01), MeetInTheMiddle(), count=17)
    np.testing.assert_array_equal(again.bits, part.bits)
