"""Hard choices whose gradient is a soft one's."""

import jax
import jax.numpy as jnp


def straight_through(hard: jax.Array, soft: jax.Array) -> jax.Array:
    """The values of `hard`, exactly, with the gradient of `soft` (Bengio et al. 2013, section 4).

    >>> value, gradient = jax.value_and_grad(lambda x: straight_through(jnp.float32(1), 3 * x))(jnp.float32(0.2))
    >>> float(value), float(gradient)
    (1.0, 3.0)
    """
    return jax.lax.stop_gradient(hard).astype(soft.dtype) + (soft - jax.lax.stop_gradient(soft))


def own_key(key: jax.Array, place: int) -> jax.Array:
    """A key for one of several tensors."""
    return jax.random.fold_in(key, jnp.uint32(place))
