"""What the verifier found in a ticket: a flat row for a machine, sentences for a person."""

import dataclasses
import json
from typing import Any, TextIO


def certified(certificate: Any, ticket_bytes: int) -> dict[str, Any]:
    """The verifier's findings as one flat row, with the names that records use."""
    found = dataclasses.asdict(certificate)
    per_weight = None
    if certificate.target_weights is not None:
        per_weight = certificate.kept_weights / certificate.target_weights
    return found | {
        "kept_per_target_weight": per_weight,
        "within_budget": certificate.within_budget,
        "holds": certificate.holds,
        "ticket_bytes": ticket_bytes,
    }


def show(found: dict[str, Any], results: TextIO, *, as_json: bool) -> int:
    """Print a verified ticket for a machine or a person; the exit code says whether it keeps its promise."""
    if as_json:
        print(json.dumps(found), file=results)
    else:
        print("\n".join(sentences(found)), file=results)
    return 0 if found["holds"] else 1


def sentences(found: dict[str, Any]) -> list[str]:
    r"""What a verified ticket is, in words.

    >>> row = {"ticket": "t", "ticket_bytes": 9, "method": "random", "seed": 0, "source_weights": 1200,
    ...        "kept_weights": 30, "redrawn_blocks": 0, "target_weights": None}
    >>> print("\n".join(sentences(row)))
    t: 9 bytes, made by random from seed 0; its checksums and its source are as they were written.
    Its source has 1,200 random weights; its masks keep 30.
    It promises no target: there are no residuals to check.
    """
    lines = [
        f"{found['ticket']}: {found['ticket_bytes']:,} bytes, made by {found['method']}"
        f" from seed {found['seed']}; its checksums and its source are as they were written."
    ]
    kept = f"Its source has {found['source_weights']:,} random weights; its masks keep {found['kept_weights']:,}"
    if found["target_weights"] is None:
        return [*lines, kept + ".", "It promises no target: there are no residuals to check."]
    if found["worst_tensor"] is not None:
        worst = f"tensor {found['worst_tensor']}, index {list(found['worst_weight'][1:])}"
    else:
        worst = "layer {}, input {}, output {}".format(*found["worst_weight"])
    lines += [
        f"{kept}, {found['kept_per_target_weight']:.3f} for each of {found['target_weights']:,}"
        f" target weights ({found['redrawn_blocks']:,} blocks were drawn again).",
        f"{found['within_tolerance']:,} of {found['target_weights']:,} target weights are within"
        f" {found['tolerance']:g}; the mean residual is {found['mean_residual']:.3g}, the worst"
        f" {found['worst_residual']:.3g} ({worst}).",
    ]
    if found["kept_budget"] is not None:
        lines.append(
            f"It promises to keep at most {found['kept_budget']:,} weights; {found['tolerance']:g} is what its"
            " residuals came to."
        )
    if "accuracy" in found:
        lines.append(
            f"Test accuracy {100 * found['accuracy']:.2f} %"
            f" (target {100 * found['target_accuracy']:.2f} %), {100 * found['agreement']:.2f} % equal"
            f" predictions, largest |f - g| {found['max_deviation']:.3g}; found in {found['seconds']:.2f} s."
        )
    elif "solved_weights" in found:
        lines.append(
            f"{found['solved_weights']:,} weights were solved in {found['seconds']:.2f} s"
            f" ({found['found_weights']:,} were there from before)."
        )
    if found["within_tolerance"] < found["target_weights"]:
        lines.append("NOT VALID: not every target weight is within the tolerance.")
    if not found["within_budget"]:
        lines.append("NOT VALID: it keeps more weights than its budget.")
    return lines
