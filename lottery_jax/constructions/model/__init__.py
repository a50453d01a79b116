"""A whole model, tensor by tensor: scalar mode for safetensors files of any size, in durable chunks."""

from lottery_jax.constructions.model.approximate import Finished, approximate_model, chunk_folder, run_job
from lottery_jax.constructions.model.chunks import Progress, solve_chunks
from lottery_jax.constructions.model.job import Chunk, Job, plan_job
from lottery_jax.constructions.model.merge import merge

__all__ = [
    "Chunk",
    "Finished",
    "Job",
    "Progress",
    "approximate_model",
    "chunk_folder",
    "merge",
    "plan_job",
    "run_job",
    "solve_chunks",
]
