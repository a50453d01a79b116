"""Targets trained from a seed: good, kept, the same again; and tasks by name."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lottery_jax import data
from lottery_jax.comparison.evaluate import accuracy
from lottery_jax.errors import InputError
from lottery_jax.importers.mlp_weights import mlp_target
from lottery_jax.networks.architectures import architecture, mlp
from lottery_jax.networks.layers.activations import Relu
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.dense import Dense
from lottery_jax.networks.layers.normalization import BatchNorm
from lottery_jax.networks.layers.pooling import Flatten
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.networks.target import Target
from lottery_jax.tasks import Recipe, Task, load_model, load_task, train_target
from lottery_jax.tasks import task as train
from lottery_jax.tasks.task import recipe_for

DIGITS = Spec((8, 8, 1), True)
SMALL = architecture("mlp", DIGITS, 10)


def trained(network: Network, folder: Path, epochs: int = 1, seed: int = 0, **more) -> Target:
    return train_target(network, data.load("digits"), Recipe(epochs, 64, 3e-3), seed=seed, cache_dir=folder, **more)


def test_the_target_of_digits_is_good_kept_and_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    first = load_task("digits", cache_dir=tmp_path, progress=lambda done, epochs: seen.append((done, epochs)))
    assert first.name == "digits" and first.target.network == architecture("mlp-64", DIGITS, 10)
    assert seen[-1] == (60, 60) and len(seen) == 20
    assert accuracy(first.target.forward(), first.dataset.test) >= 0.95
    np.testing.assert_allclose(first.test_outputs, first.target.forward()(first.dataset.test.images), atol=1e-4)
    in_one_part = load_task("digits", cache_dir=tmp_path / "other").target
    monkeypatch.setattr(train, "_train", None)  # what follows must come from the cache
    again = load_task("digits", cache_dir=tmp_path).target
    assert again.digest == first.target.digest
    for name, value in first.target.arrays().items():
        np.testing.assert_allclose(value, in_one_part.array(name), rtol=0, atol=1e-3)


def with_norm() -> Network:
    nodes = (("flatten", Flatten()), ("fc1", Dense(64, 32)), ("bn1", BatchNorm(32)), ("relu", Relu()))
    return Network(Chain((*nodes, ("fc2", Dense(32, 10, bias=True)))), DIGITS)


def moved(target: Target) -> set[str]:
    """Tensors that are not as every training begins with them: means of 0, variances of 1."""
    start = {"running_mean": 0, "running_var": 1}
    found = target.arrays()
    return {
        name
        for name in found
        if (first := start.get(name.rpartition(".")[2])) is not None and (found[name] != first).all()
    }


def test_batch_normalisation_is_trained_with_the_batch_and_used_with_its_running_means(tmp_path: Path) -> None:
    target, digits = trained(with_norm(), tmp_path, epochs=8), data.load("digits")
    assert moved(target) == {"bn1.running_mean", "bn1.running_var"}
    assert accuracy(target.forward(), digits.test) >= 0.9
    # What moved are the statistics of what comes in, as it is at the end (momentum 0.9 forgets the beginning).
    images = np.asarray(digits.train.images).reshape(-1, 64).astype(np.float64)
    given = images @ target.array("fc1.weight").T
    np.testing.assert_allclose(target.array("bn1.running_mean"), given.mean(0), rtol=0.2, atol=0.1 * given.std())
    np.testing.assert_allclose(target.array("bn1.running_var"), given.var(0), rtol=0.4)
    assert trained(with_norm(), tmp_path, epochs=8).digest == target.digest  # means come back from the cache, too


@pytest.mark.slow
def test_a_convolutional_network_is_trained(tmp_path: Path) -> None:
    target = trained(architecture("conv2", DIGITS, 10, width=0.125), tmp_path, epochs=4)
    assert accuracy(target.forward(), data.load("digits").test) >= 0.6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width", "epochs", "least"),
    [("resnet20", 0.25, 10, 0.8), ("vgg16", 0.05, 3, 0.2), ("vit", 0.125, 15, 0.6)],
)
def test_a_deep_network_is_trained(name: str, width: float, epochs: int, least: float, tmp_path: Path) -> None:
    digits = data.load("digits")
    if name == "vgg16":  # five poolings: the digits are made four times as large
        splits = [
            data.Split(np.asarray(part.images).repeat(4, 1).repeat(4, 2), part.labels)
            for part in (digits.train, digits.test)
        ]
        digits = data.Dataset("large digits", splits[0], splits[1], splits[1], 10, True)
    network = architecture(name, Spec(digits.shape, True), 10, width=width)
    target = train_target(network, digits, Recipe(epochs, 64, 3e-3), seed=0, cache_dir=tmp_path)
    norms = {name for name in network.tensors if "running" in name}
    assert moved(target) == norms and bool(norms) == (name != "vit")
    assert accuracy(target.forward(), digits.test) >= least


def test_a_damaged_kept_target_is_trained_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = trained(SMALL, tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 64
    file.write_bytes(content)
    np.testing.assert_allclose(trained(SMALL, tmp_path).array("fc1.weight"), first.array("fc1.weight"), atol=1e-6)
    assert "damaged" in caplog.text
    trained(SMALL, tmp_path, epochs=2)
    assert trained(SMALL, tmp_path, seed=1).digest != first.digest
    trained(architecture("mlp", Spec((8, 8, 1), False), 10), tmp_path)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 4, "other settings are another file"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, r"seed must be in \[0, 2\*\*64\), got -1"),
        ({"seed": 2**32}, "seed must be .* got 4294967296"),
        ({"recipe": Recipe(0)}, "epochs is 0"),
        ({"recipe": Recipe(1, batch_size=0)}, "batch size of 0"),
        ({"recipe": Recipe(1, batch_size=2000)}, "2000 does not fit 1257"),
        ({"recipe": Recipe(1, learning_rate=float("nan"))}, "learning rate must be .* got nan"),
        ({"recipe": Recipe(1, learning_rate=0.0)}, "learning rate must be .* got 0"),
        ({"recipe": Recipe(2, learning_rate=1e38)}, "training of the target diverged.*lower the learning rate"),
        ({"network": architecture("mlp", Spec((8, 9, 1)), 10)}, r"got \[8, 9, 1\] to \[10\]"),
        ({"network": architecture("mlp", DIGITS, 9)}, r"10 classes .* to \[9\]"),
    ],
)
def test_impossible_settings_are_refused(changes: dict, message: str, tmp_path: Path) -> None:
    settings = {"network": SMALL, "recipe": Recipe(1), "seed": 0, **changes}
    with pytest.raises(InputError, match=message):
        train_target(settings.pop("network"), data.load("digits"), cache_dir=tmp_path, **settings)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("name", [*data.DATASETS, "my own"])
@pytest.mark.parametrize("examples", [9, 300, 50_000])
def test_every_recipe_fits_the_number_of_examples(name: str, examples: int) -> None:
    for network in ("fc2", "lenet5", "resnet20"):
        found = recipe_for(name, network, examples)
        assert 1 <= found.batch_size <= examples and found.epochs > 0 < found.learning_rate


def test_a_task_of_the_users_own_data(tmp_path: Path) -> None:
    """Two clouds of points with numbers of both signs: the network is told so, and tells them apart."""
    random = np.random.default_rng(0)
    labels = np.arange(200) % 2
    points = (random.normal(size=(200, 2)) + 4 * labels[:, None] - 2).astype(np.float32)
    np.savez(tmp_path / "clouds.npz", images=points, labels=labels)
    task = load_task(str(tmp_path / "clouds.npz"), cache_dir=tmp_path)
    assert (task.name, task.target.network.input_spec) == ("clouds", Spec((2,), False))
    assert task.target.network.tensors == {"fc1.weight": (100, 2), "fc2.weight": (2, 100)}
    assert accuracy(task.target.forward(), task.dataset.test) >= 0.9
    with pytest.raises(InputError, match=r"conv2 does not fit examples of shape \[2\]"):
        load_task(str(tmp_path / "clouds.npz"), architecture="conv2", cache_dir=tmp_path)
    with pytest.raises(InputError, match="'lenet9' is unknown"):
        load_task("digits", architecture="lenet9", cache_dir=tmp_path)
    with pytest.raises(InputError, match="width must be a positive number, got 0"):
        load_task("digits", width=0.0, cache_dir=tmp_path)


def zeros(given: Spec) -> Target:
    network = mlp((4, 2), given)
    return Target(network, {"fc1.weight": np.zeros((2, 4), np.float32)})  # type: ignore[arg-type]


def test_a_task_is_refused_where_target_and_data_do_not_fit(tmp_path: Path) -> None:
    half = data.Split(np.full((6, 2, 2, 1), -0.5, np.float32), np.zeros(6, np.int32))
    signed = data.Dataset("signed", half, half, half, 2, nonnegative=False)
    bright = data.Split(-half.images, half.labels)
    pixels = data.Dataset("pixels", bright, bright, bright, 2, nonnegative=True)
    for dataset, sign in ((signed, False), (pixels, False), (pixels, True)):
        assert Task("t", dataset, zeros(Spec((2, 2, 1), sign))).test_outputs.shape == (6, 2)
    with pytest.raises(
        InputError, match=r"declared nonnegative, because those of the data set signed.*nonnegative=False"
    ):
        Task("t", signed, zeros(Spec((2, 2, 1), True)))
    with pytest.raises(InputError, match=r"shape \[2, 2, 1\] of the data set pixels, got \[4\]\. Choose"):
        Task("t", pixels, mlp_target([np.zeros((2, 4))]))
    save_file({"w": np.ones((2, 4), np.float32)}, tmp_path / "model.safetensors")
    bag, _ = load_model(tmp_path / "model.safetensors")
    assert Task("t", signed, bag).target is bag  # its graph is unknown


def test_a_task_is_one_short_line() -> None:
    digits = data.load("digits")
    shown = repr(Task("long " * 99, digits, zeros_like_digits := Target(SMALL, {"fc1.weight": np.zeros((10, 64))})))  # type: ignore[arg-type]
    assert shown.startswith("<Task long") and f"{zeros_like_digits.weights} weights" in shown and len(shown) < 300
    assert shown.endswith(f"{digits}>") and "\n" not in shown
