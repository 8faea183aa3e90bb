"""Masks or logits and their samples in, integer counts out: what a counter does on the host and on a device.

`host.py` and `device.py` do the counting, as `backend.py` asks of both. The arithmetic here is written once for NumPy
arrays and torch tensors, which index, compare and assign alike. None of it makes the host wait for a device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from refcocom_kernels import codes

from refcocom_gpu.counting.backend import Backend, Ints, Vector
from refcocom_gpu.counting.measure import Measure
from refcocom_gpu.counting.measures import IOU, METRICS
from refcocom_gpu.counting.plain import plain_counts, plain_masks
from refcocom_gpu.counting.rows import FAULT, N_COLUMNS, N_COUNTS, TRAITS
from refcocom_gpu.predictions.options import BILINEAR, CENTER, VALUES, ReadOptions
from refcocom_gpu.predictions.padding import LOOKED_AT, SWAPPED, padding_traits
from refcocom_gpu.predictions.resize import (
    centred_regions,
    nearest_cells,
    padded_sizes,
    turned,
    valid_region,
)
from refcocom_gpu.predictions.values import (
    NO_VALUES,
    first_fault,
    is_float,
    is_plain,
    judge_floats,
    read_stack,
    wrong_size,
)
from refcocom_gpu.store.store import MaskStore

PART_BYTES = 2**26
"""Bytes of full-size masks that are drawn at a time for measures besides IoU."""


class Counter(Backend):
    """Counts predictions of any kind against a store; see `Backend` for the letters and arguments."""

    def __init__(
        self,
        store: MaskStore,
        options: ReadOptions,
        metrics: Sequence[str] = (IOU,),
        saver: Measure | None = None,
    ) -> None:
        super().__init__(store, options, metrics, saver)
        self._looked_at = 0
        self._centred: dict[tuple[int, int], tuple[Vector, Vector]] = {}

    @cached_property
    def _sizes(self) -> Ints:
        """[M] H and W of each sample in one number, so that one comparison tells whether both fit."""
        sizes: Ints = (self.store.heights << 32) + self.store.widths
        return sizes

    @cached_property
    def _padded(self) -> Vector:
        """[M, 2] height and width of each image in the padded input."""
        side = self.options.letterbox
        assert isinstance(side, int)
        return self.place(padded_sizes(self.store.heights, self.store.widths, side))

    def _centred_regions(self, cells: tuple[int, int]) -> tuple[Vector, Vector]:
        """[M, 2] the first cell of each image in predictions of `cells`, and [M, 2] how many it fills."""
        if cells not in self._centred:
            first, filled = centred_regions(self.store.heights, self.store.widths, cells)
            self._centred[cells] = self.place(first), self.place(filled)
        return self._centred[cells]

    def stack(self, values: Any, sample: Vector, known: Ints | None) -> Vector:
        """Count predictions of one shape and type.

        Args:
            values: [K, h, w] masks, logits or probabilities, or a list of K [h, w] masks in host memory.
            sample: [K] the sample of each.
            known: `sample` in host memory, if the host has it.

        Returns:
            [K, C] int64 as `rows` describes them.
        """
        h, w = values[0].shape
        rows = self.zeros(len(values))
        need_values = self.readings.need_values
        is_plain_mask = is_plain(values[0], self.options) and not need_values
        if is_plain_mask and known is not None and self._all_fit(h, w, known):
            rows[:, :N_COUNTS], rows[:, FAULT] = self.masks(values, sample)
            if self.measures:
                rows[:, N_COLUMNS:] = self._measured(
                    lambda part: self.pixels_of(values[part]), sample, (h, w)
                )
            return rows
        if isinstance(values, list):
            values = np.stack(values)
        heights, widths = self.heights[sample], self.widths[sample]
        fits = (heights == h) & (widths == w)
        read = read_stack(values, fits, self.options)
        faults, traits = read.faults, read.evidence
        if read.are_masks is True and need_values:
            rows[:, FAULT] = NO_VALUES
            return rows
        if read.are_masks is True:
            counts, misfits = self._masks_of_any_size(read.values, sample, fits, known)
            faults = first_fault(faults, misfits)
        else:
            counts, kinds = self._floats(read.values, sample, fits, known)
            traits = traits + self._doubts(read.values, heights, widths, fits)
            if is_float(values):
                own_faults, own_traits = judge_floats(kinds, fits, self.options)
                faults, traits = first_fault(faults, own_faults), traits + own_traits
            else:
                fits = fits | ~read.are_masks
                if self.options.resize_masks is None:
                    faults = faults + wrong_size(fits, h, w)
                else:
                    masks = read.values > VALUES["probabilities"]
                    resized, _ = self._masks_of_any_size(masks, sample, fits, known)
                    counts = counts * fits[:, None] + resized * ~fits[:, None]
        rows[:, :N_COUNTS], rows[:, N_COLUMNS:] = counts[:, :N_COUNTS], counts[:, N_COUNTS:]
        rows[:, FAULT], rows[:, TRAITS] = faults, traits
        self._count_unresized(read.values, sample, rows)
        return rows

    def _count_unresized(self, values: Any, sample: Vector, rows: Vector) -> None:
        """Replace the columns of measures that count predictions as they came.

        Args:
            values: [K, h, w] bool masks or floats.
            sample: [K] the sample of each.
            rows: [K, C] changed in place.
        """
        at, letterbox = N_COLUMNS, self.options.letterbox
        # The savers, which come last, count nothing.
        counted = [name for name in self.metrics if METRICS[name].counted]
        for name, one in zip(counted, self.measures, strict=False):
            columns = slice(at, at + len(METRICS[name].counted))
            if one.takes(values, letterbox):
                given = self.readable(values) if is_float(values) else values
                rows[:, columns] = one.unresized(given, sample, self.options.threshold)
            at = columns.stop

    def _measured(
        self, draw: Callable[[slice], Any], sample: Vector, size: tuple[int, int]
    ) -> Vector:
        """Return [K, C − 5] the columns of all measures.

        Args:
            draw: Returns the masks of some predictions as `Measure.masks` takes them.
            sample: [K] the sample of each.
            size: Rows and columns of the masks.
        """
        step = max(1, PART_BYTES // (size[0] * size[1]))
        columns = []
        for start in range(0, len(sample), step):
            part = slice(start, start + step)
            masks = draw(part)
            columns.append(
                self.joined([one.masks(masks, sample[part]) for one in self.measures], 1)
            )
        return columns[0] if len(columns) == 1 else self.joined(columns, 0)

    def _resized(
        self,
        values: Any,
        sample: Vector,
        threshold: float,
        valid: Vector | None,
        known: Ints | None,
    ) -> tuple[Vector, Vector]:
        """Count logits as `logits` does, and for all measures.

        Returns:
            [K, 2 + C − 5] counts, and [K] what the values look like.
        """
        counts, kinds = self.logits(values, sample, threshold=threshold, valid=valid, known=known)
        if not self.measures:
            return counts, kinds

        def draw(part: slice) -> Any:
            return self.logit_masks(
                values[part],
                sample[part],
                threshold=threshold,
                valid=None if valid is None else valid[part],
                known=None if known is None else known[part],
            )

        columns = self._measured(draw, sample, self.largest(known))
        columns = columns * (kinds != codes.NON_FINITE)[:, None]
        return self.joined([counts, columns], 1), kinds

    def _all_fit(self, h: int, w: int, sample: Ints) -> bool:
        """Return whether all images have one size."""
        return int(np.count_nonzero(self._sizes[sample] == (h << 32) + w)) == len(sample)

    def _image_parts(self, values: Any, sample: Vector, fits: Vector) -> tuple[Any, Vector | None]:
        """Find the images in letterboxed predictions.

        Returns:
            [K, h, w] values, each beginning with its image; and [K, 2] float64 rows and columns that the image fills:
            all of them where a prediction has the size of its image. None if nothing is letterboxed.
        """
        side = self.options.letterbox
        h, w = cells = values.shape[1:]
        if side is None:
            return values, None
        if side == CENTER:
            first, filled = self._centred_regions((h, w))
            values = turned(values, first[sample] * ~fits[:, None])
            valid = filled[sample]
        else:
            assert isinstance(side, int)
            valid = valid_region(self._padded[sample], cells, side)
        for axis, n in enumerate(cells):
            valid[:, axis] = fits * n + ~fits * valid[:, axis]
        return values, valid

    def _floats(
        self, values: Any, sample: Vector, fits: Vector, known: Ints | None
    ) -> tuple[Vector, Vector]:
        """Count floats; as `logits` does, with the options."""
        readings, is_plain_way = self.readings, self._is_plain_way
        if is_plain_way:
            assert known is not None  # such options are those of files, whose samples the host has
            counts, kinds = self._plainly(values, sample, known)
        else:
            parts, valid = self._image_parts(values, sample, fits)
            counts, kinds = self._resized(parts, sample, self.options.threshold, valid, known)
        if not readings.n_columns:
            return counts, kinds
        blocks = []
        if readings.thresholds and is_plain_way:
            assert known is not None
            blocks += self._again(values, known, readings.interpolation, readings.thresholds)
        elif readings.thresholds:
            curve = self.curve(
                parts, sample, thresholds=readings.thresholds, valid=valid, known=known
            )
            blocks += [curve[:, :, 0], curve[:, :, 1]]
        for interpolation in readings.others:
            assert known is not None
            blocks += self._again(values, known, interpolation, [self.options.threshold])
        columns = self.joined(blocks, 1) * (kinds != codes.NON_FINITE)[:, None]
        return self.joined([counts, columns], 1), kinds

    @property
    def _is_plain_way(self) -> bool:
        """Whether no kernel resizes as the score needs it."""
        return self.options.resize == "sam" or self.readings.interpolation != BILINEAR

    def _again(
        self, values: Any, known: Ints, interpolation: str, thresholds: Sequence[float]
    ) -> list[Vector]:
        """Return [K, T] intersections and [K, T] areas of another reading, without kernels."""
        counts, _ = self.from_tensors(
            *plain_counts(values, known, self.store, self.options, interpolation, thresholds)
        )
        return [counts[:, :, 0], counts[:, :, 1]]

    def _plainly(self, values: Any, sample: Vector, known: Ints) -> tuple[Vector, Vector]:
        """Count floats that no kernel resizes."""
        how = self.readings.interpolation
        counts, kinds = self.from_tensors(
            *plain_counts(values, known, self.store, self.options, how)
        )
        counts = counts[:, 0]
        if self.measures:

            def draw(part: slice) -> Any:
                masks = plain_masks(values[part], known[part], self.store, self.options, how)
                return self.pixels_of(*self.from_tensors(masks))

            columns = self._measured(draw, sample, self.largest(known))
            columns = columns * (kinds != codes.NON_FINITE)[:, None]
            counts = self.joined([counts, columns], 1)
        return counts, kinds

    def _masks_of_any_size(
        self, masks: Any, sample: Vector, fits: Vector, known: Ints | None
    ) -> tuple[Vector, Vector]:
        """Count bool masks, of which some may have another size than their image.

        Returns:
            [K, 2 + C − 5] counts, and [K] faults of those that must have that size.
        """
        _, h, w = masks.shape
        valid, misfits = None, 0
        if self.options.resize_masks is None:
            misfits = wrong_size(fits, h, w)
        else:
            masks, region = self._image_parts(masks, sample, fits)
            masks, valid = nearest_cells(
                masks, self.heights[sample], self.widths[sample], region, self.largest(known)
            )
        # As probabilities of 0 and 1, because the kernel for logits takes images of different sizes.
        halves = masks.astype(np.float16) if isinstance(masks, np.ndarray) else masks.half()
        counts, _ = self._resized(halves, sample, VALUES["probabilities"], valid, known)
        return counts, misfits

    def _doubts(self, values: Any, heights: Vector, widths: Vector, fits: Vector) -> Vector:
        """Return [K] bits of `predictions.padding`: what makes floats or maps look misread."""
        _, h, w = values.shape
        if h != w:
            return (~fits & (heights == w) & (widths == h)) * SWAPPED
        bits = 0 * heights
        left = LOOKED_AT - self._looked_at
        if self.options.letterbox is None and left > 0:
            self._looked_at += len(values)
            look = slice(left)
            looked_at = self.readable(values[look])
            bits[look] = padding_traits(
                looked_at, heights[look], widths[look], self.options.threshold
            )
        return bits
