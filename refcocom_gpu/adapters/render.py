"""An SVG path in, the pixels that it covers by more than half out, as Moondream's engine renders them: by resvg.

The engine (m87-labs/kestrel, `kestrel/seg_refiner.py`) draws the path in a view of 0…1 of the image with resvg at
twice the size, averages the coverage of the four parts of each pixel, and sets what is above 0.5. Coverage by resvg is
in steps of 1/255 and approximate, so a pixel that is covered by nearly half may differ from what `fill` gives.
"""

from __future__ import annotations

import io
import re

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import UsageError
from refcocom_gpu.utils.optional import require

RENDERERS = ("resvg",)
"""What may draw paths instead of `fill`."""

SCALE = 2
"""How much larger the engine draws, in each direction."""

FULL = 255
"""The value of a part of a pixel that is covered whole."""

_COMMA = re.compile(r",\s*(?=[A-Za-z])")
"""A comma before a command, as tracers write it: resvg would stop there, so the engine takes it out too."""


def check_renderer(renderer: str | None) -> None:
    """Refuse an unknown renderer.

    Raises:
        UsageError: It is neither None nor one of `RENDERERS`.
    """
    if renderer is not None and renderer not in RENDERERS:
        raise UsageError(f"renderer must be {' or '.join(RENDERERS)}, not {renderer!r}")


def render(
    path: str,
    height: int,
    width: int,
    *,
    view: tuple[float, float] = (1.0, 1.0),
    low: tuple[float, float] = (0.0, 0.0),
    size: tuple[float, float] = (1.0, 1.0),
) -> NDArray[np.bool_]:
    """Draw a path.

    Args:
        path: Path data that `svg.to_lines` has read: nothing else may stand in it.
        height: H of the image.
        width: W of the image.
        view: x and y at the lower right corner of the image, in the unit of `low` and `size`.
        low: Where x and y of the path are 0.
        size: How long 1 of the path is in x and in y.

    Returns:
        [H, W] bool.

    Raises:
        UsageError: resvg or Pillow is not installed.
    """
    resvg = require("resvg", "renderer=resvg needs resvg", "resvg")
    pillow = require("PIL.Image", "renderer=resvg needs Pillow", "resvg")
    place = f"translate({low[0]!r},{low[1]!r}) scale({size[0]!r},{size[1]!r})"
    path = _COMMA.sub(" ", path)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {view[0]!r} {view[1]!r}" preserveAspectRatio="none" '
        f'width="{SCALE * width}" height="{SCALE * height}"><path d="{path}" fill="white" transform="{place}"/></svg>'
    )
    tree = resvg.usvg.Tree.from_str(svg, resvg.usvg.Options.default())
    # The six numbers are the two rows of the matrix that changes nothing.
    drawn = resvg.render(tree, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    with pillow.open(io.BytesIO(bytes(drawn))) as picture:
        coverage = np.asarray(picture.convert("RGBA"))[:, :, 3].astype(np.int64)
    total = coverage.reshape(height, SCALE, width, SCALE).sum(axis=(1, 3))
    mask: NDArray[np.bool_] = 2 * total > FULL * SCALE**2
    return mask
