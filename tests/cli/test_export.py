"""`lottery-jax export`: weights, a model with them in it, masks; and the way there and back again."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lottery_jax import Target, approximate, export_target, import_target, load_ticket
from lottery_jax.networks.architectures import architecture
from lottery_jax.networks.node import Spec
from tests.cli.calling import lottery_jax, refusal

DIGITS = Spec((8, 8, 1), True)
IMAGES = np.random.default_rng(5).random((20, 8, 8, 1), np.float32)


def exported(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[str, dict[str, np.ndarray]]:
    """What the command says and what is in its file."""
    capsys.readouterr()
    assert lottery_jax("export", *words) == 0
    path = Path(words[words.index("--out") + 1])
    return capsys.readouterr().out, load_file(path)


@pytest.fixture(scope="module")
def normed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-20 of one channel for the digits, with batch normalisations, and its ticket beside it."""
    network = architecture("resnet20", DIGITS, 10, width=1 / 16)
    random, arrays = np.random.default_rng(0), {}
    for name, shape in network.tensors.items():
        near_one = name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1)
        arrays[name] = (near_one + random.uniform(-0.3, 0.3, shape)).astype(np.float32)
    path = tmp_path_factory.mktemp("normed") / "resnet20.safetensors"
    target = Target(network, arrays)
    export_target(target, path)
    approximate(target, seed=0, construction="scalar", candidates=14, tolerance=0.002, out=path.with_name("t"))
    return path


@pytest.mark.slow
def test_there_and_back_again(normed: Path, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From safetensors to a ticket to safetensors: what is read again computes what the ticket's network does."""
    out = tmp_path / "made.safetensors"
    said, made = exported(capsys, normed.with_name("t"), "--into", normed, "--out", out)
    assert said.startswith(f"{out}: a copy of {str(normed)!r} with ")
    original = load_file(normed)
    assert {name: value.shape for name, value in made.items()} == {n: v.shape for n, v in original.items()}
    again, ticket = import_target(out, DIGITS, 10), load_ticket(normed.with_name("t"))
    wanted = np.asarray(import_target(normed, DIGITS, 10).forward()(IMAGES))
    found, random = (np.asarray(network.forward()(IMAGES)) for network in (again, ticket))
    np.testing.assert_allclose(found, random, rtol=1e-3, atol=1e-4)
    assert 1e-4 < np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()
    other = tmp_path / "other.safetensors"
    assert str(target) in refusal(capsys, 2, "export", normed.with_name("t"), "--into", target, "--out", other)


def test_the_weights_are_near_the_targets(target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--target", target, "--candidates", 8, "--tolerance", 0.2)
    assert lottery_jax("approximate", *asked, "--out", tmp_path / "t") == 0
    said, made = exported(capsys, tmp_path / "t", "--out", tmp_path / "made.safetensors")
    assert "2 tensors, float32" in said
    for name, value in load_file(target).items():
        assert made[name].dtype == np.float32 and 0 < np.abs(made[name] - value).max() <= 0.2
    again = import_target(tmp_path / "made.safetensors", DIGITS, 10)
    found, random = (np.asarray(x.forward()(IMAGES)) for x in (again, load_ticket(tmp_path / "t")))
    np.testing.assert_allclose(found, random, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of half floats, of which one tensor is left alone, and its ticket beside it."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("model")
    tensors = {name: random.normal(0, 0.1, shape).astype(np.float16) for name, shape in (("w", (9, 7)), ("v", (5,)))}
    save_file(tensors, folder / "model.safetensors")
    asked = ("--model", folder / "model.safetensors", "--candidates", 12, "--tolerance", 0.1)
    assert lottery_jax("approximate", *asked, "--out", folder / "t") == 0
    return folder / "model.safetensors"


def test_a_models_copy_keeps_its_types_and_what_is_not_approximated(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, original = model.read_bytes(), load_file(model)
    said, made = exported(capsys, model.with_name("t"), "--into", model, "--out", tmp_path / "made.safetensors")
    assert "with 1 tensors as the ticket makes them" in said and model.read_bytes() == before
    np.testing.assert_array_equal(made["v"], original["v"])
    assert made["w"].dtype == np.float16 and 0 < np.abs(made["w"] - original["w"]).max() < 0.5
    _, alone = exported(capsys, model.with_name("t"), "--out", tmp_path / "alone.safetensors")
    np.testing.assert_array_equal(alone["w"].astype(np.float16), made["w"])


def test_masks_and_seed_make_the_weights(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticket = load_ticket(model.with_name("t"))
    said, masks = exported(capsys, model.with_name("t"), "--masks", "--out", tmp_path / "masks.safetensors")
    assert "1 masks" in said and masks["w"].dtype == np.uint8 and masks["w"].shape == (9, 7, 12)
    assert masks["w"].sum() == ticket.kept_weights and set(np.unique(masks["w"])) == {0, 1}
    _, made = exported(capsys, model.with_name("t"), "--out", tmp_path / "made.safetensors")
    np.testing.assert_allclose((masks["w"] * ticket.source()["w"]).sum(-1), made["w"], rtol=1e-5, atol=1e-6)


def test_what_cannot_be_exported_is_refused(
    model: Path, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, before = tmp_path / "made.safetensors", model.read_bytes()
    assert "must hold floats [9, 7] as 'w', but holds nothing" in refusal(
        capsys, 2, "export", model.with_name("t"), "--into", target, "--out", out
    )
    assert str(model) in refusal(capsys, 2, "export", model, "--out", out)
    (tmp_path / "file").write_text("")
    assert "file" in refusal(capsys, 2, "export", model.with_name("t"), "--out", tmp_path / "file" / "made")
    assert not out.exists() and model.read_bytes() == before
