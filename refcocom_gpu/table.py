"""A result in, the one table of the command line out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refcocom_gpu.results import Result


def score_table(result: Result) -> str:
    """Scores in percent, each with what it is a score of."""
    dataset = result.info["dataset"]
    caveat = f"   ({result.n_missing:,} missing, scored as empty)" if result.n_missing else ""
    sign = ">" if result.precision_strict else "≥"
    rows = [("mIoU", result.miou), ("cIoU", result.ciou)]
    rows += [(f"Pr@{x} ({sign})", share) for x, share in result.precision_at.items()]
    rows += [("mIoU per instance", result.miou_per_instance)]
    empty = f", {result.n_empty:,} predicted empty" if result.n_empty else ""
    lines = [
        f"{result.info['predictions']['source']}",
        f"{dataset['source']}: {result.n_examples:,} examples{empty}; "
        f"convention {result.convention}; counted on {result.info['device']}",
        "",
    ]
    lines += [f"  {name:<20}{100 * value:6.2f} %{caveat}" for name, value in rows]
    return "\n".join(lines)
