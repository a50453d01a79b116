"""Every way to trained tickets by its name; a new one is its own file and one line here."""

from lottery_jax.learned.base import Learner
from lottery_jax.trained.by_chance import RandomAtStart, SmartRatio
from lottery_jax.trained.from_scratch import PruningFromScratch
from lottery_jax.trained.magnitude import IterativeMagnitude, Magnitude, MagnitudeReinit, MagnitudeSupermask
from lottery_jax.trained.salient import Grasp, Snip, Synflow

TRAINED: dict[str, type[Learner]] = {
    learner.name: learner
    for learner in (
        *(Magnitude, IterativeMagnitude, MagnitudeReinit, MagnitudeSupermask),
        *(Snip, Grasp, Synflow, RandomAtStart, SmartRatio, PruningFromScratch),
    )
}
