"""Models whose graph is unknown: which tensors are chosen, and why the others are not."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from lottery_jax.errors import InputError
from lottery_jax.networks.layers.tensor_dict import TensorDict
from lottery_jax.tasks import load_model

KINDS = {"float16": np.float16, "float64": np.float64, "bfloat16": ml_dtypes.bfloat16}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file with matrices and a convolution of every type of float, and much that is neither."""
    random = np.random.default_rng(0)
    tensors = {f"{name}.weight": random.normal(size=(5, 3)).astype(kind) for name, kind in KINDS.items()}
    tensors |= {
        "a.weight": random.normal(size=(7, 3)).astype(np.float32),
        "a.bias": np.ones(7, np.float32),
        "conv.weight": random.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "conv1d.weight": random.normal(size=(4, 3, 3)).astype(np.float32),
        "steps": np.ones((2, 3), np.int64),
        "flags": np.ones((2, 2), bool),
        "scale": np.array(2, np.float32),
        "none.weight": np.zeros((0, 3), np.float32),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_matrices_and_convolutions_are_chosen_and_the_others_named(model: Path) -> None:
    target, skipped = load_model(model)
    assert isinstance(target.network.root, TensorDict) and target.network.input_spec is None and target.path == model
    assert set(target.network.tensors) == {*(f"{name}.weight" for name in KINDS), "a.weight", "conv.weight"}
    assert target.weights == 3 * 15 + 21 + 108
    for name, kind in KINDS.items():
        assert target.array(f"{name}.weight").dtype == kind
    assert skipped == {
        "a.bias": "it is 1-D",
        "conv1d.weight": "it is 3-D",
        "steps": "its dtype is I64, not F64, F32, F16, BF16",
        "flags": "its dtype is BOOL, not F64, F32, F16, BF16",
        "scale": "its shape is []",
        "none.weight": "its shape is [0, 3]",
    }


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        ("*.bias", {"a.bias"}),
        ("conv*", {"conv.weight", "conv1d.weight"}),
        ("?.weight", {"a.weight"}),
        ("[ab].*", {"a.weight", "a.bias"}),
        ("*16.weight", {"float16.weight", "bfloat16.weight"}),
        ("a.weight", {"a.weight"}),
    ],
)
def test_a_pattern_takes_float_tensors_of_any_shape(pattern: str, chosen: set[str], model: Path) -> None:
    target, skipped = load_model(model, pattern)
    assert set(target.network.tensors) == chosen
    assert not chosen & set(skipped) and len(skipped) == 11 - len(chosen)
    assert skipped["steps"] == "its name does not match"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("A.*", r"must hold a float tensor that matches 'A\.\*', got .* and 5 more\. Choose others with --pattern\.$"),
        ("s*", r"float tensor that matches 's\*', got .*steps \(its dtype is I64"),
        ("", "must hold a float tensor that matches ''"),
    ],
)
def test_a_pattern_that_takes_none_is_refused(pattern: str, message: str, model: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_model(model, pattern)
    assert "\n" not in str(caught.value) and str(model) in str(caught.value)


def test_a_file_without_matrices_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"bias": np.ones(3, np.float32)}, path)
    with pytest.raises(InputError, match=r"must hold a 2-D or 4-D float tensor, got bias \(it is 1-D\)"):
        load_model(path)
    save_file({}, path)
    with pytest.raises(InputError, match="must hold a 2-D or 4-D float tensor, got nothing"):
        load_model(path)


def test_a_model_does_not_run(model: Path) -> None:
    with pytest.raises(InputError, match=r"graph of a model must be known to run it.*export --into"):
        load_model(model)[0].forward()(np.ones((1, 3), np.float32))
