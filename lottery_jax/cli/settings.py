"""The commands as typed data. Nothing heavy is imported here, so that `--help` answers at once."""

import dataclasses
import shlex
from pathlib import Path

import tyro

from lottery_jax.cli.worker_options import WORKER_OPTIONS, WorkerOptions


@dataclasses.dataclass(frozen=True)
class TaskOptions:
    """What is approximated: the options that the long commands share."""

    data: str = "digits"
    """Data set: digits (embedded), mnist, fashion_mnist or cifar10; or your own, a .npz file with images and labels."""
    target: Path | None = None
    """Trained target: .safetensors in PyTorch layout with PyTorch's names; trained here if left out."""
    architecture: str | None = None
    """Network of the target: mlp-A-B-..., fc2, fc4, lenet-300-100, lenet5, conv2, conv4, conv6, conv8, resnet18,
    resnet20, resnet50, vgg16, vgg19, vit. If left out, that of a target file is guessed from its names, and without a
    file a small MLP is trained."""
    width: float = 1.0
    """Multiplies all hidden widths of the architecture."""
    data_dir: Path | None = None
    """Folder with prepared TensorFlow Datasets; TFDS_DATA_DIR if left out, else downloaded on first use."""
    candidates: int = 21
    """Candidates for each target weight."""
    tolerance: float = 0.01
    """Largest allowed |approximated weight - target weight|."""
    density: float = 1.0
    """Fraction of the random weights that are there at all: the others are absent, as the seed decides, and cost no
    bits (sources of Gadhikar et al. 2023)."""
    locked: float = 0.0
    """Fraction of the random weights that every mask keeps, as the seed decides, at no bits (partially frozen sources,
    Otsuka et al. 2024); at most the density, whose rest is left to the mask."""
    share_layers: bool = False
    """Draw the random weights of all layers from one random tensor (Hidden-Fold Networks)."""


@dataclasses.dataclass(frozen=True)
class Compare(WorkerOptions, TaskOptions):
    """Put the constructions beside learned and random masks on one task, over several seeds.

    Every finished method and seed is kept: the same command goes on where it was stopped.
    """

    methods: tuple[str, ...] = ()
    """Methods to run (docs/methods.md): dense; a construction (pensia, scalar, scalar-shared; also with -smallest;
    kumar, for quantised targets; otsuka, for attention; dacunha, burkholz and ferbach, for networks of their kinds;
    natale, malach, orseau, binary); a learned mask (edge-popup, iterand, supermask, supermask-rescaled, gem-miner,
    hard-concrete; each with -gadget, -wide or -plain; edge-popup-from-pensia; biprop, signed-supermask,
    multi-bit-supermask, evolution); a trained ticket (magnitude, iterative-magnitude, magnitude-reinit, snip, grasp,
    synflow, random-pruning, smart-ratio, pruning-from-scratch, and magnitude-supermask, whose weights stay random);
    random; target-pruned; or a class of your own, FILE.py:CLASS. If left out: dense, pensia, pensia-smallest,
    pensia-loss-aware, edge-popup-gadget, edge-popup-wide and random."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the random sources."""
    keeps: tuple[float, ...] = (0.005, 0.01, 0.03, 0.1, 0.3, 0.5)
    """Kept fractions of the learned masks and trained tickets."""
    epochs: int | None = None
    """Epochs of the learned masks, and of each training of trained tickets; 50 on digits, 10 elsewhere if left out."""
    tune: tuple[float, ...] = ()
    """Factors of each learner's own learning rate to try, for example 0.3 1 3; the best on the validation split
    counts."""
    out: Path = Path("runs")
    """Folder for the results; each configuration gets its own folder inside."""
    quiet: bool = False
    """Show no progress and no notes."""
    json: bool = False
    """Print the records to stdout, one JSON object per line, and nothing else there."""


@dataclasses.dataclass(frozen=True)
class Approximate(WorkerOptions, TaskOptions):
    """Approximate a trained network by pruning a random one, and write the ticket.

    Finished chunks are kept beside the ticket: the same command goes on where it was stopped.
    """

    model: Path | None = None
    """In place of data and target: a .safetensors file of any model, all of whose 2-D and 4-D float tensors are
    approximated, one after the other, by plain random weights (scalar)."""
    pattern: str | None = None
    """With a model: approximate the float tensors whose names match (* ? [abc]), whatever their dimensions."""
    construction: str | None = None
    """pensia (the random network of Theorem 1), scalar (plain random weights, as in Experiment 1), scalar-shared (the
    same for all weights of an output), natale (subsets of a fixed size), malach (one pair each), orseau (log-uniform,
    greedy), kumar (quantised targets, exactly), binary (weights of +-1) or otsuka (attention by merged products), see
    docs/methods.md; pensia if left out, scalar for a model."""
    objective: str = "least-error"
    """least-error (the nearest subset sum), smallest (the fewest kept weights within the tolerance, of these the
    nearest) or first (the fewest, of these the lexicographically first)."""
    kept: int | None = None
    """Keep at most this many weights in all, with the least error; takes the place of the objective and tolerance."""
    importance: str = "uniform"
    """With --kept, what an error in each weight counts: uniform (1), fisher (the target's Fisher information, for large
    budgets) or fisher-damped (that plus its mean)."""
    loss_aware: bool = False
    """With --kept: what a weight misses is made up for by others of its output (error feedback), so that far fewer
    weights are enough."""
    examples: int | None = None
    """Training examples that --loss-aware looks at; if left out, as many as two million places of a layer take."""
    damping: float = 0.01
    """With --loss-aware: how many times the mean square of a layer's inputs is added to each."""
    prune_target: int | None = None
    """Train the target on until so few of its weights are not zero, and approximate that (gradual magnitude pruning):
    zeros take no random weights."""
    prune_epochs: int = 20
    """Epochs of --prune-target."""
    lossless: bool = False
    """Every weight within half the last float32 bit of the largest in its tensor, 2**-25 of it, in place of the
    tolerance, with as many candidates as that takes (32; shared 48) if none are given; scalar and scalar-shared can."""
    output_tolerance: float | None = None
    """How far outputs may be from the target's on any input of the box: the tolerance of each weight, or the number of
    candidates, is derived from it."""
    quantise_target: int | None = None
    """Round each tensor of the target to 2**BITS steps of a power of two first: what is approximated, and what the
    ticket promises, is the rounded target (kumar takes no other)."""
    box: tuple[float, float] | None = None
    """Least and largest input for --output-tolerance; 0 1 if left out, and -1 1 where inputs may be negative."""
    seed: int = 0
    """Seed of the random source."""
    out: Path = Path("ticket.safetensors")
    """The ticket file."""
    force: bool = False
    """Replace a file that is there, if the new ticket holds; one that does not goes beside it, named .broken."""
    coded: bool = False
    """Write the ticket's masks as an entropy coder has them (docs/bits.md): a smaller file of the same bits."""
    quiet: bool = False
    """Show no progress and no notes."""
    json: bool = False
    """Print one JSON object to stdout and nothing else there."""


@dataclasses.dataclass(frozen=True)
class Verify:
    """Regenerate a ticket's source from its seed and recompute every residual, without the solver.

    Exit code 0: it holds; 1: it is broken, or no valid ticket; 4: it no guarantee.
    """

    ticket: tyro.conf.Positional[Path]
    """The ticket file."""
    target: Path | None = None
    """The network that it must approximate, .safetensors in PyTorch layout; if left out, the ticket is held to the
    target that it brings itself, which proves no more than that."""
    tolerance: float | None = None
    """What is asked of every weight; if left out, what the ticket promises."""
    quantise_target: int | None = None
    """Hold it to the given target rounded to 2**BITS steps of a power of two, as approximate has it."""
    box: tuple[float, float] | None = None
    """Least and largest input, for example 0 1: also bound |f - g| of the outputs on all inputs between, and search for
    the worst of them."""
    architecture: str | None = None
    """Network of the target; guessed from its names if left out."""
    width: float = 1.0
    """Multiplies all hidden widths of the architecture."""
    quiet: bool = False
    """Show no progress and no notes."""
    json: bool = False
    """Print one JSON object to stdout and nothing else there."""


@dataclasses.dataclass(frozen=True)
class Export:
    """Write the weights that a ticket makes, for other programs."""

    ticket: tyro.conf.Positional[Path]
    """The ticket file."""
    out: Path
    """The .safetensors file to write."""
    force: bool = False
    """Replace a file that is there."""
    into: Path | None = None
    """A model's .safetensors file: what is written is a copy of it with these weights in it."""
    masks: bool = False
    """Write the masks alone, bytes of 0 and 1."""
    coded: bool = False
    """Write the ticket itself, its masks as an entropy coder has them."""
    plain: bool = False
    """Write the ticket itself, its masks as they are: one bit for each random weight."""


@dataclasses.dataclass(frozen=True)
class JobStatus:
    """Say how far a job is, running or dead: chunks, records or units that are finished, who is at work, the last
    change."""

    folder: tyro.conf.Positional[Path]
    """The --out of approximate, compare or an experiment, the folder of chunks or units beside it, or a run folder."""
    json: bool = False
    """Print one JSON object for each folder to stdout and nothing else there."""


@dataclasses.dataclass(frozen=True)
class Theory:
    """Say how large a random network each theorem asks for, beside the one that `approximate` draws.

    Nothing is trained or searched: the architecture decides. One row for each theorem, then what its constants are
    worth; see docs/theory.md.
    """

    architecture: str = "lenet5"
    """Network of the target, as for the other commands: mlp-A-B-..., fc2, lenet-300-100, lenet5, resnet18, vit, ..."""
    data: str = "mnist"
    """Data set that gives an example's shape: digits, mnist, fashion_mnist or cifar10; or your own, a .npz file."""
    width: float = 1.0
    """Multiplies all hidden widths of the architecture."""
    tolerance: float = 0.01
    """eps in (0, 1): the largest error of a weight, or of the output where a theorem bounds that."""
    delta: float = 0.01
    """Chance in (0, 1) that the random network has no such ticket."""
    candidates: int = 21
    """Candidates for each target weight in the network that `approximate` draws."""
    json: bool = False
    """Print one JSON object for each row to stdout and nothing else there."""


def learning_epochs(settings: Compare) -> int:
    """Epochs of the learned masks: the digits are few, so they are passed more often.

    >>> learning_epochs(Compare()), learning_epochs(Compare(data="mnist")), learning_epochs(Compare(epochs=3))
    (50, 10, 3)
    """
    if settings.epochs is not None:
        return settings.epochs
    return 50 if settings.data == "digits" else 10


def command_line(settings: Compare) -> str:
    """The command that repeats a comparison; options at their default are left out.

    >>> command_line(Compare(data="mnist", seeds=(0, 1), target=Path("my target.safetensors")))
    "lottery-jax compare --data mnist --target 'my target.safetensors' --seeds 0 1"
    """
    words = ["lottery-jax", "compare"]
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name in ("json", "quiet", *WORKER_OPTIONS) or value == field.default:
            continue
        option = "--" + field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            for own in dataclasses.fields(value):
                if getattr(value, own.name) != own.default:
                    words += [f"{option}.{own.name.replace('_', '-')}", str(getattr(value, own.name))]
        else:
            words += [option, *(str(each) for each in (value if isinstance(value, tuple) else (value,)))]
    return shlex.join(words)
