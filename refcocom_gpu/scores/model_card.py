"""A result in, a section of a model card for the Hub out: its scores with intervals, below the metadata that says so.

The metadata is the `model-index` of https://github.com/huggingface/hub-docs/blob/main/modelcard.md, as the Hub's own
client writes it. `.eval_results`, which `publish` writes, is the Hub's newer form of the same scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import yaml

from refcocom_gpu._version import __version__
from refcocom_gpu.scores import uncertainty as un
from refcocom_gpu.scores.about import missing
from refcocom_gpu.scores.conventions import OFFICIAL
from refcocom_gpu.scores.leaderboard.examples import Examples
from refcocom_gpu.scores.leaderboard.formats import cell, percent
from refcocom_gpu.scores.publish import Entries
from refcocom_gpu.scores.scored_result import ScoredResult
from refcocom_gpu.scores.slices import MIN_IMAGES
from refcocom_gpu.scores.uncertainty.resampling import LEVEL

TASK = "image-segmentation"
"""The Hub's task; it has none for referring expressions."""

SHOWN = (0.5, 0.7, 0.9)
"""Thresholds of Pr@X in the section, as in a leaderboard's LaTeX."""


def model_card(scored: ScoredResult, examples: Examples, entries: Entries, table: str) -> str:
    """Return the section.

    Args:
        scored: The result of the model that the card is of.
        examples: What it was scored on.
        entries: Its scores for the Hub; empty for a section without metadata.
        table: All results as Markdown, with a caption.
    """
    result, dataset = scored.result, examples.about
    incomplete = missing(result.n_missing, OFFICIAL.name)
    lines = [
        "## Evaluation: referring expression segmentation",
        "",
        f"{cell(scored.model)} on {cell(str(dataset['source']))}, split {dataset.get('split')}, scored by refcocom_gpu "
        f"{__version__} over all {len(examples):,} (image, sentence) examples, convention {result.convention}; in "
        "percent.",
        "",
    ]
    if incomplete:
        lines += [f"**Incomplete: {incomplete}.**", ""]
    lines += [
        f"| score | value | {100 * LEVEL:g} % interval, clustered by image |",
        "|---|---:|---:|",
        *(
            f"| {name} | {value} | {interval} |"
            for name, value, interval in _scores(scored, examples)
        ),
        "",
        "### Table",
        "",
        table.rstrip("\n"),
    ]
    return _metadata(scored.model, entries, dataset) + "\n".join(lines) + "\n"


def _scores(scored: ScoredResult, examples: Examples) -> list[tuple[str, str, str]]:
    """Return name, value and interval of each score; no interval in few images."""
    result, counts = scored.result, scored.counts
    sign = ">" if result.is_strict else "≥"
    union = counts[:, 1] + examples.target_area - counts[:, 0]
    precisions = [
        (
            f"Pr@{x} ({sign})",
            result.precision_at[x],
            (result.iou > x if result.is_strict else result.iou >= x, None),
        )
        for x in SHOWN
    ]
    rows = []
    for name, score, sums in (
        ("mIoU", result.miou, (result.iou, None)),
        ("cIoU", result.ciou, (counts[:, 0], union)),
        *precisions,
    ):
        interval = ""
        if (n_images := len(np.unique(examples.image))) >= MIN_IMAGES:
            se = float(un.cluster_se(un.ratio_by_image(examples.image, *sums))[0])
            reach = un.interval_reach(n_images) * se
            interval = f"{percent(max(score - reach, 0))} to {percent(min(score + reach, 1))}"
        rows.append((name, percent(score), interval))
    return rows


def _metadata(model: str, entries: Entries, dataset: Any) -> str:
    if not entries:
        return ""
    from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index

    index = eval_results_to_model_index(
        model,
        [
            EvalResult(
                task_type=TASK,
                task_name="Referring expression segmentation",
                dataset_type=entry["dataset"]["id"],
                dataset_name=entry["dataset"]["id"].partition("/")[2],
                dataset_split=dataset.get("split"),
                dataset_revision=entry["dataset"].get("revision"),
                metric_type=entry["dataset"]["task_id"],
                metric_name=entry["notes"].partition(",")[0],
                metric_value=entry["value"],
            )
            for entry in entries
        ],
    )
    text = yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{text}---\n\n"
