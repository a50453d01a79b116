"""Run by test_devices.py in a process of its own, which sees eight devices: prints what it found as JSON."""

import hashlib
import json
import logging
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from lottery_jax import approximate, mlp_target
from lottery_jax.subset_sum import (
    MeetInTheMiddle,
    Problem,
    Randomized,
    Smallest,
    closest_subset,
    randomized_subset,
    smallest_subset,
    solve,
    subset_count,
)
from lottery_jax.subset_sum.engine.devices import local_mesh, problem_sharding

SOLVERS = MeetInTheMiddle(), Smallest(), Randomized(left=6, restarts=3)


def uniform(problems, count):
    rng = np.random.default_rng(problems)
    return (
        rng.uniform(-1, 1, (problems, count)).astype(np.float32),
        rng.uniform(-0.5, 0.5, problems).astype(np.float32),
    )


def answers(candidates, targets, solver, **options):
    solution = solve(Problem(candidates, targets, 0.01), solver, key=jax.random.key(1), **options)
    arrays = solution.bits, solution.residuals, solution.status
    return [(array.dtype.str, array.shape, array.tobytes()) for array in arrays]


def equal_to_one_device():
    """(problems, solver, how the problems were given) of answers that differ from a single device's."""
    different = []
    # Fewer problems than devices, and enough for many chunks.
    for problems, solvers in ((3, SOLVERS[:1]), (696, SOLVERS)):
        candidates, targets = uniform(problems, 8)
        given = {"host": candidates, "device": jnp.asarray(candidates)}
        if problems % 8 == 0:
            given["split"] = jax.device_put(candidates, problem_sharding(local_mesh()))
        for solver in solvers:
            alone = answers(candidates, targets, solver, devices=jax.local_devices()[2:3])
            for how, value in given.items():
                if answers(value, targets, solver) != alone:
                    different.append((problems, type(solver).__name__, how))
    part = answers(given["split"], targets, SOLVERS[0], count=500)
    if part != answers(candidates[:500], targets[:500], SOLVERS[0], devices=jax.local_devices()[:3]):
        different.append("first")
    return different


def pure_functions_on_a_mesh():
    """The pure functions under `shard_map` whose answers differ from those of one device."""
    candidates, targets = uniform(696, 8)
    mesh = Mesh(np.array(jax.devices()), ("x",))
    different = []

    def closest_search(candidates, targets):
        return closest_subset(candidates, targets, 0.01)

    def smallest_search(candidates, targets):
        return smallest_subset(candidates, targets, 0.01)

    def randomized_search(candidates, targets):
        return randomized_subset(candidates, targets, jax.random.key(1), 0.01, left=6, restarts=3)

    def count_search(candidates, targets):
        return subset_count((8 * candidates).astype(jnp.int32), (8 * targets).astype(jnp.int32))

    for function in (closest_search, smallest_search, randomized_search, count_search):
        split = jax.jit(jax.shard_map(function, mesh=mesh, in_specs=PartitionSpec("x"), out_specs=PartitionSpec("x")))
        pairs = zip(*(jax.tree.leaves(run(candidates, targets)) for run in (split, jax.jit(function))), strict=True)
        if any(np.asarray(one).tobytes() != np.asarray(other).tobytes() for one, other in pairs):
            different.append(function.__name__)
    return different


def devices_at_work():
    """How many devices hold a part of the answers."""
    candidates, targets = uniform(696, 8)
    seen = []
    fetch = jax.device_get
    jax.device_get = lambda arrays: seen.extend(jax.tree.leaves(arrays)) or fetch(arrays)
    try:
        answers(candidates, targets, MeetInTheMiddle())
    finally:
        jax.device_get = fetch
    return max(len(array.sharding.device_set) for array in seen)


def brought_to_the_host():
    """Bytes of each array that came to the host: a deliberate copy of split candidates, then a whole solve of them.

    Enough problems that a call of few, which has one shape for any number, would be less than they are.
    """
    candidates, targets = uniform(1 << 15, 12)
    split = problem_sharding(local_mesh())
    values, wanted = jax.device_put(candidates, split), jax.device_put(targets, split)
    kind, seen = type(values), []
    original = kind.__array__

    def recorded(self, *args, **options):
        seen.append(self.nbytes)
        return original(self, *args, **options)

    kind.__array__ = recorded
    try:
        np.asarray(values)
        deliberate = list(seen)
        seen.clear()
        answers(values, wanted, MeetInTheMiddle())
    finally:
        kind.__array__ = original
    return {"candidates": candidates.nbytes, "deliberate": deliberate, "solve": seen}


def compiled_again():
    """What the compiler says of a second batch of as many rows of which fewer are solved."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage()) if "Compiling" in record.msg else None
    logging.getLogger("jax").addHandler(handler)
    candidates, targets = uniform(696, 8)
    padded, other = jnp.asarray(candidates), jnp.asarray(-candidates)
    answers(padded, targets, MeetInTheMiddle(), count=690)
    with jax.log_compiles():
        answers(other, targets, MeetInTheMiddle(), count=601)
        again = len(messages)
        jax.jit(lambda: 0)()
    return {"again": messages[:again], "compiler speaks": len(messages) > again}


def ticket_digest():
    target = mlp_target([np.random.default_rng(4).uniform(-0.3, 0.3, (7, 90)).astype(np.float32)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ticket"
        approximate(target, seed=3, candidates=8, out=path)
        return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "devices": jax.local_device_count(),
                "different": equal_to_one_device(),
                "pure": pure_functions_on_a_mesh(),
                "at_work": devices_at_work(),
                "brought": brought_to_the_host(),
                "compiled": compiled_again(),
                "ticket": ticket_digest(),
            }
        )
    )
