"""Exact masks and a seed in, the masks that an annotator and several models might have drawn out.

A model's mask is the true mask with its outline moved: by a smooth random field, which grows with the difficulty of
the instance, and by the bias of the model. Now and then it makes another kind of mistake: it leaves out a part, or
takes in a neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Field = NDArray[np.float32]

CELL = 24
"""Pixels over which an outline's displacement changes."""


@dataclass(frozen=True)
class Model:
    """How a simulated model errs.

    Attributes:
        name: Name of the model.
        spread: Standard deviation of its outline, pixels, on an instance of mean difficulty.
        bias: Pixels by which it draws outlines too wide.
        mistakes: Share of instances, of mean difficulty, with a mistake of another kind.
        shared: Share of its displacement that it has in common with other models that share.
    """

    name: str
    spread: float
    bias: float
    mistakes: float
    shared: float = 0.0


INDEPENDENT = (
    Model("best", 1.0, 0.0, 0.04),
    Model("good", 1.3, 0.4, 0.06),
    Model("fair", 1.7, -0.4, 0.09),
    Model("poor", 2.2, 0.6, 0.13),
)
"""Four models of different quality. Their errors have only the difficulty of an instance in common."""

CORRELATED = (
    Model("best", 1.0, 0.0, 0.04),
    Model("alike 1", 1.3, 2.0, 0.06, 0.9),
    Model("alike 2", 1.7, 2.0, 0.09, 0.9),
    Model("alike 3", 2.2, 2.0, 0.13, 0.9),
)
"""The same models, but three were trained alike: they draw the same wrong outline, two pixels too wide."""


def coarsen(mask: Mask, rng: np.random.Generator) -> Mask:
    """A mask as drawn by hand: a polygon of few corners, its outline inflated.

    Args:
        mask: [H, W] bool.
        rng: Source of the tolerance and the inflation.

    Returns:
        [H, W] bool, not empty where `mask` is not.
    """
    tolerance, inflation = rng.uniform(1.5, 4.0), int(rng.integers(0, 3))
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = np.zeros(mask.shape, np.uint8)
    for contour in contours:
        corners = cv2.approxPolyDP(contour, tolerance, True)
        cv2.fillPoly(drawn, [corners if len(corners) > 2 else contour], 1)
    if inflation:
        drawn = cv2.dilate(drawn, np.ones((2 * inflation + 1,) * 2, np.uint8))
    return drawn.astype(bool)


def propose(
    masks: Sequence[Mask], models: Sequence[Model], rng: np.random.Generator
) -> list[list[Mask]]:
    """The masks that the models draw for the instances of one image.

    Args:
        masks: The true masks, [H, W] bool each, none empty.
        models: The simulated models.
        rng: Source of all randomness.

    Returns:
        For each instance, the mask of each model, none empty.
    """
    proposed = []
    for place, mask in enumerate(masks):
        difficulty = float(rng.lognormal(-0.18, 0.6))
        distance = _signed_distance(mask)
        common = _field(mask.shape, rng)
        drawn = []
        for model in models:
            private = _field(mask.shape, rng)
            mixed = np.sqrt(model.shared) * common + np.sqrt(1 - model.shared) * private
            moved = distance + model.bias + model.spread * difficulty * mixed > 0
            if rng.random() < min(0.9, model.mistakes * difficulty):
                moved = _mistaken(moved, mask, masks, place, rng)
            drawn.append(moved if moved.any() else mask.copy())
        proposed.append(drawn)
    return proposed


def _signed_distance(mask: Mask) -> Field:
    """Pixels from the outline, positive inside."""
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    return inside - outside - np.where(mask, 0.5, -0.5).astype(np.float32)


def _field(shape: tuple[int, ...], rng: np.random.Generator) -> Field:
    """A smooth random field of mean 0 and standard deviation near 1, [H, W]."""
    height, width = shape
    coarse = rng.normal(size=(height // CELL + 4, width // CELL + 4)).astype(np.float32)
    smooth = cv2.resize(coarse, None, fx=CELL, fy=CELL, interpolation=cv2.INTER_CUBIC)
    y, x = (int(rng.integers(CELL)) for _ in range(2))
    return smooth[y + CELL : y + CELL + height, x + CELL : x + CELL + width] / 0.75


def _mistaken(
    moved: Mask, mask: Mask, masks: Sequence[Mask], place: int, rng: np.random.Generator
) -> Mask:
    """The mask with a part left out, or with a neighbour taken in."""
    others = [other for k, other in enumerate(masks) if k != place]
    if others and rng.random() < 0.4:
        return moved | others[int(rng.integers(len(others)))]
    y, x = np.nonzero(mask)
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    cut = np.quantile(along, rng.uniform(0.2, 0.6))
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    return moved & (np.cos(angle) * columns + np.sin(angle) * rows > cut)
