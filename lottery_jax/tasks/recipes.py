"""How the target of a data set is trained where none is given: one recipe for each data set and architecture."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Adam with a cosine learning rate that falls to zero, and decoupled weight decay."""

    epochs: int
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0


DEFAULT_ARCHITECTURES = {"digits": "mlp-64", "mnist": "fc2", "fashion_mnist": "fc2", "cifar10": "fc2"}
"""What is trained where no architecture is named; for other data `OWN_ARCHITECTURE`."""
OWN_ARCHITECTURE = "mlp-100"

STATISTICS = {"cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))}
"""Mean and standard deviation of each channel over the training images of a data set."""

RECIPES = {
    ("digits", "mlp-64"): Recipe(60, 64, 3e-3),
    ("mnist", "fc2"): Recipe(10),
    ("mnist", "lenet5"): Recipe(5, learning_rate=2e-3),
    ("fashion_mnist", "fc2"): Recipe(10),
    ("cifar10", "fc2"): Recipe(10, learning_rate=5e-4),
}
_OTHERS = {"digits": Recipe(60, 64, 3e-3), "mnist": Recipe(10), "fashion_mnist": Recipe(10)}
_DEEP = Recipe(30, learning_rate=1e-3, weight_decay=5e-4)
_SMALL = Recipe(60, 32, 3e-3)


def recipe(data: str, architecture: str, examples: int) -> Recipe:
    """The recipe for a data set of so many training examples and an architecture.

    >>> recipe("mnist", "fc2", 55_000).epochs
    10
    """
    found = RECIPES.get((data, architecture)) or _OTHERS.get(data) or (_DEEP if examples > 5000 else _SMALL)
    return dataclasses.replace(found, batch_size=min(found.batch_size, examples))
