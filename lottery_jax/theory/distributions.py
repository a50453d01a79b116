"""Every kind of random problem by its name; a new one is a class of its own and one line here."""

import dataclasses

from lottery_jax.errors import InputError, suggest
from lottery_jax.theory.candidates import (
    Candidates,
    FixedSizeCandidates,
    GadgetCandidates,
    ProductCandidates,
    QuantisedCandidates,
    ScalarCandidates,
    SizedCandidates,
)
from lottery_jax.theory.vectors import VectorCandidates

DISTRIBUTIONS: dict[str, type[Candidates]] = {
    kind.name: kind
    for kind in (
        ScalarCandidates,
        ProductCandidates,
        GadgetCandidates,
        FixedSizeCandidates,
        QuantisedCandidates,
        VectorCandidates,
    )
}


def candidates_named(name: str | Candidates) -> Candidates:
    """The distribution of a name with its usual options, or of a label, "fixed-size 4"; raises `InputError`.

    >>> candidates_named("quantised 4")
    QuantisedCandidates(size=4)
    """
    if isinstance(name, Candidates):
        return name
    kind, _, size = name.partition(" ")
    if kind not in DISTRIBUTIONS:
        raise InputError(f"distribution {kind!r} is unknown; {suggest(kind, DISTRIBUTIONS)}")
    found = DISTRIBUTIONS[kind]()
    if not size:
        return found
    if not isinstance(found, SizedCandidates) or not size.isdecimal():
        raise InputError(f"distribution {name!r} is unknown; {kind} has no size {size!r}")
    return dataclasses.replace(found, size=int(size))
