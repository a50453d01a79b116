"""Data sets: examples with labels in three splits, checked when they are made."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from lottery_jax.data.checks import (
    LabelKind,
    check_split,
    checked_inputs,
    checked_labels,
    number_of_classes,
    repeated_examples,
)
from lottery_jax.data.splitting import divided
from lottery_jax.errors import InputError, shown
from lottery_jax.progress import log
from lottery_jax.rng.threefry import checked_seed


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Split:
    """Examples and labels of one split, a pytree.

    Args:
        images: float32 [N, H, W, C], or other examples [N, ...].
        labels: int32 [N] classes, or float32 [N, K] targets of a regression or 0 and 1 of several labels.

    >>> len(Split(np.zeros((3, 4), np.float32), np.zeros(3, np.int32)))
    3
    """

    images: np.ndarray | jax.Array
    labels: np.ndarray | jax.Array

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def __repr__(self) -> str:
        # A pytree's leaves need not be arrays.
        return f"<Split of examples {list(getattr(self.images, 'shape', ()))[:8]}>"


SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set.

    Args:
        classes: Outputs of a network for it: classes, numbers of a regression, or labels.
        validation: Examples for choices, such as of hyper-parameters.
        test: Examples for the final evaluation only.
        nonnegative: Whether examples are never negative, as pixels are.
        digest: SHA-256 of the user's file, or "".
        kind: What the labels are. Those of a regression or of several labels become float32 [N, K].
        notes: What may be wrong with the examples, in sentences.

    Raises:
        InputError: Lengths, shapes, dtypes or labels do not fit, or numbers are not finite.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    nonnegative: bool
    digest: str = ""
    kind: LabelKind = "classification"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shapes = []
        for name in SPLITS:
            split: Split = getattr(self, name)
            if self.kind != "classification":
                # With labels [N] and outputs [N, 1] a user's loss would broadcast to [N, N].
                labels = np.asarray(split.labels, np.float32).reshape(len(split), -1)
                split = Split(split.images, labels)
                object.__setattr__(self, name, split)
            check_split(
                f"the {name} split of {self.name}",
                split.images,
                split.labels,
                outputs=self.classes,
                kind=self.kind,
                nonnegative=self.nonnegative,
                may_be_empty=name == "validation",
            )
            shapes.append(tuple(split.images.shape[1:]))
        if len(set(shapes)) > 1:
            raise InputError(
                f"the splits of {self.name} must have examples of one shape, got {sorted(set(shapes))}. Reshape them."
            )

    @classmethod
    def from_arrays(
        cls,
        x: Any,
        y: Any,
        *,
        validation: float | tuple[Any, Any] = 0.1,
        test: float | tuple[Any, Any] = 0.2,
        seed: int = 0,
        kind: LabelKind | None = None,
        classes: int | None = None,
        channels_first: bool = False,
        name: str = "arrays",
    ) -> "Dataset":
        """A checked data set of arrays; its `notes`, which are also logged, say what may be wrong.

        Args:
            x: Examples [N, ...]: images [N, H, W, C], sequences [N, T, C], tokens [N, T], features [N, D]. uint8 is
                divided by 255, other numbers are unchanged. Integers become float32.
            y: Labels [N] from 0 for classes, 0 and 1 [N, K] for several labels, floats [N] or [N, K] for a regression.
            validation: Fraction of the examples, or its own (x, y).
            test: As `validation`.
            seed: Seed of the splits. They depend on the examples and not on their order; classes are in proportion.
            kind: ``classification``, ``regression`` or ``multilabel``. Default: from the dtype and the shape of `y`.
            classes: Number of classes, if some have no example.
            channels_first: True to take images [N, C, H, W] as they are, for a target with such inputs.
            name: Name of the data set in records.

        Raises:
            InputError: The arrays are not a data set. The first fault is named.

        >>> x = np.random.default_rng(0).random((50, 6), np.float32)
        >>> Dataset.from_arrays(x, x[:, 0] > 0.5)
        <Dataset arrays: 35 + 5 + 10 examples [6] never negative, for training, choosing and the test; 2 classes>
        """
        given = {"train": ("x", x, "y", y)}
        fractions = dict[str, float]()
        for part, value in (("test", test), ("validation", validation)):
            if isinstance(value, tuple | list):
                if len(value) != 2:
                    raise InputError(
                        f"{part} must be a fraction or a pair (x, y), got {len(value)} values. Pass a pair."
                    )
                given[part] = (f"x of {part}", value[0], f"y of {part}", value[1])
            elif isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < 1:
                raise InputError(
                    f"{part} must be a fraction above 0 and below 1, or a pair (x, y), got {shown(value)}."
                )
            else:
                fractions[part] = float(value)
        if sum(fractions.values()) >= 1:
            raise InputError(
                f"validation + test must be below 1, got {sum(fractions.values()):g}. Leave examples to train on."
            )
        made = assembled(
            name, given, fractions, seed=checked_seed(seed), kind=kind, classes=classes, channels_first=channels_first
        )
        for note in made.notes:
            log.warning("%s", note)
        return made

    @property
    def outputs(self) -> str:
        """The outputs of a network for it, in words."""
        what = {"classification": "classes", "regression": "targets", "multilabel": "labels"}[self.kind]
        return f"{self.classes:,} {what}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an example, [H, W, C] of an image."""
        return tuple(self.train.images.shape[1:])

    @property
    def fingerprint(self) -> str:
        """A short hash of the training examples, independent of where they were read from."""
        digest = hashlib.sha256(np.ascontiguousarray(self.train.labels).tobytes())
        digest.update(np.ascontiguousarray(self.train.images[::16]).tobytes())
        digest.update(self.digest.encode())
        digest.update(b"" if self.kind == "classification" else self.kind.encode())
        return digest.hexdigest()[:16]

    def first(self, count: int) -> "Dataset":
        """The data set with its first training examples and an equal part of the validation split.

        Args:
            count: Training examples, from 1 to all.

        >>> some = Split(np.zeros((6, 4), np.float32), np.zeros(6, np.int32))
        >>> Dataset("zeros", some, some, some, 2, True).first(2)
        <Dataset zeros: 2 + 2 + 6 examples [4] never negative, for training, choosing and the test; 2 classes>
        """
        whole = len(self.train)
        if not 1 <= count <= whole:
            raise InputError(f"count must be from 1 to the {whole:,} training examples of {self.name}, got {count:,}")
        if count == whole:
            return self
        validated = -(-len(self.validation) * count // whole)
        train, validation = (
            Split(split.images[:part], split.labels[:part])
            for split, part in ((self.train, count), (self.validation, validated))
        )
        return dataclasses.replace(self, train=train, validation=validation)

    def __repr__(self) -> str:
        counts = " + ".join(f"{len(split):,}" for split in (self.train, self.validation, self.test))
        sign = "never negative" if self.nonnegative else "of any sign"
        return (
            f"<Dataset {self.name[:40]}: {counts} examples {list(self.shape)[:8]} {sign}, for training, choosing and"
            f" the test; {self.outputs}>"
        )


Given = tuple[str, Any, str, Any]
"""The name of the examples in sentences, the examples, the name of the labels, the labels."""


def assembled(
    name: str,
    given: Mapping[str, Given],
    fractions: Mapping[str, float],
    *,
    seed: int,
    kind: LabelKind | None,
    classes: int | None,
    channels_first: bool,
    digest: str | None = None,
) -> Dataset:
    """The checked data set of a user.

    Args:
        given: The arrays of ``train``, and of the other given splits.
        fractions: Of the splits that are taken from ``train``.
        digest: Of the file. Default: of the arrays.
    """
    parts, notes = dict[str, tuple[np.ndarray, np.ndarray]](), list[str]()
    for part, (x_name, x, y_name, y) in given.items():
        images, said = checked_inputs(x_name, x, channels_first=channels_first)
        labels, kind = checked_labels(y_name, y, len(images), kind)
        parts[part] = images, labels
        notes += said
    x_name, _, y_name, _ = given["train"]
    shapes = sorted({images.shape[1:] for images, _ in parts.values()})
    if len(shapes) > 1:
        raise InputError(f"the splits of {x_name} must have examples of one shape, got {shapes}. Reshape them.")
    if kind == "classification":
        outputs = number_of_classes(y_name, [labels for _, labels in parts.values()], classes)
    else:
        outputs = parts["train"][1].shape[1]
        if classes is not None and classes != outputs:
            raise InputError(
                f"classes must be omitted for {kind}, got {shown(classes)}. The labels have {outputs} columns."
            )
    if fractions:
        parts |= divided(x_name, *parts["train"], dict(fractions), seed)
    repeated = repeated_examples(parts["train"][0], parts["test"][0])
    if repeated:
        notes.append(
            f"{repeated:,} of the {len(parts['test'][0]):,} test examples of {name} are training examples, too, so that"
            " test results are too high. Remove repeated examples."
        )
    if digest is None:
        sha = hashlib.sha256(f"{kind} {outputs}".encode())
        for part in SPLITS:
            for array in parts[part]:
                sha.update(f"{array.shape}".encode())
                sha.update(np.ascontiguousarray(array).data)
        digest = sha.hexdigest()
    splits = (Split(*parts[part]) for part in SPLITS)
    nonnegative = all(float(images.min()) >= 0 for images, _ in parts.values())
    assert kind is not None
    return Dataset(name, *splits, outputs, nonnegative, digest, kind, tuple(notes))
