"""What the verifier found in a ticket: a flat row for a machine, sentences for a person, an exit code.

`lottery-jax export`: the weights that a ticket makes, for other programs; or the ticket itself, stored otherwise.
`lottery-jax verify`: check a ticket file with nothing but its seed and its bits.
"""

import dataclasses
import json
import math
from typing import Any, TextIO

from lottery_jax.bounds import BoxVerification, verify_box
from lottery_jax.cli.progress_bars import progress_bars
from lottery_jax.cli.settings import Export, Verify
from lottery_jax.errors import InputError
from lottery_jax.importers.state_dict import target_like
from lottery_jax.io.files import check_overwrite
from lottery_jax.networks.rewrites import quantise
from lottery_jax.tickets.export import export_into, export_masks, export_weights
from lottery_jax.tickets.ticket import load_ticket
from lottery_jax.tickets.verify import verify

CODES = {"holds": 0, "broken": 1, "no guarantee": 4}
"""Exit codes of the verifier's outcomes."""


def certified(certificate: Any, ticket_bytes: int) -> dict[str, Any]:
    """The verifier's findings as one flat row, with the names that records use."""
    found = dataclasses.asdict(certificate)
    per_weight = None
    if certificate.target_weights is not None:
        per_weight = certificate.kept_weights / certificate.target_weights
    return found | {
        "kept_per_target_weight": per_weight,
        "description_bits": sum(certificate.description_bits.values()),
        "description_bits_by_part": certificate.description_bits,
        "rounding_bits_per_target_weight": certificate.rounding_bits_per_target_weight,
        "holds": certificate.holds,
        "ticket_bytes": ticket_bytes,
    }


def show(found: dict[str, Any], results: TextIO, *, as_json: bool) -> int:
    """Print a verified ticket for a machine or a person; the exit code says whether it keeps its promise."""
    if as_json:
        print(json.dumps(found), file=results)
    else:
        print("\n".join(sentences(found)), file=results)
    return CODES[found["outcome"]]


def sentences(found: dict[str, Any]) -> list[str]:
    r"""What a verified ticket is, in words.

    >>> row = {"ticket": "t", "ticket_bytes": 9, "method": "random", "seed": 0, "source_weights": 1200,
    ...        "kept_weights": 30, "redrawn_blocks": 0, "target_weights": None, "samplers": ("U[-1, 1]",),
    ...        "description_bits": 800, "bits_per_target_weight": 66.7, "outcome": "no guarantee", "reasons": (),
    ...        "nonnegative_inputs": True,
    ...        "network": "1 layer: fc1.weight [3, 4] ([out, in]), inputs [4] never negative"}
    >>> print("\n".join(sentences(row)))
    t: 9 bytes, made by random from seed 0; its checksums and its source are as they were written.
    Its source has 1,200 random weights from U[-1, 1]; its masks keep 30 (0 blocks were drawn again).
    It stands for a network of 1 layer: fc1.weight [3, 4] ([out, in]), inputs [4] never negative.
    Everything that was free in it takes 800 bits: tree, seed, masks and what was drawn again; 66.700 for each weight.
    PROMISES NOTHING: it brings no target, so there are no residuals to check.
    """
    samplers = list(found["samplers"])
    drawn = ", ".join(samplers[:3]) + (f" and {len(samplers) - 3} others" if len(samplers) > 3 else "")
    again = f"{found['redrawn_blocks']:,} blocks were drawn again"
    if found["redrawn_blocks"]:
        again += f", {found['largest_attempt']} times at most"
    lines = [
        f"{found['ticket']}: {found['ticket_bytes']:,} bytes, made by {found['method']}"
        f" from seed {found['seed']}; its checksums and its source are as they were written.",
        f"Its source has {found['source_weights']:,} random weights from {drawn}; its masks keep"
        f" {found['kept_weights']:,} ({again}).",
        f"It stands for a network of {found['network']}.",
        f"Everything that was free in it takes {found['description_bits']:,} bits: tree, seed, masks and"
        f" {'the weights that they keep' if found.get('trained') else 'what was drawn again'};"
        f" {found['bits_per_target_weight']:.3f} for each weight.",
    ]
    if found.get("rounding_bits_per_target_weight") is not None:
        lines.append(
            "Plain rounding of the target to a grid with the same largest residual takes"
            f" {found['rounding_bits_per_target_weight']:.3f} (docs/bits.md)."
        )
    if found.get("trained"):
        lines.append("Its kept weights were trained: they are stored, not drawn, so it is no strong ticket.")
        if found["outcome"] == "broken":
            return [*lines, f"BROKEN: {'; '.join(found['reasons'])}."]
        return [*lines, "PROMISES NOTHING: weights that were trained can be near to any target."]
    if found["outcome"] == "no guarantee":
        return [*lines, "PROMISES NOTHING: it brings no target, so there are no residuals to check."]
    if found["target_weights"] is not None:
        lines += _residuals(found)
    if "accuracy" in found:
        lines.append(
            f"Test accuracy {100 * found['accuracy']:.2f} %"
            f" (target {100 * found['target_accuracy']:.2f} %), {100 * found['agreement']:.2f} % equal"
            f" predictions, largest |f - g| {found['max_deviation']:.3g}: {found['evaluated']}."
        )
    if "solved_weights" in found:
        lines.append(
            f"{found['solved_weights']:,} weights were solved in {found['search_seconds']:.2f} s, and"
            f" {found['compilation_seconds']:.2f} s of compilation ({found['found_weights']:,} were there from before)."
        )
    if "output_bound" in found:
        low, high = found["box"]
        lines.append(
            f"On all inputs from {low:g} to {high:g} its outputs are at most {found['output_bound']:.3g} from the"
            f" target's (by intervals {found['output_bound_by_intervals']:.3g}, by lines"
            f" {found['output_bound_by_lines']:.3g}); a search for the worst input found"
            f" {found['output_searched']:.3g}."
        )
        if found["output_promised"] is not None:
            lines.append(
                f"Of every ticket within {found['tolerance']:g} of each weight, whatever its residuals, it could be"
                f" said before: at most {found['output_promised']:.3g}."
            )
    target = f"the target {found['target_sha256'][:16]}..."
    if found["own_target"]:
        target += ", which is the ticket's own word"
    if found["outcome"] == "holds":
        inputs = {None: "", True: ", for inputs that are never negative", False: ", for inputs of any sign"}
        return [*lines, f"HOLDS for {target}{inputs[found['nonnegative_inputs']]}."]
    return [*lines, f"BROKEN: {'; '.join(found['reasons'])} ({target})."]


def _limit(found: dict[str, Any]) -> str:
    if found.get("relative_tolerance") is None:
        return f"{found['tolerance']:g}"
    return f"{found['relative_tolerance']:.4g} of their tensor's largest, {found['tolerance']:.4g} at most"


def _residuals(found: dict[str, Any]) -> list[str]:
    index = ", ".join(map(str, found["worst_weight"]))
    lines = [
        f"{found['within_tolerance']:,} of {found['target_weights']:,} target weights are within"
        f" {_limit(found)}; the mean residual is {found['mean_residual']:.3g}, the worst"
        f" {found['worst_residual']:.3g} ({found['worst_tensor']}[{index}]); {found['kept_per_target_weight']:.3f}"
        " random weights are kept for each.",
    ]
    if found["kept_budget"] is not None:
        lines.append(
            f"It promises to keep at most {found['kept_budget']:,} weights; {found['tolerance']:g} is what its"
            " residuals came to."
        )
    if found["network_deviation"] is not None:
        lines.append(
            f"Its float32 network is within {found['network_deviation']:.2g} of what these weights compute, on random"
            " inputs."
        )
    return lines


def run_export(command: Export, results: TextIO) -> int:
    """Write the file and say what is in it."""
    check_overwrite(command.out, force=command.force)
    chosen = [command.into is not None, command.masks, command.coded, command.plain]
    if sum(chosen) > 1:
        raise InputError("--into, --masks, --coded and --plain each say what is written; give one of them at most")
    ticket = load_ticket(command.ticket)
    if command.coded or command.plain:
        size = ticket.save(command.out, coded=command.coded)
        written = f"the ticket, {size:,} bytes, its masks {'coded' if command.coded else 'one bit for each weight'}"
    elif command.into is not None:
        bag = ticket.network.input_spec is None
        model = None if bag else target_like(ticket.network, command.into).network
        written = export_into(ticket, command.into, command.out, model)
    else:
        written = (export_masks if command.masks else export_weights)(ticket, command.out)
    print(f"{command.out}: {written}", file=results)
    return 0


def run_verify(command: Verify, results: TextIO) -> int:
    """Say what the verifier finds; the exit code is its outcome."""
    ticket = load_ticket(command.ticket)
    target = None
    if command.target is not None:
        target = target_like(ticket.network, command.target, name=command.architecture, width=command.width)
    if command.quantise_target is not None:
        if target is None:
            raise InputError("--quantise-target rounds the target that a ticket is held to; give that with --target")
        target = quantise(target, command.quantise_target)
    with progress_bars(quiet=command.quiet) as shown:
        options = {"target": target, "tolerance": command.tolerance}
        if command.box is None:
            certificate, bounds = verify(ticket, **options, progress=shown.part("verifying")), {}
        else:
            verification = verify_box(ticket, **options, box=command.box, stages=shown.part)
            certificate, bounds = verification.certificate, _output_bounds(verification, command.box)
        found = certified(certificate, command.ticket.stat().st_size) | {"ticket": str(command.ticket)} | bounds
    return show(found, results, as_json=command.json)


def _output_bounds(verification: BoxVerification, box: tuple[float, float]) -> dict[str, Any]:
    """Bounds of the outputs on a box as fields of the row; empty for a ticket that does not hold."""
    bound = verification.output_bound
    if bound is None:
        return {}
    from_tolerance = math.inf if bound.from_tolerance is None else float(bound.from_tolerance.max())
    return {
        "box": list(box),
        "output_bound": bound.largest,
        "output_bound_by_intervals": float(bound.interval.max()),
        "output_bound_by_lines": float(bound.linear.max()),
        "output_promised": from_tolerance if math.isfinite(from_tolerance) else None,
        "output_searched": verification.largest_found,
    }
