"""The file's own result of an ONNX model: its nodes run one by one in NumPy by ``onnx.reference``."""

from typing import TYPE_CHECKING, Any

import numpy as np

from lottery_jax.errors import InputError

if TYPE_CHECKING:
    import onnx


def reference_output(model: "onnx.ModelProto", where: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The only output of a model for its inputs by name.

    Raises:
        InputError: If ``onnx.reference`` cannot run the model.
    """
    from onnx.reference import ReferenceEvaluator

    try:
        (output,) = ReferenceEvaluator(model, new_ops=_operators()).run(None, inputs)
    except Exception as error:  # of any node's own code
        raise InputError(
            f"{where} must run in onnx.reference, with which the import is compared, got: {str(error).strip()[:200]}."
            " Export it with another opset."
        ) from error
    return np.asarray(output)


def _operators() -> list[Any]:
    """Operators that onnx 1.23 computes otherwise than ONNX defines them."""
    from onnx.reference.op_run import OpRun
    from onnx.reference.ops.op_conv_transpose import ConvTranspose as Ungrouped

    class BatchNormalization(OpRun):
        """Evaluation mode; before opset 14 the package's one updates the running mean first."""

        op_domain = ""

        def _run(self, x, scale, bias, mean, variance, epsilon=None, **_):  # type: ignore[no-untyped-def]
            scale, bias, mean, variance = (
                one.reshape(-1, *[1] * (x.ndim - 2)) for one in (scale, bias, mean, variance)
            )
            return ((scale * (x - mean) / np.sqrt(variance + epsilon) + bias).astype(x.dtype),)

    class GlobalMaxPool(OpRun):
        """The package's one is right for two spatial axes only."""

        op_domain = ""

        def _run(self, x):  # type: ignore[no-untyped-def]
            return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)

    class ConvTranspose(Ungrouped):
        """The package's one is right for one output channel per group only."""

        op_domain = ""

        def _run(self, x, weight, bias=None, group=1, **options):  # type: ignore[no-untyped-def]
            parts = [
                super(ConvTranspose, self)._run(part, kernel, group=1, **options)[0]
                for part, kernel in zip(np.split(x, group, axis=1), np.split(weight, group), strict=True)
            ]
            y = np.concatenate(parts, axis=1)
            return (y if bias is None else y + bias.reshape(-1, *[1] * (x.ndim - 2)),)

    return [BatchNormalization, GlobalMaxPool, ConvTranspose]
