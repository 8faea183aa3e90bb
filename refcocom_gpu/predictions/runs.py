"""Predictions in, the runs of their masks and what they tell about their set out: for files that are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu, rle_status

from refcocom_gpu.errors import Problems
from refcocom_gpu.masks.causes import explain_counts
from refcocom_gpu.masks.rle import run_ends
from refcocom_gpu.predictions.batches import Batch, RLEBatch
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.resize import as_logits, logit_runs, nearest_cells, valid_part
from refcocom_gpu.predictions.values import (
    explain_fault,
    fault_name,
    first_fault,
    is_float,
    judge_floats,
    read_stack,
    wrong_size,
)

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset

NO_RUNS = np.zeros(0, np.int32)
NO_RUNS.flags.writeable = False


def array_runs(
    array: Any, height: int, width: int, options: ReadOptions, where: str, problems: Problems
) -> tuple[NDArray[np.int32], int]:
    """Return the runs of a mask, or of logits or probabilities after resizing and thresholding.

    Args:
        array: [h, w] bool, integer or float, array or tensor.
        height: H of the image.
        width: W of the image.
        options: What the values mean.
        where: Place of the array, for a person.
        problems: Collects what is wrong.

    Returns:
        [R] int32 run ends as `rle.run_ends` gives them, none after recording a problem; and the evidence of
        `predictions.values` for `judge_set`.
    """
    is_tensor = not isinstance(array, np.ndarray)
    if is_tensor:
        array = array.detach().cpu()
        array = array if is_float(array) else array.numpy()
    h, w = array.shape
    fits = np.array([(h, w) == (height, width)])
    read = read_stack(array[None], fits, options)
    faults, traits = np.array([0]) + read.faults, np.array([0]) + read.evidence
    is_mask = bool(np.all(read.are_masks))
    if is_float(array):
        kinds = cpu.value_kinds(as_logits(read.values, options.threshold), threads=1)
        own_faults, own_traits = judge_floats(kinds, fits, options)
        faults, traits = first_fault(faults, own_faults), traits + own_traits
    elif is_mask and options.resize_masks is None:
        faults = first_fault(faults, wrong_size(fits, h, w))
    if fault := int(faults[0]):
        reason = explain_fault(fault, height, width, options, array)
        problems.add(fault_name(fault), where, reason)
        return NO_RUNS, 0
    values = read.values[0]
    if not is_mask:
        return logit_runs(values, height, width, options), int(traits[0])
    mask = values > 0.5 if is_float(values) else values
    if not fits[0]:
        valid = valid_part(height, width, (h, w), options)
        region = None if valid is None else np.array([valid])
        sizes = np.array([height]), np.array([width])
        mask = nearest_cells(mask[None], *sizes, region, (height, width))[0][0]
    return run_ends(mask), int(traits[0])


def batch_runs(
    batch: Batch,
    dataset: Dataset,
    options: ReadOptions,
    problems: Problems,
    traits: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the runs of a batch of predictions.

    Args:
        batch: From `read_predictions`.
        dataset: What they are predictions for.
        options: As for `array_runs`.
        problems: Collects predictions that have no runs.
        traits: [N] int64 evidence of each example's prediction; that of the batch is put in.

    Returns:
        [R] int32 run ends, and [B + 1] int64 where those of each prediction begin.
    """
    samples = dataset.example_sample[batch.index]
    heights, widths = dataset.heights[samples], dataset.widths[samples]
    if isinstance(batch, RLEBatch):
        pixels = heights * widths
        strings = batch.strings
        runs = cpu.rle_parse(strings.data, strings.offsets, pixels, threads=options.threads)
        for row in np.flatnonzero(runs.status != rle_status.OK).tolist():
            status, detail = int(runs.status[row]), int(runs.detail[row])
            reason = explain_counts(strings.row(row), status, detail, int(pixels[row]))
            problems.add("malformed mask", batch.where(row), reason)
        return runs.ends, runs.offsets
    rows = [NO_RUNS]
    for row, array in enumerate(batch.arrays):
        size = int(heights[row]), int(widths[row])
        ends, trait = array_runs(array, *size, options, batch.where(row), problems)
        rows.append(ends)
        traits[batch.index[row]] = trait
    return np.concatenate(rows), cpu.offsets_from(np.array([len(r) for r in rows[1:]], np.int64))
