"""ONNX files as targets: every network equals the reference, tickets verify and go back into the file, images turn."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax import InputError, Ticket, approximate, target_from, verify
from lottery_jax.importers.onnx_function import onnx_function
from lottery_jax.importers.onnx_target import import_onnx
from lottery_jax.networks.node import Spec
from lottery_jax.tickets.export import export_into
from tests.cli.calling import lottery_jax, refusal

onnx = pytest.importorskip("onnx")

from tests.importers.onnx_models import NETWORKS, Model, mlp, residual_network  # noqa: E402

SHAPES = {"mlp": (3, 4), "residual_network": (3, 16, 16), "inverted_residual": (4, 8, 8), "attention_block": (6, 8)}


def scalar_ticket(target) -> Ticket:
    return approximate(target, construction="scalar", candidates=12, tolerance=0.3, seed=0)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_a_file_becomes_a_target_a_ticket_and_a_file_again(network, tmp_path: Path) -> None:
    path, out, shape = tmp_path / "net.onnx", tmp_path / "new.onnx", SHAPES[network.__name__]
    onnx.save(network(), path)
    x = np.random.default_rng(3).normal(size=(2, *shape)).astype(np.float32)
    target = target_from(str(path), x)
    np.testing.assert_allclose(target.module()(x), onnx_function(path).reference(x), atol=2e-5)
    names = {name.rpartition(".")[0] for name in target.network.approximated}
    assert names == {name.removesuffix(".weight") for name in onnx_function(path).parameters if _is_weight(name)}
    ticket = scalar_ticket(target)
    assert verify(ticket, target=target).outcome == "holds"
    assert "of the largest one away" in export_into(ticket, path, out)
    np.testing.assert_allclose(onnx_function(out).reference(x), ticket.module()(x), rtol=1e-4, atol=1e-4)


def _is_weight(name: str) -> bool:
    """Whether a parameter of these networks is multiplied by activations."""
    return "bn" not in name and not name.startswith("n") and not name.endswith("bias") and not name.startswith("tensor")


def test_images_of_a_data_set_are_given_with_channels_first(tmp_path: Path) -> None:
    onnx.save(residual_network(), tmp_path / "net.onnx")
    x = np.random.default_rng(3).normal(size=(2, 16, 16, 3)).astype(np.float32)
    target = import_onnx(tmp_path / "net.onnx", Spec((16, 16, 3))).target
    expected = onnx_function(tmp_path / "net.onnx").reference(x.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(target.module()(x), expected, atol=2e-5)
    assert "channels first" in " ".join(target.notes)
    with pytest.raises(InputError, match=r"\[15, 16, 3\]"):
        import_onnx(tmp_path / "net.onnx", Spec((15, 16, 3)))


def test_a_flat_input_takes_images_as_pytorch_flattens_them(tmp_path: Path) -> None:
    built = Model()
    onnx.save(built.model(built.add("MatMul", "x", built.weight("w", 12, 5)), ("batch", 12)), tmp_path / "net.onnx")
    x = np.random.default_rng(3).normal(size=(2, 2, 2, 3)).astype(np.float32)
    target = import_onnx(tmp_path / "net.onnx", Spec((2, 2, 3))).target
    flat = jnp.moveaxis(x, -1, 1).reshape(2, -1)
    np.testing.assert_allclose(target.module()(x), onnx_function(tmp_path / "net.onnx").reference(flat), atol=1e-5)


def test_a_batch_of_one_that_the_file_fixes(tmp_path: Path) -> None:
    for batch, fine in ((1, True), (3, False)):
        built = Model()
        hidden = built.add("Reshape", built.add("MatMul", "x", built.weight("w", 4, 6)), np.array([batch, 2, 3]))
        onnx.save(built.model(built.add("Softmax", hidden, axis=-1), (batch, 4)), tmp_path / "net.onnx")
        if fine:
            assert target_from(tmp_path / "net.onnx", (1, 4)).network.output_spec.shape == (2, 3)
        else:
            with pytest.raises(InputError, match="dynamic batch axis"):
                target_from(tmp_path / "net.onnx", (1, 4))


def test_the_commands_take_an_onnx_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", images=random.random((60, 3, 4), np.float32), labels=np.arange(60) % 5)
    onnx.save(mlp(), tmp_path / "net.onnx")
    onnx.save(residual_network(), tmp_path / "other.onnx")
    ticket, words = tmp_path / "t", ("--candidates", 12, "--tolerance", 0.3, "--construction", "scalar", "--quiet")
    data = "--data", tmp_path / "d.npz", "--out", ticket
    assert lottery_jax("approximate", *data, "--target", tmp_path / "net.onnx", *words) == 0
    assert lottery_jax("verify", ticket, "--target", tmp_path / "net.onnx") == 0
    assert lottery_jax("export", ticket, "--into", tmp_path / "net.onnx", "--out", tmp_path / "new.onnx") == 0
    assert "fc1" in capsys.readouterr().out
    assert lottery_jax("verify", ticket, "--target", tmp_path / "new.onnx") == 0  # its own weights are nearer still
    capsys.readouterr()
    assert "other.onnx" in refusal(capsys, 2, "verify", ticket, "--target", tmp_path / "other.onnx")
    into = "export", ticket, "--into", tmp_path / "other.onnx", "--out", tmp_path / "x.onnx"
    assert "other.onnx" in refusal(capsys, 2, *into)
    named = "approximate", "--architecture", "lenet5", "--force", *data, "--target", tmp_path / "net.onnx"
    assert "--architecture and --width" in refusal(capsys, 2, *named)
