"""The masks of two datasets in; for each mask of one, the mask of the other set that fits it, if one does, out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import SHOWN, DatasetError
from refcocom_gpu.store.others import MASK_IOU, pair_counts, pairs_of_images
from refcocom_gpu.store.store import MaskStore

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BOX_MASK_IOU, BOX_IOU = 0.25, 0.8
"""Masks that overlap by `BOX_MASK_IOU` are of one object too if their boxes overlap by `BOX_IOU`: a bicycle drawn with
and without the holes of its wheels. No pair of the same 830 instances is such."""

MARGIN = 0.1
"""Of two masks whose IoUs differ by less, neither is the better one: two annotators of one object differ by more."""


class Pairs:
    """The pairs of samples of one image, one of each set, with the IoU of their masks.

    Args:
        source: Masks of the source.
        target: Masks of the target.
        source_group: [M] number of the image of each sample of the source.
        target_group: [M] the same of the target; negative where the source lacks the image.
    """

    def __init__(
        self, source: MaskStore, target: MaskStore, source_group: Ints, target_group: Ints
    ) -> None:
        self.source, self.target = source, target
        self.of_source, self.of_target = pairs_of_images(source_group, target_group)
        self._check_sizes()
        self.iou = self._ious()

    def best(self) -> tuple[Ints, list[str]]:
        """Return [M] the counterpart of each sample of the target, −1 for none, and the rule of each."""
        best_of_target, rivals_of_target = self._rivals(self.of_target, len(self.target.areas))
        _, rivals_of_source = self._rivals(self.of_source, len(self.source.areas))
        counterpart = np.full(len(self.target.areas), -1, np.int64)
        rules = ["no mask"] * len(counterpart)
        for pair in np.flatnonzero(self.iou == best_of_target[self.of_target]).tolist():
            sample = int(self.of_target[pair])
            rule = self._rule(pair)
            if rule is None:
                continue
            if rivals_of_target[pair] or rivals_of_source[pair]:
                rules[sample] = "several"
            else:
                counterpart[sample], rules[sample] = self.of_source[pair], rule
        return counterpart, rules

    def _rule(self, pair: int) -> str | None:
        """Return why the masks of a pair are of one object; None if they need not be."""
        if self.iou[pair] >= MASK_IOU:
            return "mask"
        if self.iou[pair] >= BOX_MASK_IOU and self._box_iou(pair) >= BOX_IOU:
            return "box"
        return None

    def _rivals(self, sample: Ints, n: int) -> tuple[Floats, NDArray[np.bool_]]:
        """Return [n] the highest IoU of each sample, and whether each pair has rivals.

        A rival is another pair of the same sample that is better, or worse by less than the margin.
        """
        best, second = np.full(n, -1.0), np.full(n, -1.0)
        order = np.argsort(self.iou, kind="stable")
        # Of equal rows, NumPy keeps the last assignment: the highest. What is the highest is then left out.
        best[sample[order]] = self.iou[order]
        last = np.full(n, -1, np.int64)
        last[sample[order]] = order
        others = order[order != last[sample[order]]]
        second[sample[others]] = self.iou[others]
        is_best = last[sample] == np.arange(len(sample))
        return best, ~is_best | (self.iou - second[sample] < MARGIN)

    def _ious(self) -> Floats:
        """Return the IoU of the masks of each pair; 0 for two empty masks, which are no object."""
        source, target = self.source, self.target
        # A store checks its masks when it is built, so no string is malformed.
        counts = pair_counts(
            source.dataset.counts,
            self.of_source,
            self.of_target,
            target.ends,
            target.run_offsets,
            target.pixels,
        )
        union = source.areas[self.of_source] + target.areas[self.of_target] - counts[:, 0]
        ious: Floats = counts[:, 0] / np.maximum(union, 1)
        return ious

    def _box_iou(self, pair: int) -> float:
        """Return the IoU of the boxes around the masks of a pair; the boxes that records state are not looked at."""
        from pycocotools import mask as coco

        boxes = []
        for store, sample in (
            (self.source, self.of_source[pair]),
            (self.target, self.of_target[pair]),
        ):
            size = [int(store.heights[sample]), int(store.widths[sample])]
            counts = store.dataset.counts.row(int(sample))
            boxes.append(coco.toBbox([{"size": size, "counts": counts}]))
        return float(coco.iou(*boxes, [0])[0, 0])

    def _check_sizes(self) -> None:
        """Refuse pairs of masks of different sizes: a mask of another size is not stretched."""
        sizes = [
            np.stack([store.heights[rows], store.widths[rows]], axis=1)
            for store, rows in ((self.source, self.of_source), (self.target, self.of_target))
        ]
        differ = np.flatnonzero((sizes[0] != sizes[1]).any(axis=1))
        if not len(differ):
            return
        first, second = self.source.dataset, self.target.dataset
        lines = {}
        for pair in differ.tolist():
            image = int(second.image_ids[second.sample_image[self.of_target[pair]]])
            (h, w), (height, width) = sizes[0][pair].tolist(), sizes[1][pair].tolist()
            lines[image] = f"image {image} is {h}×{w} and {height}×{width}"
        shown = "; ".join([*lines.values()][:SHOWN])
        more = f"; and {len(lines) - SHOWN:,} more" if len(lines) > SHOWN else ""
        raise DatasetError(
            f"{len(lines):,} images have another size (height×width) in {first.source} than in {second.source}, and a "
            f"mask is not stretched; are these the same images? {shown}{more}"
        )
