"""Every model of the catalogue becomes a target that computes the same, with weights where the model has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lottery_jax import target_from
from tests.importers import image_models  # noqa: F401
from tests.importers.models import MODELS


def run(model, x, parameters=None):
    return np.asarray(model(x) if parameters is None else model(parameters, x))


@pytest.mark.parametrize("name", MODELS)
def test_import(name):
    model, example, *rest = MODELS[name].build(0)
    target = target_from(model, example, *rest)
