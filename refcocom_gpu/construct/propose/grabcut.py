"""A picture and coarse masks in; masks whose edges follow the colours out. OpenCV's GrabCut starts from each mask.

Rother, Kolmogorov, Blake: "GrabCut", SIGGRAPH 2004. It needs no model and knows nothing about
objects: where an object and its background look alike, the edge is wrong, and other proposers disagree with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.construct.instances import Candidate, Instance, Mask, Proposals, Refused
from refcocom_gpu.construct.propose.opencv import open_cv
from refcocom_gpu.errors import UsageError

SEED = 0
"""Seed of OpenCV's random numbers, which initialize the colour models."""

CONTEXT = 3
"""Half-widths of the band that the window reaches beyond the mask. That is enough sure background for a colour model; a
model of the whole picture would also explain the object."""

FEWEST = 5
"""Fewest sure pixels of foreground and of background: GrabCut fits five colours to each."""


class GrabCutProposer:
    """Proposes, for each instance, the mask that GrabCut finds within a band along the edge of the original mask.

    A proposal depends only on the picture and the mask, not on the thread, the order or the number of cores.

    Args:
        iterations: Number of rounds of GrabCut.
        margin: Half the width of the band, as a share of the geometric mean of the sides of the mask's tight box.
        name: Unique among the proposers of a construction.

    Raises:
        UsageError: A number is out of range, or OpenCV is not installed.

    >>> GrabCutProposer().identity()["margin"]
    0.1
    """

    needs_picture = True

    def __init__(self, iterations: int = 5, margin: float = 0.1, name: str = "grabcut") -> None:
        if iterations < 1:
            raise UsageError(f"iterations must be at least 1, not {iterations}")
        if not 0 < margin <= 1:
            raise UsageError(f"margin must be above 0 and at most 1, not {margin}")
        open_cv()
        self.name = name
        self.iterations = iterations
        self.margin = margin

    def identity(self) -> dict[str, Any]:
        """Its options, and the version of OpenCV."""
        return {
            "kind": "grabcut",
            "iterations": self.iterations,
            "margin": self.margin,
            "opencv": str(open_cv().__version__),
        }

    def propose(
        self, picture: NDArray[np.uint8] | None, instances: Sequence[Instance]
    ) -> list[Proposals]:
        """Return one proposal for each instance, without a score.

        Args:
            picture: [H, W, 3] RGB.
            instances: Of this picture.

        Raises:
            UsageError: `picture` is None.
        """
        if picture is None:
            raise UsageError(f"{self.name} needs the pictures")
        return [[self._propose(picture, instance.mask)] for instance in instances]

    def _propose(self, picture: NDArray[np.uint8], mask: Mask) -> Candidate | Refused:
        cv2 = open_cv()
        if np.count_nonzero(mask) < FEWEST:
            return Refused(self.name, f"the original mask has fewer than {FEWEST} pixels")
        band, window = self._window(mask)
        trimap = _trimap(mask[window], band)
        for sure, what in ((cv2.GC_FGD, "foreground"), (cv2.GC_BGD, "background")):
            if np.count_nonzero(trimap == sure) < FEWEST:
                return Refused(self.name, f"no sure {what} at a band of {band} pixels")
        models = np.zeros((2, 1, 65))
        # Each thread has its own random numbers, which continue from call to call.
        cv2.setRNGSeed(SEED)
        try:
            cv2.grabCut(
                np.ascontiguousarray(picture[window]),
                trimap,
                None,
                models[0],
                models[1],
                self.iterations,
                cv2.GC_INIT_WITH_MASK,
            )
        except cv2.error as error:
            return Refused(self.name, f"OpenCV: {error.err}")
        cut = np.zeros_like(mask)
        cut[window] = (trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)
        return Candidate.from_mask(self.name, cut)

    def _window(self, mask: Mask) -> tuple[int, tuple[slice, slice]]:
        """Half the width of the band in pixels, and the window of the picture that GrabCut sees."""
        # First and last row and column of the tight box.
        spans = [np.flatnonzero(mask.any(axis=axis))[[0, -1]] for axis in (1, 0)]
        sides = [int(last - first) + 1 for first, last in spans]
        band = max(1, round(self.margin * math.sqrt(sides[0] * sides[1])))
        reach = CONTEXT * band
        rows, columns = (
            slice(max(0, int(first) - reach), int(last) + 1 + reach) for first, last in spans
        )
        return band, (rows, columns)


def _trimap(mask: Mask, band: int) -> NDArray[np.uint8]:
    """[H, W] of OpenCV's four classes: sure and probable foreground, sure and probable background."""
    cv2 = open_cv()
    # The edge of the picture is not background: an object cut off by it is as sure there as in its middle.
    inside = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Where the object is thinner than the band, its middle is still sure.
    inner = min(float(band), float(inside.max()) / 2)
    trimap: NDArray[np.uint8] = np.where(mask, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    trimap[mask & (inside > inner)] = cv2.GC_FGD
    trimap[outside > band] = cv2.GC_BGD
    return trimap
