"""Data augmentation of training images inside a compiled step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lottery_jax.errors import InputError, suggest

_PAD = 4  # pixels on each side


def crop_and_flip(images: jax.Array, key: jax.Array) -> jax.Array:
    """Images [B, H, W, C], padded by four zeros on each side, randomly cropped, and mirrored with probability 1/2.

    He et al. 2016 (arXiv 1512.03385), section 4.2.

    >>> crop_and_flip(jnp.ones((2, 32, 32, 3)), jax.random.key(0)).shape
    (2, 32, 32, 3)
    """
    if images.ndim != 4:
        raise InputError(f"augment needs images [H, W, C], got {list(images.shape[1:])}. Use none.")
    padded = jnp.pad(images, ((0, 0), (_PAD, _PAD), (_PAD, _PAD), (0, 0)))
    corner_key, flip_key = jax.random.split(key)
    corners = jax.random.randint(corner_key, (len(images), 2), 0, 2 * _PAD + 1)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], jnp.int32(0)), images.shape[1:])

    flipped = jax.random.bernoulli(flip_key, 0.5, (len(images), 1, 1, 1))
    cropped = jax.vmap(crop)(padded, corners)
    return jnp.where(flipped, cropped[:, :, ::-1], cropped)


AUGMENTS: dict[str, Callable[[jax.Array, jax.Array], jax.Array] | None] = {"none": None, "crop-flip": crop_and_flip}


def augment(name: str) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """An augmentation by name; None for "none". Raises `InputError` for an unknown name."""
    if name not in AUGMENTS:
        raise InputError(f"the augmentation {name!r} is unknown; {suggest(name, AUGMENTS)}")
    return AUGMENTS[name]
