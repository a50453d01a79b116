"""Data of the user's own: every layout of a .npz file, the splits it gives or that are made, and every refusal."""

import io
from pathlib import Path

import numpy as np
import pytest

from lottery_jax import data
from lottery_jax.errors import InputError

COUNT, CLASSES = 60, 3


def examples(shape: tuple[int, ...] = (4, 4, 2), count: int = COUNT, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


def labels(count: int = COUNT, kind: type = np.int64) -> np.ndarray:
    return (np.arange(count) % CLASSES).astype(kind)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "own data.npz"


@pytest.mark.parametrize(
    ("shape", "loaded"), [((4, 4, 2), (4, 4, 2)), ((4, 5), (4, 5, 1)), ((7,), (7,))], ids=["NHWC", "NHW", "ND"]
)
@pytest.mark.parametrize("kind", [np.uint8, np.float16, np.float32, np.float64], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["plain", "compressed"])
def test_every_layout_is_read(shape: tuple, loaded: tuple, kind: type, save, path: Path) -> None:
    images = examples(shape)
    given = images if kind is np.uint8 else (images / 255).astype(kind)
    save(path, images=given, labels=labels())
    own = data.load(str(path))
    assert (own.name, own.shape, own.classes, own.nonnegative) == ("own data", loaded, CLASSES, True)
    runs_per_step = np.concatenate([np.asarray(part.images) for part in (own.train, own.validation, own.test)])
    assert runs_per_step.dtype == np.float32 and runs_per_step.min() >= 0 and runs_per_step.max() <= 1
    wanted = np.divide(images, np.float32(255), dtype=np.float32) if kind is np.uint8 else given.astype(np.float32)
    assert sorted(map(bytes, runs_per_step)) == sorted(map(bytes, wanted.reshape(COUNT, *loaded)))


def test_every_example_keeps_its_label(path: Path) -> None:
    images = examples((3,))
    images[:, 0] = labels()  # so that an example says which label it must have
    np.savez(path, images=images, labels=labels(kind=np.uint8))
    own = data.load(str(path))
    for part in (own.train, own.validation, own.test):
        assert part.labels.dtype == np.int32
        np.testing.assert_array_equal(np.round(np.asarray(part.images)[:, 0] * 255), part.labels)


def test_splits_that_are_made_are_tenths_with_all_classes(path: Path, tmp_path: Path) -> None:
    images = examples()
    np.savez(path, images=images, labels=labels())
    own = data.load(str(path))
    parts = (own.test, own.validation, own.train)
    assert [len(part) for part in parts] == [6, 6, 48]
    assert [np.bincount(part.labels).tolist() for part in parts] == [[2] * 3, [2] * 3, [16] * 3]
    order = np.random.default_rng(1).permutation(COUNT)
    np.savez(tmp_path / "other.npz", images=images[order], labels=labels()[order])
    other = data.load(str(tmp_path / "other.npz"))
    for one, two in zip(parts, (other.test, other.validation, other.train), strict=True):
        np.testing.assert_array_equal(one.images, two.images)  # whatever the order in the file
        np.testing.assert_array_equal(one.labels, two.labels)


@pytest.mark.parametrize("validation", [False, True])
def test_splits_that_are_given_are_kept(validation: bool, path: Path) -> None:
    given = {part: examples(count=count, seed=count) for part, count in (("train", 30), ("test", 9))}
    if validation:
        given["validation"] = examples(count=6, seed=6)
    arrays = {f"{part}_images": images for part, images in given.items()}
    np.savez(path, **arrays, **{f"{part}_labels": labels(len(images)) for part, images in given.items()})
    own = data.load(str(path))
    np.testing.assert_array_equal(np.asarray(own.test.images) * 255, given["test"])
    np.testing.assert_array_equal(own.test.labels, labels(9))
    if validation:
        np.testing.assert_array_equal(np.asarray(own.train.images) * 255, given["train"])
        np.testing.assert_array_equal(np.asarray(own.validation.images) * 255, given["validation"])
    else:  # held back from the training examples, never from the test
        assert (len(own.train), len(own.validation)) == (27, 3)
        both = np.concatenate([np.asarray(own.train.images), np.asarray(own.validation.images)])
        wanted = np.divide(given["train"], np.float32(255), dtype=np.float32)
        assert sorted(map(bytes, both)) == sorted(map(bytes, wanted))


def test_signed_data_is_known_to_be_signed(path: Path) -> None:
    images = examples((5,)).astype(np.float32) / 255
    np.savez(path, images=images, labels=labels())
    assert data.load(str(path)).nonnegative
    images[17, 2] = -1e-3
    np.savez(path, images=images, labels=labels())
    assert not data.load(str(path)).nonnegative
    only_in_the_test = {"train_images": np.abs(images), "test_images": images}
    np.savez(path, **only_in_the_test, train_labels=labels(), test_labels=labels())
    assert not data.load(str(path)).nonnegative


def test_the_fingerprint_is_that_of_the_file(path: Path) -> None:
    images = examples()
    np.savez(path, images=images, labels=labels())
    first = data.load(str(path)).fingerprint
    assert data.load(str(path)).fingerprint == first
    found = {first}
    for place in (0, 1, COUNT - 1):  # also where the example is one of the test
        changed = images.copy()
        changed[place, 0, 0, 0] ^= 1
        np.savez(path, images=changed, labels=labels())
        found.add(data.load(str(path)).fingerprint)
    assert len(found) == 4


OBJECTS = np.array([{"a": 1}] * COUNT, dtype=object)
NAN = np.full((COUNT, 4), np.nan, np.float32)
REFUSED = {
    "no labels": ({"images": examples()}, r"must hold images and labels.*got \['images'\].*numpy\.savez"),
    "no test": ({"train_images": examples(), "train_labels": labels()}, "must hold images and labels"),
    "nothing": ({}, "got nothing"),
    "too few labels": ({"images": examples(), "labels": labels(COUNT - 1)}, "one label for each of the 60 examples"),
    "labels of one validation": (
        {
            **{f"{part}_images": examples() for part in ("train", "test", "validation")},
            **{f"{part}_labels": labels() for part in ("train", "test")},
        },
        "must have labels for validation_images, got no validation_labels",
    ),
    "one-hot labels": ({"images": examples(), "labels": np.eye(COUNT)}, r"one-hot rows of the shape \[60, 60\]"),
    "no examples": ({"images": examples()[:0], "labels": labels(0)}, "at least one example"),
    "few examples": (
        {"images": examples(count=2), "labels": labels(2)},
        "must have at least 3 examples for test and validation and train, got 2",
    ),
    "pickled images": ({"images": OBJECTS, "labels": labels()}, "images of .* must be numbers, got Python objects"),
    "pickled labels": ({"images": examples(), "labels": OBJECTS}, "labels of .* must be numbers, got Python objects"),
    "NaN": ({"images": NAN, "labels": labels()}, "images of .* must be finite, got numbers that are NaN"),
    "infinite": ({"images": np.full((COUNT, 4), -np.inf), "labels": labels()}, "infinite"),
    "beyond float32": ({"images": np.full((COUNT, 4), 1e39), "labels": labels()}, "beyond float32"),
    "large numbers": (
        {"images": examples().astype(np.int32) << 24, "labels": labels()},
        r"whole numbers up to 2\*\*24",
    ),
    "complex": ({"images": examples().astype(np.complex64), "labels": labels()}, "got complex64"),
    "words": ({"images": examples().astype(str), "labels": labels()}, "must be numbers, got str"),
    "numbers": ({"images": np.ones(COUNT), "labels": labels()}, r"must be \[N, \.\.\.\].* got the shape \[60\]"),
    "a scalar": ({"images": np.float32(1), "labels": np.int64(1)}, r"got the shape \[\]"),
    "empty images": ({"images": examples((0, 3)), "labels": labels()}, r"shape \[60, 0, 3, 1\]"),
    "one class": ({"images": examples(), "labels": 0 * labels()}, "at least 2 classes, got 1"),
    "negative labels": ({"images": examples(), "labels": labels() - 1}, "integers from 0 to classes - 1, below 65,536"),
    "large labels": (
        {"images": examples(), "labels": labels() + 65535},
        "integers from 0 to classes - 1, below 65,536",
    ),
    "broken labels": (
        {"images": examples(), "labels": np.where(labels() == 1, np.nan, 0)},
        "must be finite, got NaN or infinite labels",
    ),
    "different shapes": (
        {
            **{"train_images": examples((4,)), "test_images": examples((5,))},
            **{"train_labels": labels(), "test_labels": labels()},
        },
        r"examples of one shape, got \[\(4,\), \(5,\)\]",
    ),
}


@pytest.mark.parametrize(("arrays", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_data_set_is_refused(arrays: dict, message: str, path: Path) -> None:
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=message) as caught:
        data.load(str(path))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


class Trap:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_loading_runs_no_code(path: Path, tmp_path: Path) -> None:
    trap = np.array([Trap(tmp_path / "sprung")] * COUNT, dtype=object)
    np.savez(path, images=trap, labels=labels())
    with pytest.raises(InputError, match="got Python objects"):
        data.load(str(path))
    assert not (tmp_path / "sprung").exists()


def test_files_that_are_none_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not exist\. Check the path"):
        data.load(str(path))
    path.mkdir()
    with pytest.raises(InputError, match=r"must be a \.npz file"):
        data.load(str(path))
    path.rmdir()
    array = io.BytesIO()
    np.save(array, examples())
    for content in (b"", b"text", b"PK\x03\x04" + bytes(50), array.getvalue(), b"\x80\x04K\x01."):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"must be a \.npz file"):
            data.load(str(path))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["plain", "compressed"])
def test_a_damaged_file_is_refused_wherever_it_is_damaged(save, path: Path) -> None:
    """Some bits of a zip file's directory mean nothing to its reader; what is read is then what was written."""
    images = examples((3,), count=30)
    save(path, images=images, labels=labels(30))
    whole, refused = path.read_bytes(), 0
    wanted = data.load(str(path)).train.images
    for place in range(0, len(whole), 3):
        for content in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]):
            path.write_bytes(content)
            try:
                np.testing.assert_array_equal(data.load(str(path)).train.images, wanted)
            except InputError:
                refused += 1
    assert refused > len(whole) / 3
