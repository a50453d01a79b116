"""Data sets of arrays: shapes, kinds of labels, splits, notes, and every refusal, the same for a file."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax import Dataset, Task, load_task, mlp_target, target_from
from lottery_jax.data import Split, load
from lottery_jax.errors import InputError

COUNT, CLASSES = 60, 3


def examples(*shape: int, count: int = COUNT, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, *shape), np.float32)


def labels(count: int = COUNT) -> np.ndarray:
    return np.arange(count) % CLASSES


def parts(dataset: Dataset) -> list[Split]:
    return [dataset.train, dataset.validation, dataset.test]


def rows(dataset: Dataset) -> list[bytes]:
    return sorted(row.tobytes() for split in parts(dataset) for row in np.asarray(split.images))


@pytest.mark.parametrize("shape", [(7,), (6, 2), (5, 5), (4, 4, 3), (3, 4, 5, 2), (1,)], ids=str)
@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray, np.ndarray.tolist], ids=["numpy", "jax", "list"])
def test_every_shape_is_kept(shape: tuple[int, ...], convert: Any) -> None:
    x = examples(*shape)
    own = Dataset.from_arrays(convert(x), convert(labels()))
    assert (own.shape, own.classes, own.kind, own.nonnegative, own.notes) == (shape, 3, "classification", True, ())
    assert [len(split) for split in parts(own)] == [42, 6, 12]
    assert rows(own) == sorted(row.tobytes() for row in x)
    assert all(split.images.dtype == np.float32 and split.labels.dtype == np.int32 for split in parts(own))


def test_splits_depend_on_the_seed_and_not_on_the_order() -> None:
    x, y, order = examples(5), labels(), np.random.default_rng(1).permutation(COUNT)
    first = Dataset.from_arrays(x, y, validation=0.2, test=0.3, seed=3)
    assert [len(split) for split in parts(first)] == [30, 12, 18]
    assert [np.bincount(split.labels).tolist() for split in parts(first)] == [[10] * 3, [4] * 3, [6] * 3]
    again = Dataset.from_arrays(x[order], y[order], validation=0.2, test=0.3, seed=np.int64(3))  # type: ignore[arg-type]
    for one, two in zip(parts(first), parts(again), strict=True):
        np.testing.assert_array_equal(one.images, two.images)
    other = Dataset.from_arrays(x, y, validation=0.2, test=0.3, seed=4)
    assert not np.array_equal(first.test.images, other.test.images) and rows(first) == rows(other)
    assert len({first.fingerprint, other.fingerprint, Dataset.from_arrays(x, y).fingerprint}) == 3
    assert again.fingerprint == first.fingerprint


def test_own_splits_are_kept() -> None:
    x, y = examples(5), labels()
    own = Dataset.from_arrays(x[:40], y[:40], test=(x[40:], y[40:]), validation=0.25)
    np.testing.assert_array_equal(own.test.images, x[40:])
    assert [len(split) for split in parts(own)] == [30, 10, 20]
    more = Dataset.from_arrays(x[:40], y[:40], test=(x[40:], y[40:] + 1))
    assert more.classes == CLASSES + 1  # of all splits
    both = Dataset.from_arrays(x[:40], y[:40], test=(x[50:], y[50:]), validation=(x[40:50], y[40:50]))
    np.testing.assert_array_equal(both.train.images, x[:40])
    np.testing.assert_array_equal(both.validation.labels, y[40:50])


def test_a_change_anywhere_is_another_data_set() -> None:
    """A target is cached, and a comparison resumed, by the fingerprint."""
    x, y = examples(5), labels()
    given: dict[str, Any] = {"test": (x[50:], y[50:]), "validation": (x[40:50], y[40:50])}
    found = {Dataset.from_arrays(x[:40], y[:40], **given).fingerprint}
    for place in range(COUNT):
        changed = x.copy()
        changed[place, 4] += 0.5
        given = {"test": (changed[50:], y[50:]), "validation": (changed[40:50], y[40:50])}
        found.add(Dataset.from_arrays(changed[:40], y[:40], **given).fingerprint)
    assert len(found) == COUNT + 1


@pytest.mark.parametrize(
    ("y", "options", "kind", "outputs"),
    [
        (labels() == 1, {}, "classification", 2),
        (labels().astype(np.uint8), {}, "classification", 3),
        (labels().astype(np.float32), {"kind": "classification"}, "classification", 3),
        (labels() * 2, {"classes": 7}, "classification", 7),
        (examples(), {}, "regression", 1),
        (examples(4), {}, "regression", 4),
        (labels(), {"kind": "regression"}, "regression", 1),
        ((examples(4) > 0.5), {}, "multilabel", 4),
        (np.eye(3)[labels()], {"kind": "multilabel"}, "multilabel", 3),
    ],
)
def test_the_kind_of_labels(y: np.ndarray, options: dict, kind: str, outputs: int, tmp_path: Path) -> None:
    own = Dataset.from_arrays(examples(5), y, **options)
    assert (own.kind, own.classes) == (kind, outputs)
    found = np.concatenate([np.asarray(split.labels) for split in parts(own)])
    assert found.dtype == (np.int32 if kind == "classification" else np.float32)
    expected = y if kind == "classification" else y.reshape(COUNT, -1).astype(np.float32)
    assert sorted(map(tuple, found.reshape(COUNT, -1))) == sorted(map(tuple, expected.reshape(COUNT, -1)))
    np.savez(tmp_path / "own.npz", x=examples(5), y=y, **options)
    from_file = load(str(tmp_path / "own.npz"))
    assert (from_file.kind, from_file.classes) == (kind, outputs)


def test_files_with_the_names_of_keras(tmp_path: Path) -> None:
    x, y = examples(5, 5), labels()
    np.savez(tmp_path / "k.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    own = load(str(tmp_path / "k.npz"))
    assert own.shape == (5, 5) and [len(split) for split in parts(own)] == [36, 4, 20]


MASKED = np.ma.masked_array(examples(5), examples(5) > 0.9)
RAGGED = [[1.0] * (2 + row % 2) for row in range(COUNT)]
TEXT = np.array(["cat", "dog", "cow"])[labels()]
X = examples(5)
REFUSED: dict[str, tuple[Any, Any, str]] = {
    "lengths": (X, labels()[:-1], r"one label for each of the 60 examples, got the shape \[59\]"),
    "no examples": (X[:0], labels()[:0], r"at least one example"),
    "numbers": (X[:, 0], labels(), r"must be \[N, \.\.\.\].*got the shape \[60\]\. Pass x\[:, None\]"),
    "NaN": (np.where(X > 0.9, np.nan, X), labels(), "must be finite, got numbers that are NaN"),
    "beyond float32": (X.astype(float) * 1e300, labels(), "beyond float32"),
    "complex": (X.astype(complex), labels(), "real numbers, got complex128"),
    "large integers": (np.full((COUNT, 2), 2**24 + 1), labels(), "16777217"),
    "channels first": (examples(3, 8, 8), labels(), r"channels last, \[N, H, W, C\], got the shape \[60, 3, 8, 8\]"),
    "grey first": (examples(1, 8, 8), labels(), "channels first"),
    "one-based": (X, labels() + 1, "got 1 to 3, and no example of class 0. Subtract 1"),
    "a gap": (X, np.where(labels() == 2, 1000, labels()), "without gaps, got 3 classes up to 1,000, and no example of"),
    "one-hot": (X, np.eye(3)[labels()], r"one-hot rows of the shape \[60, 3\]\. Pass labels\.argmax\(1\)"),
    "integer one-hot": (X, np.eye(3, dtype=int)[labels()], "one-hot"),
    "a column": (X, labels()[:, None], r"got the shape \[60, 1\]\. Pass labels\[:, 0\]"),
    "a table": (X, np.stack([labels(), labels()], 1), r"got the shape \[60, 2\]"),
    "three axes": (X, labels()[:, None, None], r"\[N\] or \[N, K\], got the shape \[60, 1, 1\]"),
    "negative": (X, labels() - 1, "integers from 0 to classes - 1, below 65,536, got -1 to 1. Number them"),
    "large": (X, labels() + 65535, "below 65,536"),
    "whole floats": (X, labels().astype(float), r"got whole numbers of float64. Pass labels.astype\(int\)"),
    "NaN labels": (X, np.where(labels() == 1, np.nan, 0.5), "must be finite, got NaN or infinite labels"),
    "text": (X, TEXT, "must be numbers, got str.* such as .*cat.*numpy.unique"),
    "one class": (X, 0 * labels(), "at least 2 classes, got 1"),
    "complex labels": (X, labels() * 1j, "must be numbers, got complex128"),
}


@pytest.mark.parametrize("door", ["arrays", "file"])
@pytest.mark.parametrize(("x", "y", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_arrays_that_are_no_data_set_are_refused(x: Any, y: Any, message: str, door: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        if door == "arrays":
            Dataset.from_arrays(x, y)
        else:
            np.savez(tmp_path / "own.npz", x=x, y=y)
            load(str(tmp_path / "own.npz"))
    assert str(caught.value).startswith(("x ", "y ", "x of the data set", "y of the data set"))


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (MASKED, labels(), {}, "x must be a plain array, got a masked one"),
        (X, np.ma.masked_array(labels(), labels() == 1), {}, "y must be a plain array, got a masked one"),
        (RAGGED, labels(), {}, "x must be an array, got a list that NumPy cannot convert"),
        (X, TEXT.astype(object), {}, "y must be numbers, got object such as 'cat'.*numpy.unique"),
        (X, labels(), {"test": 0}, "test must be a fraction above 0 and below 1, or a pair"),
        (X, labels(), {"validation": 1.0}, "validation must be a fraction"),
        (X, labels(), {"test": True}, "test must be a fraction"),
        (X, labels(), {"test": float("nan")}, "test must be a fraction"),
        (X, labels(), {"test": (X,)}, "pair"),
        (X, labels(), {"test": 0.6, "validation": 0.5}, "validation .* test must be below 1, got 1.1"),
        (X[:2], labels()[:2], {}, "at least 3 examples for test and validation and train, got 2"),
        (X, labels(), {"test": (X[:, :4], labels())}, r"one shape, got \[\(4,\), \(5,\)\]"),
        (X, labels(), {"classes": 2}, "y must be from 0 to classes - 1 = 1, got 2"),
        (X, labels(), {"classes": 1}, "classes must be a whole number from 2"),
        (X, X, {"classes": 2}, "classes must be omitted for regression"),
        (X, labels(), {"kind": "ranking"}, "kind must be one of classification, regression, multilabel"),
        (X, labels(), {"kind": "multilabel"}, "0 or 1 for several labels, got 0 to 2"),
        (X, labels(), {"seed": jax.random.key(0)}, "seed must be a whole number .* got a key of jax.random"),
    ],
)
def test_wrong_options_are_refused(x: Any, y: Any, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Dataset.from_arrays(x, y, **options)


def test_channels_first_for_a_target_with_channels_first(tmp_path: Path) -> None:
    x, y = examples(3, 8, 8), labels()
    assert Dataset.from_arrays(x, y, channels_first=True).shape == (3, 8, 8)
    np.savez(tmp_path / "own.npz", images=x, labels=y, channels_first=True)
    assert load(str(tmp_path / "own.npz")).shape == (3, 8, 8)
    assert Dataset.from_arrays(np.moveaxis(x, 1, -1), y).shape == (8, 8, 3)
    assert Dataset.from_arrays(examples(4, 4, 2), y).shape == (4, 4, 2)  # four rows, and no four channels
    target = mlp_target([np.ones((3, 192), np.float32)], input_shape=(3, 8, 8))
    with pytest.raises(InputError, match=r"Its channels are first.*channels_first=True"):
        Task("t", Dataset.from_arrays(np.moveaxis(x, 1, -1), y), target)


@pytest.mark.parametrize(
    ("x", "note"),
    [
        (np.round(examples(5) * 255), "whole numbers from [0-9]+ to 25[0-9], as pixels that are not scaled"),
        (np.round(examples(4, 4, 1) * 255).astype(int), "as pixels that are not scaled"),
        ((examples(5) > 0.5).astype(np.uint8), "divided by 255, because it is uint8, but its largest value is 1"),
        (np.tile(examples(5)[:20], (3, 1)), "test examples of arrays are training examples, too"),
    ],
)
def test_notes(x: np.ndarray, note: str, caplog: pytest.LogCaptureFixture) -> None:
    own = Dataset.from_arrays(x, np.arange(COUNT) // 20)
    assert any(re.search(note, each) for each in own.notes)
    assert own.notes[0] in caplog.text


def test_repeated_examples_are_counted() -> None:
    x, y = examples(5), labels()
    own = Dataset.from_arrays(x[:40], y[:40], test=(x[30:], y[30:]), validation=0.1)
    train = {row.tobytes() for row in np.asarray(own.train.images)}
    repeated = sum(row.tobytes() in train for row in x[30:])
    assert 0 < repeated <= 10 and own.notes[0].startswith(f"{repeated} of the 30 test examples of arrays")
    assert Dataset.from_arrays(x, y).notes == ()


def test_tokens_pass_to_an_embedding() -> None:
    rng = np.random.default_rng(0)
    parameters = {"table": rng.normal(size=(200, 4)), "head": rng.normal(size=(4, CLASSES))}
    parameters = {name: value.astype(np.float32) for name, value in parameters.items()}

    def classifier(p: Any, x: Any) -> jax.Array:
        return jnp.take(p["table"], x, axis=0).mean(1) @ p["head"]

    tokens = rng.integers(0, 200, (COUNT, 6))
    target = target_from(classifier, tokens[:4].astype(np.int32), parameters)
    task = Task("tokens", Dataset.from_arrays(tokens, labels()), target)
    assert task.dataset.notes == ()  # tokens up to 199 are not pixels
    order = np.argsort([row.tobytes() for row in np.asarray(task.dataset.test.images)])
    whole = {row.astype(np.float32).tobytes(): row for row in tokens}
    expected = classifier(parameters, np.stack([whole[row.tobytes()] for row in np.asarray(task.dataset.test.images)]))
    np.testing.assert_allclose(task.test_outputs[order], np.asarray(expected)[order], rtol=1e-5, atol=1e-6)


GOOD = Split(X, labels().astype(np.int32))


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        (Split(X, labels()[:-1]), {}, "one label for each example"),
        (Split(X[:0], labels()[:0]), {}, "at least one example"),
        (Split(X, labels().astype(np.float32)), {}, "integers .N. from 0 to classes - 1 = 2, got float32"),
        (Split(X, labels()[:, None]), {}, "integers .N. from 0"),
        (Split(X, labels() - 1), {}, "from -1 to 1"),
        (Split(X, labels() + 1), {}, "from 1 to 3"),
        (Split(X * np.nan, labels()), {}, "must be finite"),
        (Split(X - 1, labels()), {}, "must not be negative"),
        (Split((X * 9).astype(np.uint8), labels()), {}, "must be floats, got uint8"),
        (Split(X.tolist(), labels()), {}, "must be an array, got a list"),  # type: ignore[arg-type]
        (Split(X[:, :4], labels()), {}, "examples of one shape"),
        (GOOD, {"kind": "ranking"}, "kind must be one of"),
    ],
)
@pytest.mark.parametrize("place", ["train", "validation", "test"])
def test_a_data_set_made_without_the_door_is_checked(split: Split, options: dict, message: str, place: str) -> None:
    """Labels out of range would train to NaN."""
    given = {"train": GOOD, "validation": GOOD, "test": GOOD, place: split}
    if place == "validation" and message.startswith("at least"):
        pytest.skip("trainings without a validation split are allowed")
    with pytest.raises(InputError, match=message):
        Dataset("d", **given, classes=3, nonnegative=True, **options)


def test_a_target_near_chance_is_named() -> None:
    task = load_task("digits")
    labels = np.asarray(task.dataset.test.labels)
    right = float(np.mean(task.test_outputs.argmax(1) == labels))
    assert right > 0.9 and task.accuracy_notes(right) == ()
    (note,) = task.accuracy_notes(0.1)
    assert note.startswith("the target predicts 36 of the 360 test labels of digits, which is near chance")
    assert all(word in note for word in ("layout", "scale", "labels"))
    assert task.accuracy_notes(0.0) and not task.accuracy_notes(0.3)
