"""A trained ResNet-20 from outside: imported with its names, and run as NumPy alone runs it in float64."""

from pathlib import Path

import numpy as np
import pytest

from lottery_jax.comparison.evaluate import accuracy, predictions
from lottery_jax.data import archives as prepared
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.forward import outputs
from lottery_jax.networks.layers.normalization import Normalize
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target
from lottery_jax.tasks import import_target, load_task
from lottery_jax.tasks.task import STATISTICS

SHARED = Path(__file__).parents[3] / "shared"
FILE, DATA = SHARED / "targets" / "resnet20_cifar10.safetensors", SHARED / "tfds"
pytestmark = pytest.mark.skipif(
    not (FILE.is_file() and (DATA / "cifar10").is_dir()), reason="no trained ResNet-20 with its data in ../shared"
)
IMAGE = Spec((32, 32, 3), True)
NORMALIZE = Normalize(*STATISTICS["cifar10"])


@pytest.fixture(scope="module")
def target() -> Target:
    return import_target(FILE, IMAGE, 10, normalize=NORMALIZE)


@pytest.fixture(scope="module")
def test_images() -> tuple[np.ndarray, np.ndarray]:
    """The first 500 of the test split: [N, 32, 32, 3] in [0, 1], and labels."""
    with prepared._silenced():
        import tensorflow_datasets as tfds

        source = tfds.data_source("cifar10", data_dir=DATA, split="test", download=False)
        rows = [source[index] for index in range(500)]
    return np.stack([row["image"] for row in rows]).astype(np.float32) / 255, np.array([row["label"] for row in rows])


def convolved(x: np.ndarray, weight: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """x [N, H, W, C] by weight [O, C, h, w], every window one row of a matrix."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (1, 2))[:, ::stride, ::stride]
    return np.tensordot(windows, weight, ((3, 4, 5), (1, 2, 3)))


def oracle(tensors: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """The network of He et al. 2016 for CIFAR, written from its description."""
    named = {name: value.astype(np.float64) for name, value in tensors.items()}

    def normed(x: np.ndarray, name: str) -> np.ndarray:
        mean, variance = named[f"{name}.running_mean"], named[f"{name}.running_var"]
        return (x - mean) / np.sqrt(variance + 1e-5) * named[f"{name}.weight"] + named[f"{name}.bias"]

    mean, deviation = (np.array(values) for values in STATISTICS["cifar10"])
    x = (images.astype(np.float64) - mean) / deviation
    x = np.maximum(normed(convolved(x, named["conv1.weight"], 1, 1), "bn1"), 0)
    for group in (1, 2, 3):
        for block in (0, 1, 2):
            name, stride = f"layer{group}.{block}", 2 if group > 1 and not block else 1
            y = np.maximum(normed(convolved(x, named[f"{name}.conv1.weight"], stride, 1), f"{name}.bn1"), 0)
            y = normed(convolved(y, named[f"{name}.conv2.weight"], 1, 1), f"{name}.bn2")
            if stride == 2:
                x = normed(convolved(x, named[f"{name}.downsample.0.weight"], 2, 0), f"{name}.downsample.1")
            x = np.maximum(x + y, 0)
    return x.mean((1, 2)) @ named["fc.weight"].T + named["fc.bias"]


def test_the_file_is_known_by_its_names(target: Target) -> None:
    assert target.network == architecture("resnet20", IMAGE, 10, normalize=NORMALIZE)
    norms = sum(value.size for name, value in target.arrays().items() if "running" in name)
    assert sum(value.size for value in target.arrays().values()) - norms == 272_474


def test_it_computes_what_numpy_computes(target: Target, test_images: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = test_images
    found = outputs(target.forward(), images, batch_size=250)
    wanted = oracle(target.arrays(), images[:40])
    np.testing.assert_allclose(found[:40], wanted, rtol=1e-3, atol=1e-3)
    assert np.mean(predictions(found) == labels) == pytest.approx(0.8817, abs=0.04)  # 500 images: +- 2.8 %


@pytest.mark.slow
def test_it_is_as_good_as_published(tmp_path: Path) -> None:
    task = load_task("cifar10", target=FILE, data_dir=DATA, cache_dir=tmp_path)
    assert task.target.network == architecture("resnet20", IMAGE, 10, normalize=NORMALIZE)
    assert np.mean(predictions(task.test_outputs) == task.dataset.test.labels) == pytest.approx(0.8817, abs=5e-4)
    assert accuracy(task.target.forward(), task.dataset.validation) > 0.9  # it was trained on these
