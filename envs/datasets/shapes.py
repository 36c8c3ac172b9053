"""Generated images of ten figures at random place, size, angle and sign, in clutter and noise.

As many images as asked for, at any size, and hard enough that a dense network does not reach 100 %: noise and clutter
are the knobs that make a problem carry signal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from . import DATASETS, DatasetEntry
from .splits import Dataset, Labels, normalised

Array = NDArray[np.floating[Any]]

_CLUTTER_RADIUS = 0.08


def _box(u: Array, v: Array, width: float, height: float) -> Array:
    """Signed distance (Chebyshev) to a rectangle of half-sizes ``width`` and ``height``; negative inside."""
    distance: Array = np.maximum(np.abs(u) - width, np.abs(v) - height)
    return distance


def _triangle(u: Array, v: Array) -> Array:
    slope = 0.5 * np.sqrt(np.float32(3.0))
    distance: Array = np.maximum(slope * np.abs(u) + 0.5 * v, -v) - np.float32(0.5)
    return distance


def _rhombus(u: Array, v: Array) -> Array:
    return (np.abs(u) + 2.0 * np.abs(v) - 1.0) / np.float32(np.sqrt(5.0))


# Signed distance to each figure, in units of its radius, at coordinates (u, v) of its own frame; negative inside.
FIGURES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": lambda u, v: np.hypot(u, v) - 0.9,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.75) - 0.2,
    "square": lambda u, v: _box(u, v, 0.75, 0.75),
    "frame": lambda u, v: np.abs(_box(u, v, 0.62, 0.62)) - 0.18,
    "cross": lambda u, v: np.minimum(_box(u, v, 0.95, 0.25), _box(u, v, 0.25, 0.95)),
    "triangle": _triangle,
    "bar": lambda u, v: _box(u, v, 1.0, 0.3),
    "two bars": lambda u, v: _box(u, np.abs(v) - 0.55, 0.9, 0.22),
    "diamond frame": lambda u, v: np.abs(_rhombus(u, v)) - 0.16,
    "checker": lambda u, v: np.maximum(_box(u, v, 0.8, 0.8), -np.sign(u * v) * np.minimum(np.abs(u), np.abs(v))),
}


def shapes(
    size: Annotated[int, Field(ge=8)] = 16,
    images: Annotated[int, Field(ge=30)] = 3000,
    noise: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.2,
    clutter: Annotated[int, Field(ge=0)] = 0,
    seed: int = 0,
) -> Dataset:
    """Grey images, classes in equal parts.

    Args:
        size: Height and width in pixels.
        images: Number of images: 40 % for training, 30 % for validation, 30 % for testing.
        noise: Standard deviation of the Gaussian noise; a figure stands out from its background by 1.
        clutter: Small discs strewn over every image.
        seed: Seed of everything random.
    """
    held = round(0.3 * images)
    parts = [
        draw(count, size, noise, clutter, np.random.default_rng([seed, index]))
        for index, count in enumerate((images - 2 * held, held, held))
    ]
    return normalised(parts, len(FIGURES))


def draw(
    count: int, size: int, noise: float, clutter: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], Labels]:
    """Draw ``count`` images (count, 1, size, size) and their labels."""
    labels = rng.permutation(np.arange(count) % len(FIGURES))
    radius = rng.uniform(0.2, 0.4, count) * size
    images = _sign(rng, count) * _figures(labels, radius, size, rng)
    for _ in range(clutter):
        x, y = _offsets(_place(np.zeros(count), size, rng), size)
        images += _sign(rng, count) * _coverage(np.hypot(x, y) - np.float32(_CLUTTER_RADIUS * size))
    images += np.float32(noise) * rng.standard_normal(images.shape, np.float32)
    return images[:, None].astype(np.float32, copy=False), labels


def _figures(labels: Labels, radius: NDArray[np.float64], size: int, rng: np.random.Generator) -> Array:
    """Each image's figure: coverage of every pixel in [0, 1], (N, size, size)."""
    x, y = _offsets(_place(radius, size, rng), size)
    angle = rng.uniform(0.0, 2.0 * np.pi, len(labels)).astype(np.float32)[:, None, None]
    scale = radius.astype(np.float32)[:, None, None]
    u = (x * np.cos(angle) + y * np.sin(angle)) / scale
    v = (y * np.cos(angle) - x * np.sin(angle)) / scale
    distance = np.empty_like(u)
    for label, figure in enumerate(FIGURES.values()):
        mine = labels == label
        distance[mine] = figure(u[mine], v[mine])
    return _coverage(distance * scale)


def _place(radius: NDArray[np.float64], size: int, rng: np.random.Generator) -> Array:
    """Centres (2, N) in pixels, such that a disc of the radius stays in the image."""
    return rng.uniform(radius, size - radius, (2, len(radius))).astype(np.float32)


def _offsets(centre: Array, size: int) -> tuple[Array, Array]:
    """Horizontal and vertical distance of every pixel's centre to ``centre``, broadcastable to (N, size, size)."""
    pixels = np.arange(size, dtype=np.float32) + np.float32(0.5)
    return pixels[None, None, :] - centre[0, :, None, None], pixels[None, :, None] - centre[1, :, None, None]


def _coverage(distance: Array) -> Array:
    """Share of a pixel that a figure covers, from the signed distance in pixels: one pixel wide edges."""
    share: Array = np.clip(np.float32(0.5) - distance, 0.0, 1.0)
    return share


def _sign(rng: np.random.Generator, count: int) -> Array:
    return rng.choice(np.array([-1.0, 1.0], np.float32), count)[:, None, None]


DATASETS.register("shapes")(DatasetEntry(shapes, "generated grey images of ten figures, in clutter and noise"))
