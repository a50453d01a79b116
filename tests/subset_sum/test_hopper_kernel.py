"""The kernel for Hopper GPUs, without one: equal to XLA in the interpreter, lowered for CUDA, barriers in place."""

import functools
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax.subset_sum import MeetInTheMiddle, Problem, solve
from lottery_jax.subset_sum.engine.grid import Grid
from lottery_jax.subset_sum.search.sorted_sums import closest_pair, closest_subset
from tests.subset_sum import ptx

pytest.importorskip("jax.experimental.pallas.mosaic_gpu", reason="this JAX has no Mosaic GPU")
from lottery_jax.subset_sum.kernels import hopper


def instances(count: int) -> tuple[jax.Array, jax.Array]:
    """int32 [N, 7] and [7]: uniform, large, ties, zeros, duplicates, all negative, out of reach."""
    rng = np.random.default_rng(count)
    most = 2**29 // count
    kinds = [
        rng.integers(-most, most, count),
        rng.choice([-1, 1], count) * (most - 1),
        rng.integers(-3, 4, count),
        np.where(rng.random(count) < 0.5, 0, rng.integers(-most, most, count)),
        np.full(count, 12345),
        -rng.integers(0, most, count),
        rng.integers(-most, most, count),
    ]
    targets = [*rng.integers(-most, most, 2), 1, *rng.integers(-most, most, 3), 2**29 - 1]
    return jnp.asarray(np.stack(kinds, 1), jnp.int32), jnp.asarray(targets, jnp.int32)


@pytest.mark.parametrize("count", [pytest.param(n, marks=pytest.mark.slow) for n in (18, 19, 20, 21, 22)])
def test_interpreted_kernel_is_bit_equal_to_xla(count):
    # Not exported by any JAX so far.
    interpreter = pytest.importorskip("jax._src.pallas.mosaic_gpu.interpret.params", reason="JAX without interpreter")
    find_pair = functools.partial(hopper.pair_in_registers, interpret=interpreter.InterpretGPUParams())
    candidates, targets = instances(count)
    interpreted = jax.jit(
        functools.partial(closest_subset, find_pair=find_pair),
        compiler_options={"xla_backend_optimization_level": 0},  # thousands of steps, run twice: compiling is the cost
    )
    np.testing.assert_array_equal(interpreted(candidates, targets), jax.jit(closest_subset)(candidates, targets))


def trace(count: int, dtype: type = jnp.int32):
    shapes = jax.ShapeDtypeStruct((count, 64), dtype), jax.ShapeDtypeStruct((64,), dtype)
    return jax.jit(functools.partial(closest_subset, find_pair=hopper.closest_pair)).trace(*shapes)


def lowered(count: int, platform: str, dtype: type = jnp.int32) -> str:
    return trace(count, dtype).lower(lowering_platforms=(platform,)).as_text()


def test_kernel_lowers_for_cuda_and_for_nothing_else():
    text = lowered(21, "cuda")
    assert text.count("custom_call @mosaic_gpu") == 1
    assert "mosaic" not in lowered(21, "cpu")


def mosaic_module(count: int) -> str:
    """The kernel in MLIR, as Mosaic GPU hands it to the compiler on the GPU's host."""
    from jax._src.interpreters import mlir
    from jax._src.lib.mlir import ir
    from jax.experimental.mosaic import gpu

    found = []

    def visit(op):
        if op.name == "stablehlo.custom_call" and "mosaic" in str(op.attributes["call_target_name"]):
            found.append(ir.StringAttr(op.attributes["mhlo.backend_config"]["module"]).value_bytes)
        return ir.WalkResult.ADVANCE

    trace(count).lower(lowering_platforms=("cuda",)).compiler_ir().operation.walk(visit)
    context = mlir.make_ir_context()
    gpu.dialect.register_dialect(context)
    context.allow_unregistered_dialects = True
    with context, ir.Location.unknown():
        return str(ir.Module.parse(found[0]))


@pytest.mark.parametrize("wide_types", [False, True])
def test_lowered_kernel_compares_with_sign_and_moves_single_words(wide_types):
    # Both went wrong on the way here, and neither shows in the interpreter.
    with jax.enable_x64(wide_types):
        text = mosaic_module(19)
    assert "arith.minsi" in text and "arith.minui" not in text and "arith.maxui" not in text
    assert not any(word in text for word in ("ldmatrix", "stmatrix"))


@pytest.mark.slow
@pytest.mark.parametrize("count", [18, 19, 20, 21, 23, 24])
def test_compiled_kernel_is_bit_equal_to_xla(count, tmp_path):
    """The machine's own instructions: compiled for a Hopper GPU, which needs none, and run one by one by `ptx`."""
    pytest.importorskip("jax_cuda12_plugin", reason="compiling for CUDA needs JAX's CUDA plugin, of JAX's own version")
    script = Path(__file__).parents[2] / "benchmarks" / "compile_kernel_gpu.py"
    done = subprocess.run(
        [sys.executable, script, f"--candidates={count}", f"--out={tmp_path}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "0 bytes spill stores, 0 bytes spill loads" in done.stdout
    (compiled,) = tmp_path.glob("*.ptx")

    problems = 1024  # as the script compiles it
    candidates, targets = (jnp.tile(x, 147)[..., :problems] for x in instances(count))
    targets += 10 * jnp.arange(problems, dtype=jnp.int32)
    given, expected = [], []

    def find_pair(left, right, goals):
        given[:] = (np.array(x) for x in hopper.kernel_inputs(left, right, goals))
        expected[:] = (np.array(x) for x in closest_pair(left, right, goals))
        return closest_pair(left, right, goals)

    closest_subset(candidates, targets, find_pair)
    out = np.zeros((problems, 32), np.int32)
    counts = ptx.run(compiled.read_text(), [*given, out], problems // 4)
    for column, answer in enumerate(expected):
        np.testing.assert_array_equal(out[:, column], answer)
    assert counts.turns == counts.accesses  # no two lanes of a warp at the same bank


@pytest.mark.slow
@pytest.mark.parametrize("count", [18, 20, 22, 23, 24, 25])
def test_kernel_lowers_for_every_size(count):
    assert "custom_call @mosaic_gpu" in lowered(count, "cuda")


@pytest.mark.parametrize(("count", "dtype"), [(16, jnp.int32), (26, jnp.int32), (18, jnp.int64)])
def test_other_sizes_and_the_wide_grid_stay_with_xla(count, dtype):
    with jax.enable_x64(dtype == jnp.int64):
        assert "mosaic" not in lowered(count, "cuda", dtype)


@pytest.mark.parametrize("kernel", [False, True])
def test_the_switch_is_wired(kernel):
    solver = MeetInTheMiddle(hopper_kernel=kernel)
    candidates, each = jax.ShapeDtypeStruct((18, 8), jnp.int32), jax.ShapeDtypeStruct((8,), jnp.int32)
    search = jax.jit(lambda grid: solver.search(grid, None))
    text = search.trace(Grid(candidates, each, each, each)).lower(lowering_platforms=("cuda",)).as_text()
    assert ("mosaic" in text) == kernel


def test_the_switch_changes_no_answer_where_there_is_no_kernel():
    rng = np.random.default_rng(0)
    problem = Problem(rng.uniform(-1, 1, (5, 6)).astype(np.float32), rng.uniform(-1, 1, 5).astype(np.float32), 0.01)
    plain, switched = (solve(problem, MeetInTheMiddle(hopper_kernel=kernel)) for kernel in (False, True))
    np.testing.assert_array_equal(plain.bits, switched.bits)


def jaxprs_of(eqn):
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(item, "jaxpr", item)
            if hasattr(inner, "eqns"):
                yield inner


def scratch_jaxpr(jaxpr):
    """The first jaxpr below that allocates shared memory, depth first."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "run_scoped":
            return eqn.params["jaxpr"]
        for inner in jaxprs_of(eqn):
            if (found := scratch_jaxpr(inner)) is not None:
                return found
    return None


def hazards(jaxpr, roots, fresh, found):
    """Reads (writes) of a shared array that no barrier separates from earlier writes (reads), added to `found`.

    roots: variable to the name of its array; fresh: accesses since the last barrier.
    """
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "commit_smem":
            fresh.clear()
        elif name in ("get", "load", "swap", "store") and eqn.invars[0] in roots:
            root = roots[eqn.invars[0]]
            kind, other = ("read", "write") if name in ("get", "load") else ("write", "read")
            found += [f"{kind} of {root}"] if (other, root) in fresh else []
            fresh.add((kind, root))
        elif name == "scan":
            (inner,) = jaxprs_of(eqn)
            passed = zip(inner.invars, eqn.invars, strict=True)
            inside = {var: roots[out] for var, out in passed if not hasattr(out, "val") and out in roots}
            for _ in range(2):  # from one turn of the loop to the next as well
                hazards(inner, inside, fresh, found)
        else:
            used = {roots[var] for var in eqn.invars if not hasattr(var, "val") and var in roots}
            assert not used, f"{name} touches {used}"
    return found


@pytest.mark.parametrize("count", [19, 21, 24])
def test_a_barrier_stands_between_writes_and_reads_of_shared_memory(count):
    d = jax.ShapeDtypeStruct((count // 2, 8), jnp.int32)
    goals = [jax.ShapeDtypeStruct((8,), jnp.int32)] * (1 + count % 2)
    body = scratch_jaxpr(jax.make_jaxpr(hopper.pair_in_registers)(d, d, goals).jaxpr)
    assert len(body.invars) == 3
    roots = dict(zip(body.invars, ("first", "second", "third"), strict=True))
    assert hazards(body, roots, set(), []) == []
