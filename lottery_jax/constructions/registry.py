"""Every construction by name. A new theorem is one new file, an import and a name in `_ALL`."""

from lottery_jax.constructions.base import Construction
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
from lottery_jax.constructions.scalar import Scalar, ScalarShared
from lottery_jax.errors import InputError, suggest

_ALL = (Pensia, Scalar, ScalarShared, Natale, Malach, Orseau, Burkholz, Kumar, Binary, DaCunha, Ferbach, Otsuka)

CONSTRUCTIONS: dict[str, type[Construction]] = {construction.name: construction for construction in _ALL}


def construction_named(name: str) -> type[Construction]:
    """The construction class of a name; raises `InputError` if it is unknown."""
    if name not in CONSTRUCTIONS:
        raise InputError(f"construction {name!r} is unknown; {suggest(name, CONSTRUCTIONS)}")
    return CONSTRUCTIONS[name]
