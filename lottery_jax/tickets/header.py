"""The header of a ticket's file: every field is typed and bounded when it is read, because a file is untrusted."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any

from lottery_jax.errors import InputError, shown
from lottery_jax.networks.network import Network, network_from_json
from lottery_jax.rng import sampler

FORMAT = "lottery_jax ticket"

_MAX_DEPTH = 64  # of settings

VERSION = 3
"""Version of the file; tickets of another version are refused."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What a ticket's file says about itself.

    Attributes:
        source_sha256: Checksum of a sample of the random weights.
        tolerance: Promised largest residual, 0 for equality; None for a ticket without a guarantee.
        kept_budget: Promised largest number of kept weights, if any.
        settings: How it was made, JSON values for the reader; nothing else depends on them.
        relative: True if the tolerance is a fraction of each tensor's largest ``|target weight|``.

    Raises:
        InputError: A field has a wrong type or value.
    """

    network: Network
    seed: int
    method: str
    source_sha256: str
    tolerance: float | None = None
    kept_budget: int | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    relative: bool = False

    def __post_init__(self) -> None:
        if type(self.seed) is not int or not 0 <= self.seed < 2**64:
            raise InputError(f"seed must be a whole number in [0, 2**64), not {shown(self.seed)}")
        if not isinstance(self.method, str) or not 0 < len(self.method) <= 100:
            raise InputError(f"method must be a name, not {shown(self.method)}")
        if not isinstance(self.source_sha256, str) or len(self.source_sha256) != 64:
            raise InputError("the checksum of the source must be a SHA-256 in hexadecimal digits")
        if self.tolerance is not None:
            check_tolerance(self.tolerance, zero=True)
        if type(self.relative) is not bool or (self.relative and not self.tolerance):
            raise InputError("relative must be true or false, and true only with a positive tolerance")
        budget = self.kept_budget
        if budget is not None and (type(budget) is not int or budget < 0):
            raise InputError(f"kept_budget must be a whole number from 0 up, not {shown(budget)}")
        if not isinstance(self.settings, Mapping):
            raise InputError("settings must be names and values")
        if _is_deeper(self.settings, _MAX_DEPTH):
            raise InputError(f"settings must be nested at most {_MAX_DEPTH} deep")
        try:
            # A file with NaN or half a surrogate pair would be refused when it is read.
            json.dumps(dict(self.settings), allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise InputError(
                f"settings must be finite JSON values, got {shown(self.settings)} ({error}). Omit it."
            ) from None

    def to_json(self) -> dict[str, Any]:
        """The header as JSON values."""
        fields = {**vars(self), "network": self.network.to_json(), "settings": dict(self.settings)}
        if not self.relative:
            del fields["relative"]  # as in files that are older than this field
        return {"format": FORMAT, "version": VERSION, "sampler_version": sampler.SAMPLER_VERSION, **fields}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Header":
        """Inverse of `to_json`, for a row whose format and versions are known to be right; raises `InputError`."""
        fields = dict(row)
        for name in ("format", "version", "sampler_version"):
            fields.pop(name, None)
        wanted = set(cls.__dataclass_fields__)
        if {*fields, "relative"} != wanted:
            raise InputError(f"its header must have the fields {sorted(wanted)}, relative or not, and no others")
        return cls(**{**fields, "network": network_from_json(fields["network"])})


def _is_deeper(value: Any, depth: int) -> bool:
    """True if JSON is nested deeper than `depth`, so that writing it may fail."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return depth < 0 or any(_is_deeper(part, depth - 1) for part in parts)


_WRITTEN_BY = {1: "lottery_jax 0.1", 2: "lottery_jax 0.2"}


def version_mismatch(row: Mapping[str, Any]) -> str | None:
    """Why a ticket of these versions cannot be read; None if it can.

    >>> version_mismatch({"version": 2, "sampler_version": 1})
    'was written by lottery_jax 0.2 (ticket version 2), and this program reads version 3. Make the ticket again.'
    """
    version, sampler_version = row.get("version"), row.get("sampler_version")
    if type(version) is int and version != VERSION:
        writer = _WRITTEN_BY.get(version, "another lottery_jax")
        return (
            f"was written by {writer} (ticket version {shown(version)}), and this program reads version {VERSION}."
            " Make the ticket again."
        )
    if (version, sampler_version) != (VERSION, sampler.SAMPLER_VERSION):
        return (
            f"has the ticket version {shown(version)} and the sampler version {shown(sampler_version)}, and this"
            f" program reads {VERSION} and {sampler.SAMPLER_VERSION}. Make the ticket again."
        )
    return None


def check_tolerance(tolerance: Any, *, zero: bool = False) -> float:
    """The tolerance as a float, or `InputError`; `zero`: True to allow 0, which asks for equality."""
    # Compared, because a long integer has no float.
    number = type(tolerance) in (int, float) and tolerance <= sys.float_info.max
    if not (number and (tolerance > 0 or (zero and tolerance == 0))):
        allowed = "finite number from 0 up" if zero else "positive finite number"
        raise InputError(f"tolerance must be a {allowed}, not {shown(tolerance)}; for example 0.01")
    return float(tolerance)
