"""Every way to trained tickets by its name; a new one is its own file and one line here."""

from lottery_jax.learned.base import Learner
from lottery_jax.trained.at_start import Grasp, Snip, Synflow
from lottery_jax.trained.magnitude import IterativeMagnitude, Magnitude, MagnitudeReinit, MagnitudeSupermask

TRAINED: dict[str, type[Learner]] = {
    learner.name: learner
    for learner in (Magnitude, IterativeMagnitude, MagnitudeReinit, MagnitudeSupermask, Snip, Grasp, Synflow)
}
