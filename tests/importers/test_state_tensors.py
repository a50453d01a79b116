"""State dicts as people have them: prefixes, no biases, own names, Flax, masks and weight normalisation."""

import dataclasses
import pickle
import re
import time
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from lottery_jax.approximation.api import approximate
from lottery_jax.errors import InputError
from lottery_jax.importers.state_dict import import_target, load_model
from lottery_jax.importers.state_tensors import reparametrisations
from lottery_jax.networks.architectures import ARCHITECTURES, architecture
from lottery_jax.networks.layers.containers import Chain
from lottery_jax.networks.layers.pooling import AveragePool, MaxPool
from lottery_jax.networks.network import Network
from lottery_jax.networks.node import LinearLayer, Node, Spec
from lottery_jax.networks.target import Target
from lottery_jax.tickets.verify import verify
from tests.cli.calling import lottery_jax, refusal

GREY, IMAGE = Spec((28, 28, 1), True), Spec((32, 32, 3), True)
ZOO = [name for name in ARCHITECTURES if name not in ("fc2", "fc4", "lenet-300-100")]


def tensors(network: Network, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.uniform(0.1, 0.5, shape).astype(np.float32) for name, shape in network.tensors.items()}


def lenet5(**options) -> dict[str, np.ndarray]:
    return tensors(architecture("lenet5", GREY, 10, **options))


def without(arrays: dict[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    return {name: value for name, value in arrays.items() if part not in name}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.safetensors"


def unbiased(path: str, node: Node) -> Node:
    return dataclasses.replace(node, bias=False) if isinstance(node, LinearLayer) else node  # type: ignore[type-var]


def biased(path: str, node: Node) -> Node:
    return dataclasses.replace(node, bias=True) if isinstance(node, LinearLayer) else node  # type: ignore[type-var]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(ZOO),
    st.sampled_from(["", "module.", "_orig_mod.", "module._orig_mod.", "model.", "net.", "a.b.c."]),
    st.sampled_from([None, biased, unbiased]),
    st.booleans(),
)
def test_every_architecture_is_found_with_any_prefix_and_any_biases(
    name: str, prefix: str, change: Callable | None, named: bool
) -> None:
    import tempfile

    network = architecture(name, IMAGE, 10, width=0.05)
    network = network if change is None else network.map_layers(change)
    arrays = tensors(network)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        save_file({prefix + tensor: value for tensor, value in arrays.items()}, path)
        options = {"name": name, "width": 0.05} if named else {}
        target = import_target(path, IMAGE, 10, **options)
    assert target.network == network
    for tensor, value in arrays.items():
        np.testing.assert_array_equal(target.array(tensor), value)
    assert prefix.partition(".")[0] in target.notes[0] and len(target.notes) == 1


def test_a_wrapper_inside_the_path_is_removed(path: Path) -> None:
    arrays = tensors(architecture("vgg16", IMAGE, 10, width=0.05))
    renamed = {name.replace("features.", "features.module."): value for name, value in arrays.items()}
    save_file({**renamed, "n_averaged": np.array(3)}, path)
    target = import_target(path, IMAGE, 10)
    assert target.network == architecture("vgg16", IMAGE, 10, width=0.05)
    assert "without 'module' in their names" in target.notes[0]


def test_the_published_lenet5_has_no_biases(path: Path) -> None:
    arrays = without(lenet5(), "bias")
    save_file(arrays, path)
    for name in (None, "lenet5"):
        target = import_target(path, GREY, 10, name=name)
        assert target.network.tensors == {name: value.shape for name, value in arrays.items()}
        kinds = [type(node).__name__ for _, node in target.network.nodes() if not isinstance(node, Chain)]
        assert kinds.count("MaxPool") == 2 and kinds.count("Conv") == 2
    some = {**arrays, "fc3.bias": np.ones(10, np.float32)}
    save_file(some, path)
    assert set(import_target(path, GREY, 10).network.tensors) == set(some)


def test_names_of_ones_own_are_matched_if_their_shapes_leave_one_way(path: Path) -> None:
    own = dict(
        zip(("conv1", "conv2", "fc1", "fc2", "fc3"), ("features.0", "features.3", "c5", "f6", "out"), strict=True)
    )
    arrays = lenet5()
    renamed = {re.sub(r"^\w+", lambda match: own[match[0]], name): value for name, value in arrays.items()}
    save_file(renamed, path)
    for options in ({}, {"name": "lenet5"}):
        target = import_target(path, GREY, 10, **options)
        for name, value in arrays.items():
            np.testing.assert_array_equal(target.array(name), value)
        assert "features.0 is conv1, features.3 is conv2, c5 is fc1" in target.notes[0]
    conv4 = tensors(architecture("conv4", IMAGE, 10, width=0.05))
    places = {
        layer: f"net.{2 * place}" for place, layer in enumerate(dict.fromkeys(n.partition(".")[0] for n in conv4))
    }
    save_file({re.sub(r"^\w+", lambda match: places[match[0]], name): value for name, value in conv4.items()}, path)
    target = import_target(path, IMAGE, 10)  # equal shapes, in the order of their numbers
    for name, value in conv4.items():
        np.testing.assert_array_equal(target.array(name), value)
    same = {"stem": "conv1", "left": "conv2", "right": "conv3"}
    ambiguous = {**conv4, **{f"{new}.weight": conv4[f"{old}.weight"] for new, old in same.items()}}
    save_file(without(ambiguous, "conv"), path)
    with pytest.raises(InputError, match="must hold a known architecture"):
        import_target(path, IMAGE, 10)


def test_several_fitting_architectures_are_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def averaging(input_spec: Spec, classes: int, width: float) -> Network:
        def changed(path: str, node: Node) -> Node:
            return AveragePool(node.size) if isinstance(node, MaxPool) else node

        return ARCHITECTURES["lenet5"](input_spec, classes, width).map_layers(changed)

    monkeypatch.setitem(ARCHITECTURES, "lenet5-average", averaging)
    arrays = lenet5(width=0.5)
    for stored in (arrays, without(arrays, "bias"), {f"x.{name}": value for name, value in arrays.items()}):
        save_file(stored, path)
        with pytest.raises(InputError, match=r"fits lenet5 and lenet5-average\. Name it with --architecture\."):
            import_target(path, GREY, 10)
        assert "AveragePool" in str(import_target(path, GREY, 10, name="lenet5-average", width=0.5).network.root)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"conv1.weight": np.ones((6, 3, 5, 5))},
            r"a lenet5: conv1\.weight must be \[6, 1, 5, 5\], got \[6, 3, 5, 5\]\.",
        ),
        (
            {"fc1.bias": np.ones(119), "fc3.bias": np.ones(3)},
            r"fc1\.bias must be \[120\], got \[119\] \(1 more\)\.",
        ),
        ({"fc2.weight": None}, r"fc2\.weight must be \[84, 120\], got no such tensor\. Check"),
        ({"fc4.weight": np.ones((10, 10))}, r"fc4\.weight \[10, 10\] must not exist\. Check"),
        ({"scale": np.ones(())}, r"scale \[\] must not exist"),
    ],
)
def test_the_first_difference_is_named(change: dict, words: str, path: Path) -> None:
    arrays = {
        **lenet5(),
        **{name: None if value is None else value.astype(np.float32) for name, value in change.items()},
    }
    for prefix in ("", "module."):
        save_file({prefix + name: value for name, value in arrays.items() if value is not None}, path)
        with pytest.raises(InputError, match=words):
            import_target(path, GREY, 10, name="lenet5")
        with pytest.raises(
            InputError, match=r"must hold a (lenet5|known architecture).*target_from\(module, example\)"
        ):
            import_target(path, GREY, 10)


class LeNet(nn.Module):
    """LeNet-5 as Flax has it: images stay [H, W, C] when they are flattened."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for number, (channels, padding) in enumerate(((6, 2), (16, 0)), start=1):
            sides = ((padding, padding),) * 2
            x = nn.max_pool(nn.relu(nn.Conv(channels, (5, 5), padding=sides, name=f"conv{number}")(x)), (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        for number, units in enumerate((120, 84), start=1):
            x = nn.relu(nn.Dense(units, name=f"fc{number}")(x))
        return nn.Dense(10, name="fc3")(x)


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(5)(x.reshape(len(x), -1)))
        return nn.Dense(10, use_bias=False)(x)


@pytest.mark.parametrize("separator", ["/", "."])
@pytest.mark.parametrize("net", [LeNet(), Dense()], ids=["cnn", "mlp"])
def test_a_file_of_flax_computes_what_flax_does(net: nn.Module, separator: str, path: Path, capsys) -> None:
    x = np.random.default_rng(0).normal(size=(4, *IMAGE.shape)).astype(np.float32)
    variables = net.init(jax.random.key(0), x)
    variables = jax.tree.map(lambda value: value + 0.01, variables)
    for state in (variables, variables["params"]):
        save_file({n: np.asarray(v) for n, v in flatten_dict(state, sep=separator).items()}, path)
        target = import_target(path, IMAGE, 10, same_as=lambda x: net.apply(variables, x))
        np.testing.assert_allclose(target.forward()(x), net.apply(variables, x), rtol=1e-4, atol=1e-4)
        assert target.notes == () and "kernels" in import_target(path, IMAGE, 10).notes[0]
    again = pickle.loads(pickle.dumps(target))
    assert again.digest == target.digest
    out, made = path.with_name("t"), path.with_name("made.safetensors")
    ticket = approximate(target, seed=0, construction="scalar", candidates=14, tolerance=0.01, out=out)
    assert verify(out, target=path).holds
    assert lottery_jax("export", out, "--into", path, "--out", made) == 0
    written = import_target(made, IMAGE, 10)  # the same names and layout
    assert set(load_file(made)) == set(load_file(path))
    np.testing.assert_allclose(written.forward()(x), ticket.forward()(x), rtol=1e-3, atol=1e-3)
    assert written.digest != target.digest


def test_a_flax_normalisation_has_pytorchs_names(path: Path) -> None:
    network = architecture("resnet20", IMAGE, 10, width=0.05)
    arrays, flax = tensors(network), {}
    words = {"running_mean": "mean", "running_var": "var", "weight": "scale", "bias": "bias"}
    for name, value in arrays.items():
        layer, _, tensor = name.rpartition(".")
        norm = f"{layer}.running_var" in arrays
        parts = ["batch_stats" if tensor.startswith("running") else "params", *layer.split(".")]
        last = words[tensor] if norm or tensor == "bias" else "kernel"
        order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(value.ndim) if last == "kernel" else None
        flax["/".join((*parts, last))] = np.ascontiguousarray(value.transpose(order) if order else value)
    save_file(flax, path)
    target = import_target(path, IMAGE, 10)
    assert target.network == network
    for name, value in arrays.items():
        np.testing.assert_array_equal(target.array(name), value)


def test_tickets_of_prefixed_files_are_verified_and_written_back(path: Path, tmp_path: Path) -> None:
    arrays = without(lenet5(width=0.3), "bias")
    save_file({f"module.{name}": value for name, value in arrays.items()}, path)
    target, out, made = import_target(path, GREY, 10), tmp_path / "t", tmp_path / "made.safetensors"
    ticket = approximate(target, seed=0, candidates=12, tolerance=0.1, out=out)
    assert ticket.network.target.tensors == {name: value.shape for name, value in arrays.items()}
    assert verify(out, target=path).holds
    assert lottery_jax("export", out, "--into", path, "--out", made) == 0
    written, before = load_file(made), load_file(path)
    assert set(written) == set(before)
    assert 0 < max(np.abs(written[name] - before[name]).max() for name in before) <= 0.1


def test_masks_are_applied_exactly(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays, random = lenet5(), np.random.default_rng(0)
    masks = {name: (random.random(value.shape) < 0.5).astype(np.float32) for name, value in arrays.items()}
    stored = {f"{name}_orig": value for name, value in arrays.items()}
    stored |= {f"{name}_mask": value for name, value in masks.items()}
    save_file(stored, path)
    target = import_target(path, GREY, 10)
    for name, value in arrays.items():
        np.testing.assert_array_equal(target.array(name), value * masks[name])
    assert "10 tensors of torch.nn.utils.prune" in target.notes[0] and target.path == path
    model, skipped = load_model(path)
    assert set(model.network.tensors) == {f"{name}_orig" for name, value in arrays.items() if value.ndim > 1}
    assert skipped["conv1.weight_mask"] == "it is a mask of torch.nn.utils.prune"
    with pytest.raises(InputError, match="must hold a float tensor"):
        load_model(path, "*_mask")
    approximate(target, seed=0, construction="scalar", candidates=12, tolerance=0.1, out=tmp_path / "t")
    assert verify(tmp_path / "t", target=path).holds
    said = refusal(capsys, 2, "export", tmp_path / "t", "--into", path, "--out", tmp_path / "made")
    assert "--into must be a file of plain tensors" in said
    save_file({**stored, "conv1.weight_mask": 0.5 * masks["conv1.weight"]}, path)
    with pytest.raises(
        InputError, match=r"'conv1\.weight' itself.*Call torch\.nn\.utils\.prune\.remove\(module, 'weight"
    ):
        import_target(path, GREY, 10)


@pytest.mark.parametrize(
    "names", [("{}_g", "{}_v"), ("parametrizations.{}.original0", "parametrizations.{}.original1")]
)
def test_weight_normalisation_is_computed(names: tuple[str, str], path: Path) -> None:
    arrays, random = lenet5(), np.random.default_rng(0)
    stored, made = without(arrays, "weight"), {}
    for name in set(arrays) - set(stored):
        layer = name.removesuffix(".weight")
        direction = random.normal(size=arrays[name].shape).astype(np.float32)
        axes = tuple(range(1, direction.ndim))
        length = random.uniform(1, 2, (len(direction), *(1 for _ in axes))).astype(np.float32)
        exact = direction.astype(np.float64)
        made[name] = length * exact / np.sqrt((exact**2).sum(axes, keepdims=True))
        for form, value in zip(names, (length, direction), strict=True):
            stored[f"{layer}.{form.format('weight')}"] = value
    save_file(stored, path)
    target = import_target(path, GREY, 10)
    for name, value in made.items():
        np.testing.assert_allclose(target.array(name), value, rtol=1e-6)
    assert "5 tensors of weight normalisation" in target.notes[0]
    with pytest.raises(
        InputError, match=r"of weight normalisation\. Call torch\.nn\.utils\.(remove_weight_norm|param)"
    ):
        load_model(path)
    assert set(load_model(path, "*.bias")[0].network.tensors) == {name for name in arrays if "bias" in name}
    direction = f"conv1.{names[1].format('weight')}"
    save_file({**stored, direction: np.zeros_like(stored[direction])}, path)
    with pytest.raises(InputError, match="must have no zero vectors, because"):
        import_target(path, GREY, 10)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            ("weight_orig", "weight_u", "weight_v"),
            r"spectral normalisation\. Call .*remove_spectral_norm",
        ),
        (
            ("parametrizations.weight.original",),
            r"a reparametrisation\. Call .*remove_parametrizations",
        ),
        (("parametrizations.weight.original", "parametrizations.weight.0._u"), "a reparametrisation"),
    ],
)
def test_other_reparametrisations_are_refused(parts: tuple[str, ...], words: str, path: Path) -> None:
    save_file({f"fc.{part}": np.ones((2, 784 - place), np.float32) for place, part in enumerate(parts)}, path)
    with pytest.raises(InputError, match=words):
        import_target(path, GREY, 2)
    with pytest.raises(InputError, match=words):
        load_model(path)
    for prefix in ("fc.", ""):
        found = reparametrisations({prefix + part: (2, 784) for part in parts})
        assert [one.name for one in found] == [f"{prefix}weight"]


def test_tensors_that_only_sound_so_are_no_reparametrisations(path: Path) -> None:
    others = {
        "W_g": (4, 4),
        "W_v": (4, 4),
        "a_g": (4, 1),
        "b_v": (4, 4),
        "c_orig": (4, 4),
        "c_mask": (4,),
        "d_mask": (4,),
    }
    assert reparametrisations(others) == []
    save_file({name: np.ones(shape, np.float32) for name, shape in others.items()}, path)
    assert set(load_model(path)[0].network.tensors) == {"W_g", "W_v", "a_g", "b_v", "c_orig"}
    for length in ((4, 1), (1, 4), ()):
        assert len(reparametrisations({"w_g": length, "w_v": (4, 4)})) == 1


def test_a_net_of_other_shapes_is_refused_soon_and_for_itself(path: Path) -> None:
    """As many layers as an architecture, and sizes that would make it too wide for its images."""
    arrays = tensors(architecture("conv4", IMAGE, 10, width=0.05))
    renamed = {f"net.{place}.weight": value for place, value in enumerate(arrays.values())}
    save_file({**renamed, "net.4.weight": np.ones((9999, 64), np.float32)}, path)
    begin = time.process_time()
    with pytest.raises(InputError, match=r"must hold a known architecture for this data set, got net\.0\.weight"):
        import_target(path, IMAGE, 10)
    assert time.process_time() - begin < 5


def test_the_original_decides(path: Path) -> None:
    arrays = lenet5()
    save_file(arrays, path)
    target = import_target(path, GREY, 10)
    same = import_target(path, GREY, 10, same_as=target.forward())
    assert same.digest == target.digest and same.notes == () and "lenet5 is assumed" in target.notes[0]
    with pytest.raises(
        InputError, match=r"^same_as must have the outputs of the target, .*lenet5 is assumed.*target_from"
    ):
        import_target(path, GREY, 10, same_as=lambda x: 1.01 * target.forward()(x))


OWN = """
from lottery_jax.networks.architectures import NetworkBuilder
from lottery_jax.networks.layers.pooling import Flatten
from lottery_jax.networks.network import Network

def net(input_spec, classes):
    builder = NetworkBuilder(input_spec).conv("conv1", 4, 3, bias=True).relu("r").add("flatten", Flatten())
    return Network(builder.dense("fc", classes, bias=True).chain(), input_spec)

def fails(input_spec, classes): raise KeyError("x")
def other(input_spec, classes): return 3
value = 3
"""


def test_an_architecture_of_ones_own(tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    spec = Spec((8, 8, 1), True)
    arrays = tensors(architecture(f"{file}:net", spec, 10))
    save_file({f"model.{name}": value for name, value in arrays.items()}, path)
    with pytest.raises(InputError, match=r"FILE\.py:FUNCTION for a Network of your own"):
        import_target(path, spec, 10)
    shared = ("--target", path, "--architecture", f"{file}:net")
    asked = ("--candidates", 12, "--tolerance", 0.2, "--construction", "scalar", "--out", tmp_path / "t")
    assert lottery_jax("approximate", *shared, *asked, "--quiet") == 0
    said = capsys.readouterr().out
    assert "without the prefix 'model.'" in said and f"{file}:net is assumed" in said
    assert lottery_jax("verify", tmp_path / "t", *shared) == 0
    assert lottery_jax("export", tmp_path / "t", "--into", path, "--out", tmp_path / "made.safetensors") == 0
    written = load_file(tmp_path / "made.safetensors")
    assert 0 < np.abs(written["model.fc.weight"] - arrays["fc.weight"]).max() <= 0.2
    for name, words in {
        "none": "must name a function",
        "value": "must name a function",
        "fails": "got KeyError: 'x'. Correct it.",
        "other": "must return a Network without random layers",
    }.items():
        with pytest.raises(InputError, match=words):
            architecture(f"{file}:{name}", spec, 10)
    with pytest.raises(InputError, match="width must be 1 for your own architecture, got 2"):
        architecture(f"{file}:net", spec, 10, width=2)
    with pytest.raises(InputError, match="does not exist"):
        architecture(f"{tmp_path}/none.py:net", spec, 10)


def test_a_file_of_the_same_name_is_another_file(tmp_path: Path) -> None:
    for units in (3, 5):
        (tmp_path / str(units)).mkdir()
        text = OWN.replace('"conv1", 4', f'"conv1", {units}')
        (tmp_path / str(units) / "mine.py").write_text(text)
        made = architecture(f"{tmp_path}/{units}/mine.py:net", Spec((8, 8, 1)), 10)
        assert made.tensors["conv1.weight"][0] == units


def test_names_of_a_file_and_of_an_mlp_make_one_network(path: Path) -> None:
    arrays = {"net.0.weight": np.ones((500, 784)), "net.2.weight": np.ones((10, 500)), "net.2.bias": np.ones(10)}
    save_file({name: value.astype(np.float32) for name, value in arrays.items()}, path)
    found: list[Target] = [import_target(path, GREY, 10, name=name) for name in (None, "fc2", "mlp-500")]
    assert len({target.digest for target in found}) == 1 and list(found[0].network.tensors) == list(arrays)
    with pytest.raises(InputError, match=r"must hold a mlp-400: fc1\.weight must be \[400, 784\], got"):
        import_target(path, GREY, 10, name="mlp-400")
