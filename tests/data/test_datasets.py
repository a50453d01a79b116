"""Data sets: real ones where they are, small made-up archives for the download, and damage of every kind."""

import dataclasses
import gzip
import hashlib
import io
import json
import logging
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

from lottery_jax import data
from lottery_jax.data import archives as downloads
from lottery_jax.data import archives as prepared
from lottery_jax.data import datasets
from lottery_jax.data.dataset import Split
from lottery_jax.data.splitting import fixed_order
from lottery_jax.errors import InputError
from lottery_jax.io import cache

TFDS = Path(__file__).parents[3] / "shared" / "tfds"
needs_tfds = pytest.mark.skipif(not (TFDS / "mnist").is_dir(), reason="no prepared data sets in ../shared/tfds")


@pytest.fixture(autouse=True)
def _no_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and nobody's own data or cache."""

    def refuse(address: str) -> bytes:
        raise downloads.DownloadError(f"{address}: no network in tests")

    monkeypatch.setattr(downloads, "fetch_address", refuse)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    monkeypatch.setenv("LOTTERY_JAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def mnist_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with MNIST decoded once for this module."""
    folder = tmp_path_factory.mktemp("mnist")
    data.load("mnist", data_dir=TFDS, cache_dir=folder)
    return folder


def published(name: str, seed: int) -> dict[str, bytes]:
    """Small archives in the published formats, by file name."""
    rng = np.random.default_rng(seed)
    if name == "cifar10":
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as members:
            for file in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
                rows = rng.integers(0, 256, (1100, 3073)).astype(np.uint8)
                rows[:, 0] %= 10
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{file}")
                member.size = rows.size
                members.addfile(member, io.BytesIO(rows.tobytes()))
        return {downloads.CIFAR10_FILES[0]: buffer.getvalue()}
    contents = []
    for count in (5100, 20):
        header = b"".join(value.to_bytes(4, "big") for value in (2051, count, 28, 28))
        contents.append(header + rng.integers(0, 256, (count, 784)).astype(np.uint8).tobytes())
        contents.append(bytes(8) + rng.integers(0, 10, count).astype(np.uint8).tobytes())
    return dict(zip(downloads.IDX_FILES, map(gzip.compress, contents), strict=True))


def serve(monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, bytes]) -> list[str]:
    """Let `files` be what is published; returns the addresses that are asked for."""
    asked: list[str] = []

    def fetch(address: str) -> bytes:
        asked.append(address)
        return files[address.rsplit("/", 1)[-1]]

    checksums = tuple(hashlib.sha256(content).hexdigest() for content in files.values())
    monkeypatch.setitem(downloads.DOWNLOADS, name, (downloads.DOWNLOADS[name][0], checksums))
    monkeypatch.setattr(downloads, "fetch_address", fetch)
    return asked


def test_digits_are_the_embedded_ones_split_by_class() -> None:
    from sklearn.datasets import load_digits

    digits = data.load("digits")
    parts = (digits.train, digits.validation, digits.test)
    assert [len(part) for part in parts] == [1257, 180, 360]
    for part in parts:
        assert part.images.dtype == np.float32 and part.labels.dtype == np.int32
        counts = np.bincount(part.labels, minlength=10) / len(part)
        np.testing.assert_allclose(counts, np.bincount(load_digits().target) / 1797, atol=0.01)
        assert part.images.shape[1:] == (8, 8, 1)
    runs_per_step = np.concatenate([part.images for part in parts]).reshape(-1, 64) * 16
    original = load_digits().data
    np.testing.assert_array_equal(np.sort(runs_per_step, axis=0), np.sort(original, axis=0))
    assert {tuple(row) for row in runs_per_step.tolist()} == {tuple(row) for row in original.tolist()}
    assert digits.shape == (8, 8, 1) and digits.classes == 10 and digits.nonnegative


def test_the_split_does_not_depend_on_the_order_of_the_files() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (50, 2, 2, 1)).astype(np.uint8), rng.integers(0, 10, 50)
    shuffled = rng.permutation(50)
    order, other = fixed_order(images, labels), fixed_order(images[shuffled], labels[shuffled])
    np.testing.assert_array_equal(images[order], images[shuffled][other])
    assert sorted(order) == list(range(50)) != list(order)


def test_digits_split_is_pinned() -> None:
    # Another split would make every published figure of this project another one.
    assert data.load("digits").fingerprint == data.load("digits").fingerprint == "c930f760da6689a1"


@needs_tfds
def test_mnist_from_a_prepared_folder(mnist_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "read_prepared", None)  # from now on only the cache may be read
    monkeypatch.setattr(datasets, "read_prepared", None)
    monkeypatch.setenv("TFDS_DATA_DIR", str(TFDS))
    mnist = data.load("mnist", cache_dir=mnist_cache)
    assert mnist.fingerprint == "93e154894d3da091"
    parts = (mnist.train, mnist.validation, mnist.test)
    assert [part.images.shape for part in parts] == [(count, 28, 28, 1) for count in (55000, 5000, 10000)]
    assert all(part.images.min() == 0 and part.images.max() == 1 for part in parts)
    # The published counts of each digit, which no permutation changes.
    train = np.bincount(mnist.train.labels) + np.bincount(mnist.validation.labels)
    assert train.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert round(float(mnist.train.images.reshape(-1, 784)[:, ::7].mean(dtype=np.float64)), 2) == 0.13


@needs_tfds
def test_prepared_images_equal_the_readers_own(mnist_cache: Path) -> None:
    with prepared._silenced():
        import tensorflow_datasets as tfds

        source = tfds.data_source("mnist", data_dir=TFDS, split="test", download=False)
        rows = [source[index] for index in range(5)]
    test = data.load("mnist", data_dir=TFDS, cache_dir=mnist_cache).test
    for row in rows:
        same = (test.images == row["image"].astype(np.float32) / np.float32(255)).all(axis=(1, 2, 3))
        assert test.labels[same].tolist() == [row["label"]]


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_download_is_checked_decoded_and_kept(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = published(name, seed=3)
    asked = serve(monkeypatch, name, files)
    loaded = data.load(name, cache_dir=tmp_path)
    assert len(asked) == len(files) and len(loaded.validation) == 5000
    assert loaded.train.images.shape[1:] == loaded.shape == datasets.SHAPES[name]
    again = data.load(name, cache_dir=tmp_path)
    assert len(asked) == len(files), "the second time comes from the cache"
    np.testing.assert_array_equal(again.train.images, loaded.train.images)
    np.testing.assert_array_equal(again.test.labels, loaded.test.labels)


def test_cifar10_planes_become_channels() -> None:
    rows = np.arange(2 * 3073, dtype=np.int64).astype(np.uint8).reshape(2, 3073)
    images, labels = downloads._rows(rows)
    assert images.shape == (2, 32, 32, 3) and labels.tolist() == rows[:, 0].tolist()
    assert images[1, 4, 7].tolist() == [rows[1, 1 + plane * 1024 + 4 * 32 + 7] for plane in range(3)]


def test_a_changed_download_is_refused_and_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = published("mnist", seed=0)
    serve(monkeypatch, "mnist", files)
    files[downloads.IDX_FILES[1]] += b"x"
    with pytest.raises(InputError, match="SHA-256"):
        data.load("mnist", cache_dir=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_neither_data_nor_network_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'fashion_mnist'.*network.*--data-dir or TFDS_DATA_DIR\.$") as caught:
        data.load("fashion_mnist", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_an_unreachable_address_is_a_download_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(downloads.DownloadError, match="refused"):
        downloads.fetch_address("http://127.0.0.1:9/nothing")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("mnits", "did you mean 'mnist'"), ("CIFAR10", "did you mean 'cifar10'"), ("", "choose one of")],
)
def test_unknown_names_get_a_suggestion(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        data.load(name)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign"])
def test_a_damaged_cache_is_made_anew(
    damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = serve(monkeypatch, "mnist", published("mnist", seed=1))
    first = data.load("mnist", cache_dir=tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    file.write_bytes({"flip": bytes(flipped), "cut": whole[:-9], "empty": b"", "foreign": b"PK" * 99}[damage])
    with caplog.at_level(logging.WARNING):
        second = data.load("mnist", cache_dir=tmp_path)
    assert "damaged" in caplog.text and len(asked) == 8
    np.testing.assert_array_equal(first.train.images, second.train.images)
    assert file.read_bytes() == whole


def test_an_unwritable_cache_does_not_stop_the_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    serve(monkeypatch, "mnist", published("mnist", seed=1))
    (tmp_path / "file").write_text("no folder")
    assert len(data.load("mnist", cache_dir=tmp_path / "file").test) == 20
    assert "nothing is cached" in caplog.text


def test_a_store_that_fails_half_way_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert not cache.write_cached(tmp_path / "kept.safetensors", {"a": np.zeros(3)})
    assert not list(tmp_path.iterdir())


def test_prepared_folders_of_other_formats_or_damaged_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    info = folder / "dataset_info.json"
    info.write_text("{")
    with pytest.raises(InputError, match="damaged"):
        data.load("mnist", data_dir=tmp_path)
    info.write_text(json.dumps({"fileFormat": "tfrecord"}))
    with pytest.raises(InputError, match="tfrecord"):
        data.load("mnist", data_dir=tmp_path)
    info.write_text(json.dumps({"fileFormat": "array_record"}))
    with pytest.raises(InputError, match="cannot be read"):
        data.load("mnist", data_dir=tmp_path)


def test_the_newest_prepared_version_is_taken(tmp_path: Path) -> None:
    for version in ("3.0.1", "3.0.10", "3.0.9", "incomplete.3.0.99"):
        folder = tmp_path / "mnist" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text('{"fileFormat": "array_record"}')
    assert prepared.prepared_folder(tmp_path, "mnist") == tmp_path / "mnist" / "3.0.10"
    assert prepared.prepared_folder(tmp_path, "cifar10") is None


def test_a_data_set_is_one_short_line() -> None:
    digits = data.load("digits")
    assert repr(digits) == (
        "<Dataset digits: 1,257 + 180 + 360 examples [8, 8, 1] never negative, for training, choosing and the test;"
        " 10 classes>"
    )
    assert repr(digits.test) == "<Split of examples [360, 8, 8, 1]>"
    long = dataclasses.replace(digits, name="long " * 99, nonnegative=False)
    assert len(repr(long)) < 200 and "of any sign" in repr(long)
    empty = jax.tree.map(lambda _: None, digits.test)  # as a pytree it holds anything
    assert repr(empty) == "<Split of examples []>" and isinstance(empty, Split)
