"""Boundary counts of dense masks and of runs, and what they add to IoU; the boundaries of the truth are cached."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from benchmarks.timing import OURS, Case, Contender
from benchmarks.workload import Workload
from refcocom_gpu.masks.rle import Column

ROWS = 256


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
        return cpu.mask_boundary_counts(masks, *against, threads=1).counts[:, :2]

    def from_runs() -> NDArray[np.int64]:
        return cpu.run_boundary_counts(ends, run_offsets, *against, threads=1).counts[:, :2]

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
    notes = {"mean share of the image inside the crop": float(result.cropped.mean())}
    yield Case("boundary counts 480×640, 1 thread", contenders, absent, notes)
    yield _beside_iou(w, rows, masks, stored, against)


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
        for mask, true, distance in zip(masks[:64], truth[:64], distances[:64], strict=True):
            mine, theirs = boundary(mask, distance), boundary(true, distance)
            rows.append((((mine * theirs) > 0).sum(), (mine > 0).sum()))
        return np.array(rows, np.int64)

    cached = [boundary(true, distance) for true, distance in zip(truth, distances, strict=True)]

    def cropped() -> NDArray[np.int64]:
        rows = []
        for mask, theirs, distance in zip(masks, cached, distances, strict=True):
            x, y, width, height = cv2.boundingRect(mask)
            mine = boundary(np.ascontiguousarray(mask[y : y + height, x : x + width]), distance)
            both = cv2.bitwise_and(
                mine, np.ascontiguousarray(theirs[y : y + height, x : x + width])
            )
            rows.append((cv2.countNonZero(both), cv2.countNonZero(mine)))
        return np.array(rows, np.int64)

    return [
        Contender("boundary-iou-api's code", api, 64),
        Contender("the same, cropped, truth cached", cropped, len(masks)),
    ]
