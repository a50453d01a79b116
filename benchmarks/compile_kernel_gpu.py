"""Compile the Pallas kernel for Hopper GPUs to machine code without a GPU, and say what registers it takes.

Command: python benchmarks/compile_kernel_gpu.py --candidates 21 --out FOLDER
Needs no GPU, but the CUDA part of JAX and NVIDIA's assembler: pip install jax-cuda12-plugin jax-cuda12-pjrt (of
JAX's own version) nvidia-cuda-nvcc-cu12, with --no-deps if nothing is to run. Ten seconds. Leaves the PTX in FOLDER,
which tests/subset_sum/ptx.py can run on a CPU, and prints the assembler's lines.
"""

import argparse
import functools
import importlib.util
import os
import sys
from pathlib import Path

PROBLEMS = 1024
# What XLA asks of the machine it compiles for: an H100 or H200 of the SXM kind.
TARGET = """
gpu_device_info {
  cuda_compute_capability { major: 9 } core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84978434048
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 3 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def compile_kernel(candidates: int) -> None:
    import jax
    import jax.numpy as jnp
    from jax.experimental import topologies

    from lottery_jax.subset_sum.kernels import hopper
    from lottery_jax.subset_sum.search.sorted_sums import closest_subset

    machine = topologies.get_topology_desc("hopper", "cuda", topology="1x1x1", target_config=TARGET)
    there = jax.sharding.SingleDeviceSharding(machine.devices[0])
    search = jax.jit(functools.partial(closest_subset, find_pair=hopper.closest_pair), out_shardings=there)
    shapes = (candidates, PROBLEMS), (PROBLEMS,)
    given = [jax.ShapeDtypeStruct(shape, jnp.int32, sharding=there) for shape in shapes]
    search.trace(*given).lower(lowering_platforms=("cuda",)).compile()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compile the Hopper kernel without a GPU.")
    parser.add_argument("--candidates", type=int, default=21)
    parser.add_argument("--out", type=Path, required=True, help="folder for the PTX")
    arguments = parser.parse_args()
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        sys.exit("needs jax-cuda12-plugin and jax-cuda12-pjrt of JAX's own version, and nvidia-cuda-nvcc-cu12")
    arguments.out.mkdir(parents=True, exist_ok=True)
    # Read when the plugin compiles.
    os.environ |= {"JAX_PLATFORMS": "cpu", "MOSAIC_GPU_DUMP_TO": str(arguments.out)}
    os.environ |= {"MOSAIC_GPU_DUMP_PTX": "1", "MOSAIC_GPU_DUMP_PTXAS": "1"}
    compile_kernel(arguments.candidates)
    for report in sorted(arguments.out.glob("*.ptxas")):
        print(report.read_text(), end="")
