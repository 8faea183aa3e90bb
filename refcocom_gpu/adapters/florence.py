"""Florence-2: `{"polygons": [[[x, y, x, y, …], …], …], "labels": […]}` in, a mask for each object out.

This is what `post_process_generation` of its processor gives for `<REFERRING_EXPRESSION_SEGMENTATION>` and
`<REGION_TO_SEGMENTATION>` (transformers, models/florence2/processing_florence2.py; microsoft/Florence-2-large has the
same): the outer list holds objects, an object holds its polygons, and a polygon is flat, in pixels of the image whose
size the processor was given. That must be the size of the image of the dataset. The dict may still stand under the name
of its task. With `boxes=keep`, the `bboxes` of `<CAPTION_TO_PHRASE_GROUNDING>` are the predictions, x0, y0, x1, y1 in
the same pixels.
"""

from __future__ import annotations

from typing import Any

from refcocom_gpu.adapters.boxes import BoxCandidate, box_of
from refcocom_gpu.adapters.combine import Candidate
from refcocom_gpu.adapters.points import draw, to_polygons
from refcocom_gpu.errors import AnswerError

BOX_TASKS = ("<CAPTION_TO_PHRASE_GROUNDING>", "<OPEN_VOCABULARY_DETECTION>")
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
    output = _unwrapped(output, TASKS)
    polygons = output.get("polygons") if isinstance(output, dict) else None
    if not isinstance(polygons, list) or not all(isinstance(parts, list) for parts in polygons):
        raise AnswerError(f"the answer is {output!r:.60}, not an object with polygons")
    if not polygons:
        raise AnswerError("the answer has no polygons; its text could not be parsed, or names none")
    for parts in polygons:
        if any(not isinstance(polygon, list) for polygon in parts):
            raise AnswerError("polygons are nested once; Florence-2 nests them twice")
    return [draw(to_polygons(parts), height, width, None) for parts in polygons]


def boxes_of(output: Any, height: int, width: int) -> list[BoxCandidate]:
    """Return the boxes of an answer.

    Raises:
        AnswerError: The output is something else, it has no boxes, or one of them does not fit the image.

    >>> boxes_of({"bboxes": [[1, 0, 2.5, 2]], "labels": ["the cup"]}, 2, 4)[0].box
    (1.0, 0.0, 2.5, 2.0)
    """
    output = _unwrapped(output, BOX_TASKS)
    boxes = output.get("bboxes") if isinstance(output, dict) else None
    if not isinstance(boxes, list) or not all(isinstance(box, list) for box in boxes):
        raise AnswerError(f"the answer is {output!r:.60}, not an object with bboxes")
    if not boxes:
        raise AnswerError("the answer has no boxes; its text could not be parsed, or names none")
    return [box_of(box, height, width, (float(width), float(height)), None) for box in boxes]


def _unwrapped(output: Any, tasks: tuple[str, ...]) -> Any:
    """Return the answer without the name of its task around it."""
    for task in tasks if isinstance(output, dict) else ():
        output = output.get(task, output)
    return output
