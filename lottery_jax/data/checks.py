"""The checks of examples and labels, the same for files and for arrays: each kind of fault has its own sentence."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from lottery_jax.data.splitting import unit_floats
from lottery_jax.errors import InputError, shown

LabelKind = Literal["classification", "regression", "multilabel"]
"""What the labels of a data set are: one class, K real numbers, or K labels of which each is 0 or 1."""

LABEL_KINDS = get_args(LabelKind)

_MAX_CLASSES = 1 << 16
_CHANNELS = (1, 3, 4)  # of grey, colour, and colour with transparency
_EXACT = 1 << 24  # whole numbers up to it are exact in float32
_NUMBERED = "Number them from 0: numpy.unique(labels, return_inverse=True)[1]."


def checked_inputs(name: str, value: Any, *, channels_first: bool = False) -> tuple[np.ndarray, tuple[str, ...]]:
    """Examples as float32 [N, ...], and notes about their range; uint8 is divided by 255, other numbers are unchanged.

    Args:
        name: Of the array, in sentences.
        channels_first: True to take images [N, C, H, W] as they are.

    Raises:
        InputError: They are not finite numbers [N, ...], or they look like images with channels first.

    >>> checked_inputs("x", np.array([[0, 51]], np.uint8))[0]
    array([[0. , 0.2]], dtype=float32)
    """
    array = _array(name, value)
    shape = list(array.shape)
    if array.ndim < 2 or 0 in shape:
        raise InputError(
            f"{name} must be [N, ...] with at least one example and one number each, got the shape {shape}. Pass x[:,"
            " None] if an example is one number."
        )
    # Images [4, 4, C] have channels last, although 4 could be a number of channels.
    first = array.ndim == 4 and shape[1] in _CHANNELS and shape[3] not in _CHANNELS and shape[1] != shape[2]
    if first and not channels_first:
        raise InputError(
            f"{name} must have channels last, [N, H, W, C], got the shape {shape}, which looks like channels first."
            " Pass numpy.moveaxis(x, 1, -1), or channels_first=True if the target's inputs have channels first."
        )
    if array.dtype == np.uint8:
        most = int(array.max())
        few = f"{name} is divided by 255, because it is uint8, but its largest value is {most}. Pass floats to keep it."
        return unit_floats(array, 255), (few,) * (most < 128)
    if array.dtype.kind not in "biu" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(f"{name} must hold real numbers, got {array.dtype}. Convert it to float32.")
    if array.dtype.kind in "iu" and max(-int(array.min()), int(array.max())) > _EXACT:
        raise InputError(
            f"{name} must hold whole numbers up to 2**24, which float32 holds exactly, got"
            f" {max(-int(array.min()), int(array.max()))}. Convert them to floats of a smaller range."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        floats = array.astype(np.float32)
    low, high = float(floats.min()), float(floats.max())  # NaN if one is
    if not np.isfinite((low, high)).all():
        raise InputError(f"{name} must be finite, got numbers that are NaN, infinite or beyond float32. Remove them.")
    pixels = array.ndim > 2 or array.dtype.kind == "f"  # integers [N, T] are tokens
    if pixels and low >= 0 and 128 <= high <= 255 and np.array_equal(floats, np.floor(floats)):
        return floats, (
            f"{name} has whole numbers from {low:g} to {high:g}, as pixels that are not scaled. Divide by 255 if the"
            " target was trained on inputs from 0 to 1.",
        )
    return floats, ()


def checked_labels(name: str, value: Any, count: int, kind: LabelKind | None) -> tuple[np.ndarray, LabelKind]:
    """Labels int32 [N] of classes, or float32 [N, K] of a regression or of several labels; and their kind.

    Args:
        name: Of the array, in sentences.
        count: Number of examples.
        kind: Default: classification for integers [N], several labels for 0 and 1 [N, K], and regression for floats.

    Raises:
        InputError: There is not one label for each example, the kind is ambiguous, or labels are not of the kind.

    >>> checked_labels("y", np.array([0, 2, 1]), 3, None)
    (array([0, 2, 1], dtype=int32), 'classification')
    >>> checked_labels("y", np.array([0.5, 2, 1]), 3, None)[1]
    'regression'
    """
    if kind is not None and kind not in LABEL_KINDS:
        raise InputError(f"kind must be one of {', '.join(LABEL_KINDS)}, got {shown(kind)}. Omit it for the default.")
    array = _array(name, value, f"{_NUMBERED} ")
    shape = list(array.shape)
    if not shape or shape[0] != count:
        raise InputError(f"{name} must have one label for each of the {count:,} examples, got the shape {shape}.")
    if array.ndim > 2 or 0 in shape:
        raise InputError(f"{name} must be [N] or [N, K], got the shape {shape}. Flatten the labels of an example.")
    floats = jnp.issubdtype(array.dtype, jnp.floating)
    if array.dtype.kind not in "biu" and not floats:
        raise InputError(f"{name} must be numbers, got {array.dtype} such as {shown(array.flat[0])}. {_NUMBERED}")
    values = array.astype(np.float64) if floats else array
    if floats and not np.isfinite(values).all():
        raise InputError(f"{name} must be finite, got NaN or infinite labels. Remove these examples.")
    whole = not floats or np.array_equal(values, np.floor(values))
    binary = whole and values.min() >= 0 and values.max() <= 1
    if array.ndim == 2 and shape[1] > 1 and kind in (None, "classification") and binary and (values.sum(1) == 1).all():
        raise InputError(
            f"{name} must be [N], one class for each example, got one-hot rows of the shape {shape}. Pass"
            " labels.argmax(1), or kind='multilabel' if an example may have several labels."
        )
    if kind is None and floats:
        if whole:
            raise InputError(
                f"{name} must be integers if they are classes, got whole numbers of {array.dtype}. Pass"
                " labels.astype(int), or kind='regression'."
            )
        kind = "regression"
    elif kind is None:
        kind = "multilabel" if array.ndim == 2 and shape[1] > 1 and binary else "classification"
    if kind == "regression":
        return values.astype(np.float32).reshape(count, -1), kind
    if kind == "multilabel":
        if not binary:
            raise InputError(f"{name} must be 0 or 1 for several labels, got {_range(values)}. Threshold them.")
        return values.astype(np.float32).reshape(count, -1), kind
    if array.ndim == 2:
        advice = "Pass labels[:, 0]." if shape[1] == 1 else "Pass kind='regression' if they are numbers to predict."
        raise InputError(f"{name} must be [N], one class for each example, got the shape {shape}. {advice}")
    if not whole or values.min() < 0 or values.max() >= _MAX_CLASSES:
        raise InputError(
            f"{name} must be integers from 0 to classes - 1, below {_MAX_CLASSES:,}, got {_range(values)}. {_NUMBERED}"
        )
    return array.astype(np.int32), kind


def number_of_classes(name: str, labels: Sequence[np.ndarray], classes: int | None) -> int:
    """The number of classes of all splits; raises `InputError` if a class below the largest label has no example.

    Args:
        name: Of the labels, in sentences.
        labels: int32 [N] of each split.
        classes: The given number; classes without examples are then allowed.

    >>> number_of_classes("y", [np.array([0, 1]), np.array([2])], None)
    3
    """
    counts = np.bincount(np.concatenate(labels))
    found = len(counts)
    if classes is not None:
        if isinstance(classes, bool) or not isinstance(classes, int | np.integer) or not 2 <= classes <= _MAX_CLASSES:
            raise InputError(
                f"classes must be a whole number from 2 to {_MAX_CLASSES:,}, got {shown(classes)}. Omit it."
            )
        if found > classes:
            raise InputError(f"{name} must be from 0 to classes - 1 = {classes - 1}, got {found - 1}. Correct classes.")
        return int(classes)
    missing = np.flatnonzero(counts == 0)
    present = found - len(missing)
    if list(missing) == [0] and present > 1:
        raise InputError(
            f"{name} must be from 0 to classes - 1, got 1 to {found - 1}, and no example of class 0. Subtract 1, or"
            f" pass classes={found} if class 0 has no example."
        )
    if len(missing) and present > 1:
        raise InputError(
            f"{name} must be from 0 to classes - 1 without gaps, got {present:,} classes up to {found - 1:,}, and no"
            f" example of class {missing[0]}. {_NUMBERED[:-1]}, or pass classes={found} if they have no example."
        )
    if present < 2:
        raise InputError(f"{name} must have at least 2 classes, got 1. Pass kind='regression' for other labels.")
    return found


def check_split(
    name: str, images: Any, labels: Any, *, outputs: int, kind: LabelKind, nonnegative: bool, may_be_empty: bool
) -> None:
    """Refuse a split whose arrays are not those of a data set of this kind; raises `InputError`.

    Args:
        name: Of the split, in sentences.
        outputs: Classes, or columns of the labels.
        nonnegative: Whether the examples are declared as never negative.
        may_be_empty: True if it needs no examples.
    """
    if kind not in LABEL_KINDS:
        raise InputError(f"kind must be one of {', '.join(LABEL_KINDS)}, got {shown(kind)}. Omit it for the default.")
    for what, array in (("images", images), ("labels", labels)):
        if not isinstance(array, np.ndarray | jax.Array):
            raise InputError(
                f"the {what} of {name} must be an array, got a {type(array).__name__}. Make the data set with"
                " Dataset.from_arrays."
            )
    if not labels.ndim or images.shape[:1] != labels.shape[:1]:
        raise InputError(
            f"{name} must have one label for each example, got {list(images.shape)} examples and labels"
            f" {list(labels.shape)}. Give both the same length."
        )
    if not len(images):
        if may_be_empty:
            return
        raise InputError(f"{name} must have at least one example, got none. Add examples.")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"the images of {name} must be floats, got {images.dtype}. Use Dataset.from_arrays.")
    low, high = float(images.min()), float(images.max())
    if not math.isfinite(low) or not math.isfinite(high):  # NaN if one is
        raise InputError(f"the images of {name} must be finite, got {low:g} to {high:g}. Remove these examples.")
    if nonnegative and low < 0:
        raise InputError(f"the images of {name} must not be negative, got {low:g}. Give nonnegative=False.")
    low, high = float(labels.min()), float(labels.max())
    if kind == "classification":
        integers = jnp.issubdtype(labels.dtype, jnp.integer) and labels.ndim == 1
        if not integers or low < 0 or high >= outputs:
            raise InputError(
                f"the labels of {name} must be integers [N] from 0 to classes - 1 = {outputs - 1}, got {labels.dtype}"
                f" {list(labels.shape)} from {low:g} to {high:g}. Correct the labels or the classes."
            )
    elif labels.shape[1:] != (outputs,) or not math.isfinite(low) or not math.isfinite(high):
        raise InputError(
            f"the labels of {name} must be [N] or [N, {outputs}] and finite, got {list(labels.shape)} from {low:g} to"
            f" {high:g}. Give a number for each output."
        )
    elif kind == "multilabel" and not ((labels == 0) | (labels == 1)).all():
        raise InputError(f"the labels of {name} must be 0 or 1, got {low:g} to {high:g}. Threshold them.")


def repeated_examples(train: np.ndarray, test: np.ndarray) -> int:
    """The number of test examples that are training examples, too.

    >>> repeated_examples(np.eye(3, dtype=np.float32), np.eye(4, 3, dtype=np.float32))
    3
    """

    def digests(images: np.ndarray) -> list[bytes]:
        rows = np.ascontiguousarray(images).reshape(len(images), -1)
        return [hashlib.blake2b(row.data, digest_size=16).digest() for row in rows]

    known = set(digests(train))
    return sum(digest in known for digest in digests(test))


def _array(name: str, value: Any, advice: str = "") -> np.ndarray:
    """An array of one dtype that is not `object`."""
    if np.ma.isMaskedArray(value):
        raise InputError(f"{name} must be a plain array, got a masked one. Fill or remove its masked values.")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # rows of different lengths; a tensor of PyTorch that needs gradients
        raise InputError(
            f"{name} must be an array, got a {type(value).__name__} that NumPy cannot convert. Pass a NumPy array."
        ) from None
    if array.dtype.kind in "OUSV" and not jnp.issubdtype(array.dtype, jnp.floating):
        found = shown(array.flat[0]) if array.size and array.dtype.kind != "V" else str(array.dtype)
        raise InputError(f"{name} must be numbers, got {array.dtype.name} such as {found}. {advice}".strip())
    return array


def _range(values: np.ndarray) -> str:
    return f"{values.min():g} to {values.max():g}" if len(values) > 1 else f"{values.flat[0]:g}"
