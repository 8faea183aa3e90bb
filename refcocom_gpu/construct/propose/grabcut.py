"""A picture and coarse masks in, masks whose edges follow the colours out: OpenCV's GrabCut, seeded by each mask.

Rother, Kolmogorov, Blake: "GrabCut", SIGGRAPH 2004. It needs no model, and knows nothing of objects: where an object
and what is behind it look alike, the edge goes astray, which is for the agreement with other proposers to find out.
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
"""Of OpenCV's random numbers, from which the colour models begin."""

CONTEXT = 3
"""How many widths of the band around the mask are looked at: enough sure background for a colour model, and no more,
because a model of the whole picture would explain the object as well."""

FEWEST = 5
"""Sure pixels on either side: GrabCut fits five colours to each."""


class GrabCutProposer:
    """Proposes, for each instance, the mask that GrabCut finds within a band along the edge of the original mask.

    Proposals depend on the picture and the mask alone, not on the thread, the order or the number of cores.

    Args:
        iterations: Rounds of GrabCut.
        margin: Half the width of the band, as a share of the geometric mean of the sides of the mask's tight box.
        name: Unique among the proposers of a construction.

    Raises:
        UsageError: For numbers out of range, or when OpenCV is not installed.

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
        """One proposal for each instance, without a score.

        Args:
            picture: [H, W, 3] RGB.
            instances: Of this picture.

        Raises:
            UsageError: Without a picture.
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
        # Each thread has random numbers of its own, which go on from call to call.
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
        """Half the width of the band in pixels, and the part of the picture that is looked at."""
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
    """What is sure and what is to be decided, [H, W] of OpenCV's four classes."""
    cv2 = open_cv()
    # The edge of the picture is no background: an object that it cuts off is as sure there as in its middle.
    inside = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Of what is thinner than the band, the middle is still sure.
    inner = min(float(band), float(inside.max()) / 2)
    trimap: NDArray[np.uint8] = np.where(mask, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    trimap[mask & (inside > inner)] = cv2.GC_FGD
    trimap[outside > band] = cv2.GC_BGD
    return trimap
