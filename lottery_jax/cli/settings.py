"""The commands as typed data. Nothing heavy is imported here, so that `--help` answers at once."""

import dataclasses
import shlex
from pathlib import Path

import tyro

from lottery_jax.cli.worker_options import WORKER_OPTIONS, WorkerOptions


@dataclasses.dataclass(frozen=True)
class TaskOptions:
    """The task and the random source: options of `compare` and `approximate`."""

    data: str = "digits"
    """Data set: digits (embedded), mnist, fashion_mnist, cifar10, or a .npz file with images and labels."""
    target: Path | None = None
    """Trained target: a safetensors file, the index of several, or their folder; PyTorch's or Flax's names and layout.
    Default: trained here."""
    architecture: str | None = None
    """Network of the target: mlp-A-B-..., fc2, fc4, lenet-300-100, lenet5, conv2, conv4, conv6, conv8, resnet18,
    resnet20, resnet50, vgg16, vgg19 or vit, or FILE.py:FUNCTION, your function (input_spec, classes) -> Network.
    Default: guessed from the names and shapes in the target file, else a small MLP."""
    width: float = 1.0
    """Factor of all hidden widths of the architecture."""
    data_dir: Path | None = None
    """Folder with prepared TensorFlow Datasets; default: TFDS_DATA_DIR, else downloaded at first use."""
    candidates: int = 21
    """Candidates per target weight."""
    tolerance: float = 0.01
    """Largest allowed |approximated weight - target weight|."""
    density: float = 1.0
    """Fraction of random weights that are present; the seed fixes which (Gadhikar et al. 2023)."""
    locked: float = 0.0
    """Fraction of random weights that every mask keeps (Otsuka et al. 2024); at most the density."""
    share_layers: bool = False
    """One random tensor for the weights of all layers (Hidden-Fold Networks)."""


@dataclasses.dataclass(frozen=True)
class Compare(WorkerOptions, TaskOptions):
    """Compare constructions with learned masks, trained tickets and random masks on one task, over several seeds.

    Every finished method and seed is kept: the same command resumes after a stop.
    """

    methods: tuple[str, ...] = ()
    """Methods to run, by label, or FILE.py:CLASS for a class of your own."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the random sources."""
    keeps: tuple[float, ...] = (0.005, 0.01, 0.03, 0.1, 0.3, 0.5)
    """Kept fractions of the learned masks and trained tickets."""
    epochs: int | None = None
    """Epochs of learned masks, and of each training of trained tickets; default: 50 on digits, else 10."""
    tune: tuple[float, ...] = ()
    """Factors of each learner's learning rate to choose from on the validation split, e.g. 0.3 1 3."""
    out: Path = Path("runs")
    """Folder for the results; each configuration gets its own folder inside."""
    check: bool = False
    """New verification of the tickets of all finished records, instead of new records."""
    quiet: bool = False
    """No progress and no notes."""
    json: bool = False
    """Only the records on stdout, one JSON object per line."""


@dataclasses.dataclass(frozen=True)
class Approximate(WorkerOptions, TaskOptions):
    """Approximate a trained network by pruning a random one, and write the ticket.

    Finished chunks are kept in a folder OUT.chunks: the same command resumes after a stop.
    """

    model: Path | None = None
    """File of any model (.safetensors), its index or its folder, instead of data and target; all 2-D and 4-D float
    tensors are approximated."""
    pattern: str | None = None
    """Name pattern (* ? [abc]) of the model's tensors to approximate, of any dimension."""
    construction: str | None = None
    """Construction (docs/methods.md): pensia, scalar, scalar-shared, natale, malach, orseau, kumar (quantised targets),
    binary, otsuka (attention), dacunha, burkholz or ferbach. Default: pensia; scalar for a model."""
    objective: str | None = None
    """Choice of the subset: least-error; smallest, fewest kept weights within the tolerance, then least error; or
    first, fewest, then lexicographically first. Default: least-error."""
    candidates: int | None = None
    """Candidates per target weight; default: 21, with --lossless 32 (scalar) or 48 (scalar-shared)."""
    tolerance: float | None = None
    """Largest allowed |approximated weight - target weight|; default: 0.01."""
    kept: int | None = None
    """Budget of kept weights with the least error; replaces the objective and the tolerance."""
    importance: str = "uniform"
    """Weight of each squared error in the budget: uniform, fisher (for large budgets) or fisher-damped."""
    loss_aware: bool = False
    """Error feedback within the budget: other weights of an output compensate each error. Needs --kept."""
    examples: int | None = None
    """Training images for --loss-aware; default: as many as two million positions of a layer need."""
    damping: float | None = None
    """Multiple of a layer's mean squared input that --loss-aware adds to each; default: 0.01."""
    prune_target: int | None = None
    """Nonzero weights to which the target is first pruned (gradual magnitude pruning); zeros need no random weights."""
    prune_epochs: int | None = None
    """Epochs of --prune-target; default: 20."""
    lossless: bool = False
    """Every weight within 2**-25 of the largest in its tensor; for scalar and scalar-shared. Replaces --tolerance."""
    output_tolerance: float | None = None
    """Largest |f - g| of the outputs on --box; tolerance or candidates are derived from it."""
    quantise_target: int | None = None
    """Bits to which each tensor of the target is first rounded; the ticket approximates the rounded target."""
    box: tuple[float, float] | None = None
    """Least and largest input for --output-tolerance; default: 0 1, or -1 1 if inputs may be negative."""
    seed: int = 0
    """Seed of the random source."""
    out: Path = Path("ticket.safetensors")
    """File for the ticket."""
    force: bool = False
    """Replacement of an existing file, if the new ticket holds; else it is written to a file named .broken."""
    coded: bool = False
    """Entropy-coded masks (docs/bits.md): a smaller file with the same masks."""
    quiet: bool = False
    """No progress and no notes."""
    json: bool = False
    """Only one JSON object on stdout."""


@dataclasses.dataclass(frozen=True)
class Verify:
    """Regenerate a ticket's source from its seed and recompute every residual, without the solver.

    Exit code 0: it holds. 1: it is broken. 2: it is not a valid ticket, or costs too much. 4: it has no guarantee.
    """

    ticket: tyro.conf.Positional[Path]
    """File of the ticket."""
    target: Path | None = None
    """Network to compare with, as in `approximate`; default: the unverified copy in the ticket."""
    expect: Path | None = None
    """JSON file of the target's network, as `export --network` writes it; a ticket for another one is broken."""
    tolerance: float | None = None
    """Tolerance for every weight; default: the one that the ticket guarantees."""
    quantise_target: int | None = None
    """Bits to which the given target is first rounded, as in `approximate`."""
    box: tuple[float, float] | None = None
    """Least and largest input of the promise, e.g. 0 255; also bounds and searches |f - g|. Default: 0 1, or -1 1."""
    architecture: str | None = None
    """Network of the target; default: guessed from the names in its file."""
    width: float = 1.0
    """Factor of all hidden widths of the architecture."""
    limit: float = 1.0
    """Multiple of the operations and bytes that a file of this size may ask for."""
    quiet: bool = False
    """No progress and no notes."""
    json: bool = False
    """Only one JSON object on stdout."""


@dataclasses.dataclass(frozen=True)
class Export:
    """Write the weights that a ticket makes, for other programs."""

    ticket: tyro.conf.Positional[Path]
    """File of the ticket."""
    out: Path
    """File to write, .safetensors."""
    force: bool = False
    """Replacement of an existing file."""
    into: Path | None = None
    """File of a model (.safetensors); the output is a copy of it with the ticket's weights."""
    masks: bool = False
    """Only the masks, bytes of 0 and 1."""
    coded: bool = False
    """The ticket itself with entropy-coded masks."""
    plain: bool = False
    """The ticket itself with one bit per random weight."""
    network: bool = False
    """Only the network that the ticket is for, as JSON without weights, for `verify --expect`."""
    limit: float = 1.0
    """Multiple of the operations and bytes that a file of this size may ask for."""


@dataclasses.dataclass(frozen=True)
class JobStatus:
    """Show the progress of a job, running or dead: finished chunks, records or units, its process, the last change."""

    folder: tyro.conf.Positional[Path]
    """The --out of approximate, compare or an experiment, a folder of chunks or units, or a run folder."""
    json: bool = False
    """Only JSON on stdout, one object per folder."""


@dataclasses.dataclass(frozen=True)
class Theory:
    """Show the size of the random network that each theorem requires, and of the one that `approximate` draws.

    Nothing is trained or searched. One row for each theorem, then the sources of its constants (docs/theory.md).
    """

    architecture: str = "lenet5"
    """Network of the target, as in the other commands: mlp-A-B-..., fc2, lenet5, resnet18, vit, ..."""
    data: str = "mnist"
    """Data set for the input shape: digits, mnist, fashion_mnist, cifar10, or a .npz file."""
    width: float = 1.0
    """Factor of all hidden widths of the architecture."""
    tolerance: float = 0.01
    """Largest error of a weight, or of the output if the theorem bounds that; in (0, 1)."""
    delta: float = 0.01
    """Probability that the random network contains no such ticket; in (0, 1)."""
    candidates: int = 21
    """Candidates per target weight in the network that `approximate` draws."""
    json: bool = False
    """Only JSON on stdout, one object per row."""


def command_line(settings: Compare) -> str:
    """The command that repeats a comparison; without options at their defaults.

    >>> command_line(Compare(data="mnist", seeds=(0, 1), target=Path("my target.safetensors")))
    "lottery-jax compare --data mnist --target 'my target.safetensors' --seeds 0 1"
    """
    words = ["lottery-jax", "compare"]
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name in ("check", "json", "quiet", *WORKER_OPTIONS) or value == field.default:
            continue
        option = "--" + field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            for own in dataclasses.fields(value):
                if getattr(value, own.name) != own.default:
                    words += [f"{option}.{own.name.replace('_', '-')}", str(getattr(value, own.name))]
        else:
            words += [option, *(str(each) for each in (value if isinstance(value, tuple) else (value,)))]
    return shlex.join(words)
