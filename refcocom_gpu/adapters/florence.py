"""Florence-2: `{"polygons": [[[x, y, x, y, …], …], …], "labels": […]}` in, a mask for each object out.

This is what `post_process_generation` of its processor gives for `<REFERRING_EXPRESSION_SEGMENTATION>` and
`<REGION_TO_SEGMENTATION>` (transformers, models/florence2/processing_florence2.py; microsoft/Florence-2-large has the
same): the outer list holds objects, an object holds its polygons, and a polygon is flat, in pixels of the image whose
size the processor was given. That must be the size of the image of the dataset. The dict may still stand under the name
of its task.
"""

from __future__ import annotations

from typing import Any

from refcocom_gpu.adapters.combine import Candidate
from refcocom_gpu.adapters.points import draw, to_polygons
from refcocom_gpu.errors import AnswerError

TASKS = ("<REFERRING_EXPRESSION_SEGMENTATION>", "<REGION_TO_SEGMENTATION>")


def masks_of(output: Any, height: int, width: int) -> list[Candidate]:
    """Return the masks of an answer.

    Args:
        output: See above; parsed JSON.
        height: H of the image.
        width: W of the image.

    Returns:
        A mask for each object.

    Raises:
        AnswerError: The output is something else; it has no polygons, which is also what the processor makes of text
            that it cannot parse; or a polygon lies outside the image.

    >>> masks_of({"polygons": [[[0, 0, 2, 0, 2, 2, 0, 2]]], "labels": [""]}, 2, 4)[0].mask.astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 0, 0]])
    """
    if isinstance(output, dict):
        for task in TASKS:
            output = output.get(task, output)
    polygons = output.get("polygons") if isinstance(output, dict) else None
    if not isinstance(polygons, list) or not all(isinstance(parts, list) for parts in polygons):
        raise AnswerError(f"the answer is {output!r:.60}, not an object with polygons")
    if not polygons:
        raise AnswerError("the answer has no polygons; its text could not be parsed, or names none")
    for parts in polygons:
        if any(not isinstance(polygon, list) for polygon in parts):
            raise AnswerError("polygons are nested once; Florence-2 nests them twice")
    return [draw(to_polygons(parts), height, width, None) for parts in polygons]
