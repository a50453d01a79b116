"""Options of another type than they take: one sentence, or the same as the plain value."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax import approximate, compare, import_target, load_ticket, mlp_target
from lottery_jax.errors import InputError
from lottery_jax.mask_learning import EdgePopup, wide_source
from lottery_jax.networks.architectures import architecture, mlp
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import Spec
from lottery_jax.rng.threefry import checked_seed, checked_seeds
from lottery_jax.tickets.ticket import make_ticket
from lottery_jax.training.learner import TrainingRequest
from tests.comparison import tiny

TASK = tiny.task()


@pytest.mark.parametrize("kind", [int, np.int64, np.uint8, np.array, jnp.int32], ids=lambda kind: kind.__name__)
def test_every_whole_number_is_a_seed(kind: Callable[[int], Any]) -> None:
    assert checked_seed(kind(3)) == 3 and type(checked_seed(kind(3))) is int
    assert checked_seeds([kind(0), kind(2)]) == (0, 2)


@pytest.mark.parametrize("seed", [1.0, "1", None, True, np.True_, np.float32(1), [1], np.arange(2), -1, 2**64], ids=str)
def test_other_seeds_are_refused(seed: Any) -> None:
    with pytest.raises(InputError, match="seed must be"):
        approximate(TASK.target, seed=seed)


@pytest.mark.parametrize("key", [jax.random.key(0), jax.random.PRNGKey(0), jax.random.split(jax.random.key(0))])
def test_a_key_is_no_seed(key: jax.Array) -> None:
    with pytest.raises(InputError, match=r"got a key of jax\.random\. Pass the number that made the key"):
        approximate(TASK.target, seed=key)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds must be a list, got 0. Pass a list such as [0, 1, 2]"),
        ({"seeds": np.int64(0)}, "seeds must be a list"),
        ({"seeds": np.array(0)}, "seeds must be a list"),
        ({"seeds": "01"}, "seeds must be a list, got '01'"),
        ({"seeds": [0.5]}, "seed must be a whole number"),
        ({"seeds": [jax.random.key(0)]}, "got a key of jax.random"),
        ({"keeps": 0.2}, "keeps must be a list, got 0.2"),
        ({"keeps": "0.2"}, "keeps must be a list"),
        ({"keeps": ["0.2"]}, "keeps must be numbers, got '0.2'"),
        ({"keeps": [None]}, "keeps must be numbers, got None"),
        ({"tune": 3.0}, "tune must be a list"),
        ({"transforms": 3}, "transforms must be a list"),
        ({"methods": "random"}, "methods must be a list, got 'random'"),
        ({"methods": EdgePopup()}, "methods must be a list, got EdgePopup"),
        ({"methods": None}, "methods must be a list, got None"),
        ({"task": "digits"}, "task must be a Task, got a str"),
    ],
)
def test_lists_of_a_comparison(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        compare(**{"task": TASK, "methods": ["random"], "seeds": [0], "keeps": [0.5], "out": tmp_path, **options})
    assert not list(tmp_path.iterdir())


def test_numbers_of_numpy_make_the_same_records(tmp_path: Path) -> None:
    plain = compare(TASK, ["random"], seeds=[0, 1], keeps=[0.5], epochs=1, candidates=9, out=tmp_path)
    options: dict[str, Any] = {
        "seeds": np.arange(2),
        "keeps": np.array([0.5]),
        "epochs": np.int64(1),
        "candidates": np.int64(9),
    }
    again = compare(TASK, ["random"], **options, out=tmp_path)
    assert again.folder == plain.folder and list(again) == list(plain)


@pytest.mark.parametrize(("field", "value"), [("seeds", 0), ("seeds", "0"), ("keeps", 0.5), ("keeps", ["a"])])
def test_lists_of_a_training(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{field} must be"):
        TrainingRequest(**{"dataset": TASK.dataset, "seeds": [0], "keeps": [0.5], "epochs": 1, field: value})


@pytest.mark.parametrize(
    "use",
    [
        lambda given: architecture("mlp-4", given, 10),
        lambda given: architecture("lenet5", given, 10),
        lambda given: mlp((4, 2), given),
        lambda given: Network(TASK.target.network.root, given),
        lambda given: import_target("nowhere.safetensors", given, 10),
    ],
)
@pytest.mark.parametrize("given", [(28, 28, 1), 784, [4], "4"], ids=str)
def test_a_shape_is_no_spec(use: Callable[[Any], Any], given: Any) -> None:
    with pytest.raises(InputError, match=r"input_spec must be a Spec, got .* Pass lottery_jax\.layers\.Spec\(shape\)"):
        use(given)


def test_shapes_of_a_spec() -> None:
    assert Spec([2, np.int64(3)]).shape == (2, 3)  # type: ignore[arg-type]
    assert hash(Spec([2, 3])) == hash(Spec((2, 3)))  # type: ignore[arg-type]
    for shape in (64, "ab", (8.0,), (None,), ()):
        with pytest.raises(InputError, match="the shape of an example must"):
            Spec(shape)  # type: ignore[arg-type]


def test_the_input_shape_of_an_mlp() -> None:
    weights, images = (
        [np.arange(12, dtype=np.float32).reshape(2, 6)],
        np.arange(12, dtype=np.float32).reshape(2, 3, 2, 1),
    )
    target = mlp_target(weights, input_shape=(3, 2, 1))
    np.testing.assert_array_equal(target.forward()(jnp.asarray(images)), images.reshape(2, 6) @ weights[0].T)
    for shape in ((2, 2), 5, (6.0,), "abcdef"):
        with pytest.raises(InputError, match=r"input_shape must have the 6 numbers|the shape of an example must"):
            mlp_target(weights, input_shape=shape)  # type: ignore[arg-type]


def test_a_wide_source_is_one_of_a_random_network() -> None:
    with pytest.raises(InputError, match=r"source must be a random network.*redundant_source\(network\)"):
        wide_source(TASK.target.network)


def test_a_ticket_that_is_saved_is_read(tmp_path: Path) -> None:
    """Losses may overflow; a file with NaN would be refused."""
    source = tiny.single(TASK.target.network, tiny.Sampler.uniform(-1, 1))
    masks = tiny.random_masks(source, 0.5, 0)
    settings = {"loss": float("nan"), "by_epoch": {"loss": [0.5, float("inf")]}}
    make_ticket(source, seed=np.int64(0), masks=masks, method="own", settings=settings).save(tmp_path / "t")  # type: ignore[arg-type]
    found = load_ticket(tmp_path / "t").header.settings
    assert found == {"loss": None, "by_epoch": {"loss": [0.5, None]}}
    for value in (np.float32(1), np.arange(2), object(), b"a", "\ud800", {np.int64(1): 1}):
        with pytest.raises(InputError, match="settings must be finite JSON values"):
            make_ticket(source, seed=0, masks=masks, method="own", settings={"a": value})
