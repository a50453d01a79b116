"""The names of layers, architectures, methods and solvers, each with a summary in one line.

Each registry is imported at first use: methods take seconds, layers and solvers do not need them.
"""

import inspect


class Listing(dict[str, str]):
    """Summaries by name, shown as one line each.

    >>> Listing(relu="max(x, 0).", leaky_relu="x for x >= 0, slope * x below.")
    relu        max(x, 0).
    leaky_relu  x for x >= 0, slope * x below.
    """

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(f"{name:{width}}  {words}" for name, words in self.items())


def list_layers() -> Listing:
    """Layers and containers of a `Network`: names in `lottery_jax.layers`.

    >>> list_layers()["Relu"]
    'max(x, 0).'
    """
    from lottery_jax import layers
    from lottery_jax.networks.node import Node

    return Listing({name: _summary(kind) for name, kind in vars(layers).items() if _is_subclass(kind, Node)})


def list_architectures() -> Listing:
    """Architectures: names for `networks.architecture` and ``--architecture``, which also take ``mlp-A-B-...``.

    >>> list_architectures()["conv8"]
    'Conv-2, 4, 6 (Frankle and Carbin 2019) and Conv-8 (Ramanujan et al. 2020), without biases: blocks=4.'
    """
    from lottery_jax.networks.architectures import ARCHITECTURES

    found = Listing()
    for name, build in ARCHITECTURES.items():
        options = getattr(build, "keywords", {})
        words = _summary(getattr(build, "func", build))
        given = ", ".join(f"{option}={value}" for option, value in options.items())
        found[name] = f"{words.removesuffix('.')}: {given}." if given else words
    return found


def list_methods() -> Listing:
    """Methods: labels for `compare` and ``--methods``.

    >>> list_methods()["dense"]
    'The trained target itself.'
    """
    from lottery_jax.comparison.registry import all_methods

    return Listing({label: method.about for label, method in all_methods().items()})


def list_solvers() -> Listing:
    """Solvers of subset-sum problems: classes in `lottery_jax.subset_sum`, whose objects `subset_sum.solve` takes.

    >>> list_solvers()["NearestCandidate"]
    'The candidate nearest to the target, the first of equally near ones; none if 0 is as near.'
    """
    from lottery_jax import subset_sum

    return Listing(
        {name: _summary(kind) for name, kind in vars(subset_sum).items() if _is_subclass(kind, subset_sum.Solver)}
    )


def _is_subclass(kind: object, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base) and not inspect.isabstract(kind)


def _summary(documented: object) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(documented) or "").partition("\n")[0]
