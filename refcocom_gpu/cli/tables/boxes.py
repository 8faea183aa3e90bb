"""A result of predictions that are boxes in, its scores as a table for a terminal out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from refcocom_gpu.cli.tables.lines import incomplete
from refcocom_gpu.scores.about import left_out
from refcocom_gpu.scores.boxes import STATED, THRESHOLD, TIGHT

if TYPE_CHECKING:
    from refcocom_gpu.scores.result import Result

BOX_TRUTHS = {
    STATED: "boxes are compared with those of the records (box_truth=bbox)",
    TIGHT: "boxes are compared with the tight boxes of the true masks (box_truth=mask)",
}


def box_table(result: Result) -> str:
    """Return both scores in percent, below the predictions and the dataset that they belong to."""
    scores, info = result.box_scores, result.info
    empty = f", {result.n_empty:,} without a box" if result.n_empty else ""
    untargeted = f", {result.n_no_target:,} without a target" if result.n_no_target else ""
    accuracy = f"box accuracy@{THRESHOLD} ({'>' if result.is_strict else '≥'})"
    lines = [
        f"{info['predictions']['source']}",
        f"{info['dataset']['source']}: {result.n_examples:,} examples{untargeted}{empty}; predictions are boxes",
        *left_out(info["predictions"]),
        BOX_TRUTHS[scores["box_truth"]],
        "",
    ]
    caveat = incomplete(result)
    rows = (("box IoU", scores["box_iou"]), (accuracy, scores["box_accuracy"]))
    lines += [f"  {name:<{len(accuracy)}}  {100 * value:6.2f} %{caveat}" for name, value in rows]
    return "\n".join(lines)
