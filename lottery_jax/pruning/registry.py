"""Every method of trained tickets, by name."""

from lottery_jax.pruning.at_initialisation import Grasp, RandomPruning, SmartRatio, Snip, Synflow
from lottery_jax.pruning.from_scratch import PruningFromScratch
from lottery_jax.pruning.magnitude import IterativeMagnitude, Magnitude, MagnitudeReinit, MagnitudeSupermask
from lottery_jax.training.learner import Learner

TRAINED: dict[str, type[Learner]] = {
    learner.name: learner
    for learner in (
        *(Magnitude, IterativeMagnitude, MagnitudeReinit, MagnitudeSupermask),
        *(Snip, Grasp, Synflow, RandomPruning, SmartRatio, PruningFromScratch),
    )
}
