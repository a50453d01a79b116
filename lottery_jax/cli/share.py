"""`lottery-jax approximate --share K/N`: a part of the chunks, and what is there of the whole."""

import json
from typing import TextIO

from lottery_jax.cli.settings import Approximate
from lottery_jax.cluster.share import Share
from lottery_jax.constructions.job import Job
from lottery_jax.constructions.share import missing, run_share
from lottery_jax.progress import Progress


def solve_share(command: Approximate, share: Share, job: Job, progress: Progress, results: TextIO) -> int:
    """Solve a share, and say what is there of the whole."""
    done = run_share(job, command.out, share, force=command.force, progress=progress)
    chunks, left = len(job.chunks), 0 if done.path else len(missing(job, command.out))
    if command.json:
        facts = {"share": str(share), "chunks": chunks, "finished_chunks": chunks - left, "missing_chunks": left}
        facts |= {"solved_weights": done.solved, "found_weights": done.found}
        print(json.dumps(facts | {"ticket": None if done.path is None else str(done.path)}), file=results)
    elif done.path is not None:
        print(f"the ticket is there already, {str(done.path)!r}; nothing is left for share {share}", file=results)
    else:
        are = "is" if left == 1 else "are"
        then = f"{left:,} {are} missing; the same command without --share joins them when the others are done"
        if not left:
            then = "none is missing; the same command without --share joins them"
        print(f"share {share} is done: {chunks - left:,} of {chunks:,} chunks are there, {then}", file=results)
    return 0
