"""Every theorem by its name, in the order of the table; a new one is a class of its own and one line here."""

from lottery_jax.errors import InputError, suggest
from lottery_jax.theory.gadgets import DaCunha2022, Natale2024, Pensia2020, PensiaLower
from lottery_jax.theory.other_depths import Burkholz2022, Kumar2025, Otsuka2025
from lottery_jax.theory.theorem import Theorem

THEOREMS: dict[str, type[Theorem]] = {
    found.name: found
    for found in (
        Pensia2020,
        PensiaLower,
        Natale2024,
        Burkholz2022,
        DaCunha2022,
        Otsuka2025,
        Kumar2025,
    )
}


def theorem_named(name: str) -> Theorem:
    """The theorem of a name with its usual constants; raises `InputError`.

    >>> theorem_named("pensia").paper
    'Pensia et al. 2020, arXiv 2006.07990, Theorem 1'
    """
    if name not in THEOREMS:
        raise InputError(f"theorem {name!r} is unknown; {suggest(name, THEOREMS)}")
    return THEOREMS[name]()
