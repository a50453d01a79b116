"""What is made of training images inside a compiled step: shifted and mirrored, as usual for CIFAR-10."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lottery_jax.errors import InputError, suggest

_PAD = 4  # pixels on each side that a crop may shift by (He et al. 2016, section 4.2)


def crop_and_flip(images: jax.Array, key: jax.Array) -> jax.Array:
    """Images [B, H, W, C] padded by four zeros on each side, cropped at random and mirrored half of the time.

    He et al. 2016 (arXiv 1512.03385), section 4.2.

    >>> crop_and_flip(jnp.ones((2, 32, 32, 3)), jax.random.key(0)).shape
    (2, 32, 32, 3)
    """
    if images.ndim != 4:
        raise InputError(f"examples of shape {list(images.shape[1:])} are no images [H, W, C]; leave augment out")
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
    """An augmentation by its name, None for none; raises `InputError`."""
    if name not in AUGMENTS:
        raise InputError(f"the augmentation {name!r} is unknown; {suggest(name, AUGMENTS)}")
    return AUGMENTS[name]
