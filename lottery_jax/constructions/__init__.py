"""Constructions: published theorems made executable, from a target to a ticket by subset sums."""

from lottery_jax.constructions.base import Construction, SignBranch, TensorProblem
from lottery_jax.constructions.binary import Binary
from lottery_jax.constructions.burkholz import Burkholz
from lottery_jax.constructions.dacunha import DaCunha
from lottery_jax.constructions.ferbach import Ferbach
from lottery_jax.constructions.kumar import Kumar
from lottery_jax.constructions.malach import Malach
from lottery_jax.constructions.natale import Natale
from lottery_jax.constructions.orseau import Orseau
from lottery_jax.constructions.otsuka import Otsuka
from lottery_jax.constructions.pensia import Pensia
from lottery_jax.constructions.registry import CONSTRUCTIONS, construction_named
from lottery_jax.constructions.scalar import Scalar, ScalarShared

__all__ = [
    "CONSTRUCTIONS",
    "Binary",
    "Burkholz",
    "Construction",
    "DaCunha",
    "Ferbach",
    "Kumar",
    "Malach",
    "Natale",
    "Orseau",
    "Otsuka",
    "Pensia",
    "Scalar",
    "ScalarShared",
    "SignBranch",
    "TensorProblem",
    "construction_named",
]
