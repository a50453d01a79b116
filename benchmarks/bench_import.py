"""Seconds to import a network with `target_from`: tracing, checking and compilation apart.

Command: python benchmarks/bench_import.py
Cost: about five minutes on two CPU cores; `--quick` takes smaller networks and one run.
Goal: a network of MobileNetV2's kind (52 convolutions, 96 x 96 images) and a transformer of four layers are traced and
checked in at most 5 s each, beyond compilation.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from lottery_jax import environment
from lottery_jax.importers import target_from
from lottery_jax.importers.jax_trace import trace

COMPILATION = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")
SETTINGS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""MobileNetV2: expansion, channels, blocks and first stride of each group."""


class Block(nnx.Module):
    """An inverted residual with a linear bottleneck (Sandler et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, rngs: nnx.Rngs) -> None:
        inner, one = expansion * inputs, (1, 1)
        sizes = [(inputs, inner, one, 1, 1)] if expansion > 1 else []
        sizes += [(inner, inner, (3, 3), stride, inner), (inner, outputs, one, 1, 1)]
        convolutions, norms = [], []
        for own, out, size, step, groups in sizes:
            options = {"strides": step, "feature_group_count": groups, "use_bias": False}
            convolutions.append(nnx.Conv(own, out, size, rngs=rngs, **options))
            norms.append(nnx.BatchNorm(out, rngs=rngs))
        self.convolutions, self.norms = nnx.List(convolutions), nnx.List(norms)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        for place, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            y = norm(convolution(y))
            y = y if place == len(self.norms) - 1 else nnx.relu6(y)
        return x + y if x.shape == y.shape else y


class MobileNet(nnx.Module):
    """MobileNetV2 in Flax's layout, without its dropout."""

    def __init__(self, settings: tuple[tuple[int, int, int, int], ...], rngs: nnx.Rngs) -> None:
        channels, blocks = 32, []
        self.stem = nnx.Conv(3, channels, (3, 3), 2, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(channels, rngs=rngs)
        for expansion, outputs, count, stride in settings:
            for place in range(count):
                blocks.append(Block(channels, outputs, expansion, 1 if place else stride, rngs))
                channels = outputs
        self.blocks = nnx.List(blocks)
        self.last = nnx.Conv(channels, 4 * channels, (1, 1), rngs=rngs)
        self.head = nnx.Linear(4 * channels, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu6(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(nnx.relu6(self.last(x)).mean((1, 2)))


class Layer(nnx.Module):
    """A pre-norm layer of a transformer."""

    def __init__(self, size: int, rngs: nnx.Rngs) -> None:
        self.first, self.second = nnx.LayerNorm(size, rngs=rngs), nnx.LayerNorm(size, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, size, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(size, 4 * size, rngs=rngs), nnx.Linear(4 * size, size, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.first(x), mask=nnx.make_causal_mask(x[..., 0]))
        return x + self.down(nnx.gelu(self.up(self.second(x))))


class Transformer(nnx.Module):
    """A language model on tokens."""

    def __init__(self, layers: int, size: int, length: int, rngs: nnx.Rngs) -> None:
        self.embedding, self.positions = nnx.Embed(1000, size, rngs=rngs), nnx.Param(rngs.normal((length, size)))
        self.layers = nnx.List([Layer(size, rngs) for _ in range(layers)])
        self.norm, self.head = nnx.LayerNorm(size, rngs=rngs), nnx.Linear(size, 1000, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.embedding(x) + self.positions[...]
        for layer in self.layers:
            y = layer(y)
        return self.head(self.norm(y))


def networks(quick: bool) -> dict[str, tuple[nnx.Module, Any]]:
    """Module in evaluation mode and example by name."""
    rngs, tokens = nnx.Rngs(0), np.random.default_rng(0).integers(0, 1000, (4, 16 if quick else 64))
    found = {
        "mobilenet-v2": (MobileNet(SETTINGS[:2] if quick else SETTINGS, rngs), (1, *(2 * (32 if quick else 96,)), 3)),
        "transformer": (Transformer(1 if quick else 4, 128, tokens.shape[1], rngs), tokens),
    }
    for module, _ in found.values():
        module.eval()
    return found


_compilation = [0.0]


def _listen(event: str, duration_secs: float, **_: Any) -> None:
    _compilation[0] += duration_secs if event in COMPILATION else 0


class Timer:
    """Seconds of calls of a function, and those of compilation in them."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds, self.compilation = function, 0.0, 0.0

    def __call__(self, *arguments: Any) -> Any:
        start, before = time.perf_counter(), _compilation[0]
        result = self.function(*arguments)
        self.seconds += time.perf_counter() - start
        self.compilation += _compilation[0] - before
        return result

    @property
    def beyond(self) -> float:
        """Seconds beyond compilation."""
        return self.seconds - self.compilation


def measure(name: str, model: nnx.Module, example: Any, runs: int) -> dict:
    """A row of medians; every run compiles anew."""
    rows = []
    for _ in range(runs):
        jax.clear_caches()
        tracing, importing = Timer(trace), Timer(target_from.import_model)
        target_from.trace = tracing
        target = importing(model, example).target
        target_from.trace = trace
        rows.append((tracing.beyond, importing.beyond - tracing.beyond, importing.compilation))
    traced, checked, compiled = (statistics.median(column) for column in zip(*rows, strict=True))
    return {
        "network": name,
        "nodes": len(target.network.root.nodes),
        "layers": len(target.network.weight_nodes),
        "weights": target.weights,
        "trace_s": traced,
        "check_s": checked,
        "compile_s": compiled,
        "runs": runs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds to import a network.")
    parser.add_argument("--quick", action="store_true", help="small networks and one run")
    parser.add_argument("--out", type=Path, default=None, help="JSON file; default: in benchmarks/results")
    arguments = parser.parse_args()
    jax.monitoring.register_event_duration_secs_listener(_listen)
    rows = []
    for name, (model, example) in networks(arguments.quick).items():
        rows.append(measure(name, model, example, 1 if arguments.quick else 3))
        print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()))
    results = {"device": environment.device(), "versions": environment.versions(), "rows": rows}
    out = arguments.out or Path(__file__).parent / "results" / f"import_{jax.default_backend()}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
