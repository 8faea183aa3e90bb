"""Boundary counts of dense masks and of runs, and what they add to IoU; the boundaries of the truth are cached."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from benchmarks.timing import OURS, Case, Contender, as_iou
from benchmarks.workload import Workload
from refcocom_gpu.masks.rle import Column

ROWS = 256
FEW = 64
"""Rows on which peers that take milliseconds a pair are timed."""


def cases(w: Workload) -> Iterator[Case]:
    """From dense masks and from runs."""
    rows = np.flatnonzero((w.heights[w.sample] == 480) & (w.widths[w.sample] == 640))[:ROWS]
    sample = w.sample[rows]
    masks = np.stack(w.dense(rows)).view(np.uint8)
    word_offsets = cpu.word_offsets_for(w.pixels)
    words = cpu.rle_pack(w.targets.ends, w.targets.run_offsets, w.heights, w.widths)
    stored = words, word_offsets
    truth = cpu.boundaries(*stored, w.heights, w.widths)
    reaches = cpu.boundary_distance(w.heights, w.widths, cpu.REACH_RATIO)
    contours = cpu.contours(*stored, w.heights, w.widths, reaches)
    against = (sample, w.heights, w.widths, truth, contours, word_offsets)
    result = cpu.mask_boundary_counts(masks, *against)
    picked = [
        w.predictions.ends[w.predictions.run_offsets[r] : w.predictions.run_offsets[r + 1]]
        for r in rows
    ]
    run_offsets = cpu.offsets_from(np.array([len(p) for p in picked]))
    ends = np.concatenate(picked)

    def from_masks() -> NDArray[np.int64]:
        counts = cpu.mask_boundary_counts(masks, *against, threads=1).counts
        return np.column_stack([counts[:, :2], truth.areas[sample]])

    def from_runs() -> NDArray[np.int64]:
        counts = cpu.run_boundary_counts(ends, run_offsets, *against, threads=1).counts
        return np.column_stack([counts[:, :2], truth.areas[sample]])

    contenders = [
        Contender(OURS, from_masks, len(rows), "ours"),
        Contender(f"{OURS}, from runs", from_runs, len(rows), "limit"),
    ]
    absent = {}
    try:
        import cv2

        cv2.setNumThreads(1)
        contenders += _opencv(
            cv2, masks, np.stack(w.dense_targets(sample)).view(np.uint8), truth.distances[sample]
        )
    except ImportError as error:
        absent["OpenCV"] = str(error)
    try:
        from ultrafast_pycocotools import mask as ultrafast

        contenders.append(_ultrafast(ultrafast, w, rows[:FEW]))
    except ImportError as error:
        absent["ultrafast-pycocotools"] = str(error)
    notes = {"mean share of the image inside the crop": float(result.cropped.mean())}
    yield Case("boundary counts 480×640, 1 thread", contenders, absent, notes)
    yield _beside_iou(w, rows, masks, stored, against)
    yield _smaller(w, rows, masks, stored, against)


def _beside_iou(
    w: Workload,
    rows: NDArray[np.int64],
    masks: NDArray[np.uint8],
    stored: tuple[NDArray[np.uint64], NDArray[np.int64]],
    against: tuple[Any, ...],
) -> Case:
    """What boundaries cost beside IoU. Every contender returns the counts of IoU."""
    sample = against[0]
    strings = Column(w.predictions.data, w.predictions.offsets).take(rows)
    truth = w.targets.ends, w.targets.run_offsets, w.pixels

    def dense() -> NDArray[np.int64]:
        flat = masks.reshape(len(rows), -1)
        return cpu.mask_counts(flat, sample, *stored, threads=1).counts

    def rle() -> NDArray[np.int64]:
        return cpu.rle_counts(strings.data, strings.offsets, sample, *truth, threads=1)[0]

    def dense_and_boundaries() -> NDArray[np.int64]:
        cpu.mask_boundary_counts(masks, *against, threads=1)
        return dense()

    def rle_and_boundaries() -> NDArray[np.int64]:
        runs = cpu.rle_parse(strings.data, strings.offsets, w.pixels[sample], threads=1)
        cpu.run_boundary_counts(runs.ends, runs.offsets, *against, threads=1)
        return rle()

    n = len(rows)
    contenders = [
        Contender(f"{OURS}, IoU from dense masks", dense, n, "ours"),
        Contender(f"{OURS}, IoU and boundaries from dense masks", dense_and_boundaries, n, "limit"),
        Contender(f"{OURS}, IoU from RLE", rle, n, "limit"),
        Contender(f"{OURS}, IoU and boundaries from RLE", rle_and_boundaries, n, "limit"),
    ]
    return Case("boundaries beside IoU 480×640, 1 thread", contenders)


def _smaller(
    w: Workload,
    rows: NDArray[np.int64],
    masks: NDArray[np.uint8],
    stored: tuple[NDArray[np.uint64], NDArray[np.int64]],
    against: tuple[Any, ...],
) -> Case:
    """The smaller of IoU and boundary IoU, by which boundary AP matches masks: all that vernier tells of a pair."""
    sample, truth = against[0], against[3]
    strings = Column(w.predictions.data, w.predictions.offsets).take(rows)
    runs = w.targets.ends, w.targets.run_offsets, w.pixels
    every = np.arange(len(w.pixels))
    areas = cpu.rle_counts(w.targets.data, w.targets.offsets, every, *runs)[0][:, 1]

    def smaller(counts: NDArray[np.int64], boundary: NDArray[np.int64]) -> NDArray[np.float64]:
        of_masks = as_iou(np.column_stack([counts, areas[sample]]))
        return np.minimum(of_masks, as_iou(np.column_stack([boundary[:, :2], truth.areas[sample]])))

    def dense() -> NDArray[np.float64]:
        flat = masks.reshape(len(rows), -1)
        counts = cpu.mask_counts(flat, sample, *stored, threads=1).counts
        return smaller(counts, cpu.mask_boundary_counts(masks, *against, threads=1).counts)

    def rle() -> NDArray[np.float64]:
        counts = cpu.rle_counts(strings.data, strings.offsets, sample, *runs, threads=1)[0]
        parsed = cpu.rle_parse(strings.data, strings.offsets, w.pixels[sample], threads=1)
        boundary = cpu.run_boundary_counts(parsed.ends, parsed.offsets, *against, threads=1)
        return smaller(counts, boundary.counts)

    n = len(rows)
    contenders = [
        Contender(f"{OURS}, from dense masks", dense, n, "ours"),
        Contender(f"{OURS}, from RLE", rle, n, "limit"),
    ]
    absent = {}
    try:
        from vernier import instance

        run = _vernier(instance, w, sample, areas)
        encoded = [w.rle(w.predictions, k, s) for k, s in zip(rows, sample, strict=True)]
        contenders += [
            Contender("vernier, from dense masks, truth cached", run(list(masks)), n),
            Contender("vernier, from RLE, truth cached", run(encoded), n),
        ]
    except ImportError as error:
        absent["vernier"] = str(error)
    return Case("min(IoU, boundary IoU) 480×640, 1 thread", contenders, absent)


def _vernier(
    instance: Any, w: Workload, sample: NDArray[np.int64], areas: NDArray[np.int64]
) -> Callable[[list[Any]], Callable[[], NDArray[np.float64]]]:
    """Return what makes a contender of predicted masks.

    Each true mask is an image of its own, so that no pair is computed that is not asked for. The matching of boundary
    AP, which vernier does not leave out, takes 3% of the time.
    """
    samples, first = np.unique(sample, return_index=True)
    images, annotations = [], []
    for s in samples.tolist():
        mask = w.rle(w.targets, s, s)
        mask["counts"] = mask["counts"].decode()
        images.append({"id": s, "height": mask["size"][0], "width": mask["size"][1]})
        annotations.append(
            {"id": s, "image_id": s, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, 1, 1], "area": int(areas[s]),
             "segmentation": mask}
        )  # fmt: skip
    truth = {
        "images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]
    }  # fmt: skip
    dataset = instance.CocoDataset.from_json(json.dumps(truth).encode())
    evaluator = instance.Evaluator(iou=instance.Boundary())
    # Pairs below the floor, 0.1 by default, are left out.
    config = instance.TablesConfig(per_pair_iou_floor=0.0)

    def contender(masks: list[Any]) -> Callable[[], NDArray[np.float64]]:
        detections = [
            {"image_id": s, "boxes": np.zeros((b - a, 4)), "labels": np.ones(b - a, np.int64), "rles": masks[a:b],
             "scores": np.linspace(1, 0, b - a)}
            for s, a, b in zip(samples.tolist(), first, [*first[1:], len(sample)], strict=True)
        ]  # fmt: skip

        def run() -> NDArray[np.float64]:
            pairs = evaluator.evaluate(
                dataset, detections, tables=("per_pair",), tables_config=config, num_threads=1
            ).per_pair
            iou: NDArray[np.float64] = pairs.to_series().struct.field("iou").to_numpy()
            return iou

        return run

    return contender


def _ultrafast(ultrafast: Any, w: Workload, rows: NDArray[np.int64]) -> Contender:
    sample = w.sample[rows].tolist()
    truth = {s: ultrafast.toBoundary(w.rle(w.targets, s, s)) for s in set(sample)}
    masks = [w.rle(w.predictions, k, s) for k, s in zip(rows.tolist(), sample, strict=True)]

    def run() -> NDArray[np.float64]:
        boundaries = ultrafast.toBoundary(masks)
        return np.array(
            [
                ultrafast.iou([mine], [truth[s]], [0])[0, 0]
                for mine, s in zip(boundaries, sample, strict=True)
            ]
        )

    return Contender("ultrafast-pycocotools toBoundary, from RLE, truth cached", run, len(rows))


def _opencv(
    cv2: Any, masks: NDArray[np.uint8], truth: NDArray[np.uint8], distances: NDArray[np.int64]
) -> list[Contender]:
    square = np.ones((3, 3), np.uint8)

    def boundary(mask: Any, distance: int) -> Any:
        # boundary-iou-api, mask_to_boundary: a border of zeros, then `distance` erosions.
        padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        return mask - cv2.erode(padded, square, iterations=int(distance))[1:-1, 1:-1]

    def api() -> NDArray[np.int64]:
        rows = []
        for mask, true, distance in zip(masks[:FEW], truth[:FEW], distances[:FEW], strict=True):
            mine, theirs = boundary(mask, distance), boundary(true, distance)
            rows.append((((mine * theirs) > 0).sum(), (mine > 0).sum(), (theirs > 0).sum()))
        return np.array(rows, np.int64)

    cached = [boundary(true, distance) for true, distance in zip(truth, distances, strict=True)]
    areas = [cv2.countNonZero(theirs) for theirs in cached]

    def cropped() -> NDArray[np.int64]:
        rows = []
        for mask, theirs, area, distance in zip(masks, cached, areas, distances, strict=True):
            x, y, width, height = cv2.boundingRect(mask)
            mine = boundary(np.ascontiguousarray(mask[y : y + height, x : x + width]), distance)
            both = cv2.bitwise_and(
                mine, np.ascontiguousarray(theirs[y : y + height, x : x + width])
            )
            rows.append((cv2.countNonZero(both), cv2.countNonZero(mine), area))
        return np.array(rows, np.int64)

    return [
        Contender("boundary-iou-api's code", api, FEW),
        Contender("the same, cropped, truth cached", cropped, len(masks)),
    ]
