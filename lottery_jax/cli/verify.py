"""`lottery-jax verify` and `export`: the certificate of a ticket file, and its weights, masks or another encoding."""

import dataclasses
import math
from typing import Any, TextIO

from lottery_jax.bounds import BoxVerification, verify_box
from lottery_jax.cli.messages import print_json, print_lines
from lottery_jax.cli.progress_bars import progress_bars
from lottery_jax.cli.settings import Export, Verify
from lottery_jax.errors import InputError, quoted
from lottery_jax.importers.onnx_target import is_onnx
from lottery_jax.importers.state_dict import target_like, target_of_network
from lottery_jax.io.files import check_overwrite, write_atomically
from lottery_jax.networks.network import clipped
from lottery_jax.tickets.certificate import Certificate
from lottery_jax.tickets.export import export_into, export_masks, export_weights
from lottery_jax.tickets.given_target import TargetFile, network_text
from lottery_jax.tickets.ticket import load_ticket
from lottery_jax.tickets.verify import verify

EXIT_CODES = {"holds": 0, "broken": 1, "no guarantee": 4}
"""Exit codes by outcome."""


def run_verify(command: Verify, results: TextIO) -> int:
    """Verify the ticket, and bound its outputs if a box is given; the exit code says the outcome."""
    ticket = load_ticket(command.ticket, limit=command.limit)
    target = None
    if command.target is not None:
        target = TargetFile(command.target, command.architecture, command.width, command.quantise_target)
    elif command.quantise_target is not None:
        raise InputError("--quantise-target rounds a given target; give it with --target")
    with progress_bars(quiet=command.quiet) as reporter:
        options = {"target": target, "expect": command.expect, "tolerance": command.tolerance}
        if command.box is None or ticket.network.input_spec is None:
            progress = reporter.part("verifying")
            certificate, bounds = verify(ticket, **options, box=command.box, progress=progress), {}
        else:
            verification = verify_box(ticket, **options, box=command.box, limit=command.limit, stages=reporter.part)
            certificate, bounds = verification.certificate, _output_row(verification)
        row = certificate_row(certificate, command.ticket.stat().st_size) | {"ticket": str(command.ticket)} | bounds
    return print_certificate(row, results, as_json=command.json)


def _output_row(verification: BoxVerification) -> dict[str, Any]:
    """Bounds of |f - g| on a box, and the largest difference that a search found; empty unless the ticket holds."""
    bound = verification.output_bound
    if bound is None:
        return {} if verification.not_bounded is None else {"output_not_bounded": verification.not_bounded}
    from_tolerance = math.inf if bound.from_tolerance is None else float(bound.from_tolerance.max())
    return {
        "output_bound": bound.largest,
        "output_bound_by_intervals": float(bound.interval.max()),
        "output_bound_by_lines": None if bound.linear is None else float(bound.linear.max()),
        "output_promised": from_tolerance if math.isfinite(from_tolerance) else None,
        "output_searched": verification.largest_found,
    }


def certificate_row(certificate: Certificate, ticket_bytes: int) -> dict[str, Any]:
    """The certificate as one flat row, with the names that records use."""
    per_weight = None
    if certificate.target_weights is not None:
        per_weight = certificate.kept_weights / certificate.target_weights
    return dataclasses.asdict(certificate) | {
        "kept_per_target_weight": per_weight,
        "description_bits": sum(certificate.description_bits.values()),
        "description_bits_by_part": certificate.description_bits,
        "rounding_bits_per_target_weight": certificate.rounding_bits_per_target_weight,
        "holds": certificate.holds,
        "ticket_bytes": ticket_bytes,
    }


def print_certificate(row: dict[str, Any], results: TextIO, *, as_json: bool) -> int:
    """Print a row as JSON or as sentences; returns the exit code of its outcome."""
    if as_json:
        print_json(row, results)
    else:
        print_lines(certificate_sentences(row), results)
    return EXIT_CODES[row["outcome"]]


def certificate_sentences(row: dict[str, Any]) -> list[str]:
    r"""A row of `certificate_row` in words; its last sentence is the outcome.

    >>> row = {"ticket": "t", "ticket_bytes": 9, "method": "random", "seed": 0, "source_weights": 1200,
    ...        "kept_weights": 30, "redrawn_blocks": 0, "target_weights": None, "samplers": ("U[-1, 1]",),
    ...        "description_bits": 800, "bits_per_target_weight": 66.7, "outcome": "no guarantee", "reasons": (),
    ...        "nonnegative_inputs": True,
    ...        "network": "1 layer: fc1.weight [3, 4] ([out, in]), inputs [4] never negative"}
    >>> print("\n".join(certificate_sentences(row)))
    t: 9 bytes, made by random from seed 0; its checksums and its random weights are intact.
    Source: 1,200 random weights from U[-1, 1]; the masks keep 30 (0 redrawn blocks).
    Network: 1 layer: fc1.weight [3, 4] ([out, in]), inputs [4] never negative.
    Description length: 800 bits for network, seed, masks and redraws; 66.700 per weight.
    NO GUARANTEE: the ticket contains no target to compare with.
    """
    samplers = list(row["samplers"])
    drawn = ", ".join(samplers[:3]) + (f" and {len(samplers) - 3} others" if len(samplers) > 3 else "")
    redraws = f"{row['redrawn_blocks']:,} redrawn blocks"
    if row["redrawn_blocks"]:
        redraws += f", at most {row['largest_attempt']} times each"
    lines = [
        f"{row['ticket']}: {row['ticket_bytes']:,} bytes, made by {quoted(row['method'])} from seed {row['seed']};"
        " its checksums and its random weights are intact.",
        f"Source: {row['source_weights']:,} random weights from {drawn}; the masks keep {row['kept_weights']:,}"
        f" ({redraws}).",
        f"Network: {row['network']}.",
        f"Description length: {row['description_bits']:,} bits for network, seed, masks and"
        f" {'kept weights' if row.get('trained') else 'redraws'}; {row['bits_per_target_weight']:.3f} per weight.",
    ]
    if row.get("rounding_bits_per_target_weight") is not None:
        lines.append(
            "Rounding the target to a grid with the same largest residual takes"
            f" {row['rounding_bits_per_target_weight']:.3f} bits per weight (docs/bits.md)."
        )
    if row.get("trained"):
        lines.append("Its kept weights were trained and are stored: it is not a strong lottery ticket.")
    if row["outcome"] == "no guarantee" and not row["reasons"]:
        why = "the ticket contains no target to compare with"
        if row.get("trained"):
            why = "trained weights can be close to any target"
        return [*lines, f"NO GUARANTEE: {why}."]
    broken = f"BROKEN: {'; '.join(row['reasons'])}"
    if row.get("trained"):
        return [*lines, f"{broken}."]
    if row["target_weights"] is not None:
        lines += _residual_sentences(row)
    if "accuracy" in row:
        lines.append(
            f"Test accuracy {100 * row['accuracy']:.2f} % (target {100 * row['target_accuracy']:.2f} %),"
            f" {100 * row['agreement']:.2f} % equal predictions, largest |f - g| {row['max_deviation']:.3g}:"
            f" {row['evaluated']}."
        )
    if "metric" in row:
        lines.append(
            f"Test {row['metric']} {row['metric_value']:.4g} (target {row['target_metric_value']:.4g}), |f - g|"
            f" {row['rms_deviation']:.3g} (root mean square) and {row['max_deviation']:.3g} (largest):"
            f" {row['evaluated']}."
        )
    if "solved_weights" in row:
        lines.append(
            f"{row['solved_weights']:,} weights were solved in {row['search_seconds']:.2f} s, plus"
            f" {row['compilation_seconds']:.2f} s of compilation ({row['found_weights']:,} were solved earlier)."
        )
    if "output_bound" in row:
        lines += _output_sentences(row)
    if "output_not_bounded" in row:
        lines.append(f"The outputs are not bounded: {row['output_not_bounded']}.")
    if row["target_sha256"] is None:  # its masks contradict its seed, so that nothing was compared
        return [*lines, f"{broken}."]
    if row.get("taken_from_ticket"):
        lines.append(
            f"Taken from the ticket, because the target's file does not fix them: {'; '.join(row['taken_from_ticket'])}"
            " (--expect NETWORK.json asks for your own)."
        )
    target = f"the target {row['target_sha256'][:16]}..."
    if row["own_target"]:
        target += ", an unverified copy in the ticket"
    if row["outcome"] == "holds":
        inputs = "" if row["box"] is None else f", for inputs from {row['box'][0]:g} to {row['box'][1]:g}"
        return [*lines, f"HOLDS for {target}{inputs}."]
    if row["outcome"] == "no guarantee":
        budget = row["kept_budget"]
        kept = "" if budget is None else f" It only keeps its budget of {budget:,} weights."
        return [*lines, f"NO GUARANTEE: {'; '.join(row['reasons'])} ({target}).{kept}"]
    return [*lines, f"{broken} ({target})."]


def _residual_sentences(row: dict[str, Any]) -> list[str]:
    worst = f"{quoted(row['worst_tensor'])}[{', '.join(map(str, row['worst_weight']))}]"
    limit = f"{row['tolerance']:g}"
    if row.get("relative_tolerance") is not None:
        limit = f"{row['relative_tolerance']:.4g} of their tensor's largest, {row['tolerance']:.4g} at most"
    lines = [
        f"{row['within_tolerance']:,} of {row['target_weights']:,} target weights are within {limit}; the mean residual"
        f" is {row['mean_residual']:.3g}, the worst {row['worst_residual']:.3g} ({worst});"
        f" {row['kept_per_target_weight']:.3f} random weights are kept per target weight.",
    ]
    if row["kept_budget"] is not None:
        lines.append(
            f"The budget is {row['kept_budget']:,} kept weights; the tolerance is the ticket's own largest residual."
        )
    if row["empty_promises"]:
        names = ", ".join(map(clipped, row["empty_promises"][:3]))
        more = f" and {len(row['empty_promises']) - 3:,} others" * (len(row["empty_promises"]) > 3)
        lines.append(f"Zero weights would also be within the tolerance of {names}{more}.")
    return lines + (_float32_sentences(row) if row["float32_addition"] is not None else [])


def _float32_sentences(row: dict[str, Any]) -> list[str]:
    low, high = row["box"]
    lines = [
        f"In float32 its layers compute what weights moved by at most {row['float32_addition']:.2g} more would compute"
        f" ({clipped(row['float32_tensor'])}, {row['float32_allowed']:.2g} is allowed; the target's own network:"
        f" {row['float32_target_addition']:.2g})."
    ]
    if row["copies_apart"] is not None:
        lines.append(
            f"Copies of neurons may differ: an output is at most {row['copies_apart']:.2g} away from the target's"
            f" ({row['copies_apart_allowed']:.2g} is allowed)."
        )
    layer = clipped(row["largest_value_layer"]) or "the input"
    if row["largest_value"] is not None:
        return [*lines, f"On inputs from {low:g} to {high:g} no value is beyond {row['largest_value']:.2g} ({layer})."]
    return [*lines, f"On inputs from {low:g} to {high:g} the values behind {layer} have no bound in float32."]


def _output_sentences(row: dict[str, Any]) -> list[str]:
    low, high = row["box"]
    by_lines = row["output_bound_by_lines"]
    how = "" if by_lines is None else f" {row['output_bound_by_intervals']:.3g}, by lines {by_lines:.3g}"
    lines = [
        f"On all inputs from {low:g} to {high:g}, |f - g| is at most {row['output_bound']:.3g} (by intervals{how});"
        f" a search for the worst input found {row['output_searched']:.3g}."
    ]
    if row["output_promised"] is not None:
        lines.append(
            f"Every ticket within {row['tolerance']:g} of each weight has |f - g| at most {row['output_promised']:.3g}."
        )
    return lines


def run_export(command: Export, results: TextIO) -> int:
    """Write the file and print its contents in words."""
    check_overwrite(command.out, force=command.force)
    if sum([command.into is not None, command.masks, command.coded, command.plain, command.network]) > 1:
        raise InputError("--into, --masks, --coded, --plain and --network exclude each other; give at most one of them")
    for option, read in (("the ticket", command.ticket), ("--into", command.into)):
        if read is not None and read.exists() and command.out.exists() and read.samefile(command.out):
            raise InputError(
                f"--out must be another file than {option}, got {str(command.out)!r} for both. Name a new file."
            )
    ticket = load_ticket(command.ticket, limit=command.limit)
    if command.coded or command.plain:
        size = ticket.save(command.out, coded=command.coded)
        written = f"the ticket, {size:,} bytes, its masks {'coded' if command.coded else 'one bit for each weight'}"
    elif command.network:
        write_atomically(command.out, network_text(ticket.network).encode())
        written = "the network that the ticket is for, without weights, for verify --expect"
    elif command.into is not None:
        model = None
        if ticket.network.input_spec is not None and not is_onnx(command.into):
            # First the ticket's own network, which may be in no list of architectures.
            model = target_of_network(ticket.network.target, command.into) or target_like(ticket.network, command.into)
        written = export_into(ticket, command.into, command.out, model)
    else:
        written = (export_masks if command.masks else export_weights)(ticket, command.out)
    print_lines([f"{command.out}: {written}"], results)
    return 0
