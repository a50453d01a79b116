"""PyTorch modules as pure JAX functions, through an ONNX model in memory."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from lottery_jax.errors import InputError
from lottery_jax.importers.onnx_function import OnnxFunction, onnx_function

if TYPE_CHECKING:
    import onnx

_PREFIX = "0."


def is_torch_module(value: object) -> bool:
    """Whether a value is a ``torch.nn.Module``; PyTorch is not imported for the answer."""
    return any(
        (kind.__module__.partition(".")[0], kind.__name__) == ("torch", "Module") for kind in type(value).__mro__
    )


def torch_function(module: Any, example: Any) -> OnnxFunction:
    """The pure function of a PyTorch module in evaluation mode.

    Args:
        module: A ``torch.nn.Module``. Parameters keep the names of its ``state_dict``; a shared one has its first name.
        example: Array of one batch; the first axis is the batch and stays dynamic.

    Raises:
        InputError: If the module is in training mode or cannot be exported, or its operators are not supported.
    """
    import torch  # type: ignore[import-not-found]

    if any(part.training for part in module.modules()):
        raise InputError("the PyTorch module must be in evaluation mode, got training mode. Call model.eval() first.")
    array = np.array(example)
    device = next((one.device for one in module.parameters()), torch.device("cpu"))
    x = torch.from_numpy(array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array).to(device)
    # The exporter takes default arguments of the outermost module for inputs, but not those of its parts.
    outer = torch.nn.Sequential(module).eval()
    with _plain_exporter(torch):
        try:
            content = _exported(torch, outer, x, dynamo=False)
        except Exception as error:  # of the exporter, or of the module's own code
            try:
                content = _exported(torch, outer, x, dynamo=True)
            except Exception:
                raise InputError(
                    f"the PyTorch module must be exported by torch.onnx.export, got: {str(error).strip()[:200]}."
                    " Export it to an ONNX file, and pass the path."
                ) from error
    import onnx

    model = onnx.load_from_string(content)
    _name_tensors(model, outer.state_dict())
    return onnx_function(model)


@contextlib.contextmanager
def _plain_exporter(torch: Any) -> Iterator[None]:
    """No warnings of the exporter, and attention as elementary operations, which it can export."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _exported(torch: Any, module: Any, x: Any, *, dynamo: bool) -> bytes:
    """The module's ONNX model without folded constants, so that parameters keep their names and values."""
    file = io.BytesIO()
    if dynamo:
        options = {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "external_data": False}
        options |= {"optimize": False, "verbose": False}
    else:  # evaluation would fold batch normalisation into convolutions
        options = {"dynamic_axes": {"input": {0: "batch"}}, "training": torch.onnx.TrainingMode.PRESERVE}
    names = {"input_names": ["input"], "output_names": ["output"]}
    torch.onnx.export(
        module, (x,), file, dynamo=dynamo, opset_version=18, do_constant_folding=False, **names, **options
    )
    return file.getvalue()


def _name_tensors(model: "onnx.ModelProto", state: Mapping[str, Any]) -> None:
    """Give each tensor of the module its own name, without the outer prefix: the exporter stores equal ones once."""
    from onnx import numpy_helper

    initialisers = {tensor.name for tensor in model.graph.initializer}
    for node in list(model.graph.node):
        names = (*node.input, *node.output)
        if node.op_type == "Identity" and names[0] in initialisers and set(names) <= state.keys():
            first, second = (state[name] for name in names)
            if first.data_ptr() != second.data_ptr():  # a shared tensor stays one parameter
                model.graph.initializer.append(numpy_helper.from_array(second.detach().cpu().numpy(), names[1]))
                model.graph.node.remove(node)
    for tensor in model.graph.initializer:
        if tensor.name in state:
            tensor.name = tensor.name.removeprefix(_PREFIX)
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [name.removeprefix(_PREFIX) if name in state else name for name in values]
