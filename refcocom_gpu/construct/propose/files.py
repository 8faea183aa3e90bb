"""A set of predictions in; for each instance, the mask that agrees best with those of its other expressions, out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.construct.instances import Candidate, Instance, Proposals, Refused, Runs
from refcocom_gpu.errors import DataError, Problems, UsageError
from refcocom_gpu.predictions.batches import Batches
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.labels import NO_TARGET
from refcocom_gpu.predictions.options import ReadOptions, refuse_boxes
from refcocom_gpu.predictions.read import find_source, read_predictions
from refcocom_gpu.predictions.runs import batch_runs
from refcocom_gpu.predictions.values import judge_set
from refcocom_gpu.utils.changes import unchanged

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset

Ints = NDArray[np.int64]

MISSING_POLICIES = ("error", "skip")


class FileProposer:
    """Proposes, for each instance, the medoid of the masks that a set of predictions holds for its expressions.

    The medoid is the mask with the highest mean IoU with the others, the first of several. Empty masks are ignored.
    All predictions are read when the proposer is made, and kept as runs: about a hundred integers a mask in any format.

    Args:
        name: Unique among the proposers of a construction.
        predictions: As for `refcocom_gpu.score`: files of any accepted format, `sample`, or `(index, masks)` pairs.
        dataset: The dataset that is predicted; it must hold the instances.
        options: How to read what the files do not state.
        missing: For examples without a prediction: `error`, or `skip` to go on without them.

    Raises:
        PredictionError: The predictions have mistakes; it names all those of one pass.
        DataError: A file changed while it was read.
        UsageError: An option or a file is unknown.

    >>> import refcocom_gpu as rc
    >>> FileProposer("good", "sample", rc.load_dataset("sample")).identity()["missing"]
    'error'
    """

    needs_picture = False

    def __init__(
        self,
        name: str,
        predictions: Any,
        dataset: Dataset,
        options: ReadOptions | None = None,
        missing: str = "error",
    ) -> None:
        if missing not in MISSING_POLICIES:
            raise UsageError(f"missing must be {' or '.join(MISSING_POLICIES)}, not {missing!r}")
        self.name = name
        self.missing = missing
        self.options = options or ReadOptions()
        refuse_boxes(self.options, "construct")
        problems = Problems()
        source = find_source(predictions)
        with unchanged(source.files):
            batches, keys = read_predictions(source, dataset, self.options, problems)
            self._masks = _read(batches, keys, self.options, problems, source.name)
            about = source.about()
        if missing == "error":
            for index in keys.missing().tolist():
                problems.add(
                    "missing",
                    source.name,
                    f"no prediction for {keys.describe(index)}; missing=skip goes on without such examples",
                )
        problems.raise_if_any()
        for text in problems.warnings:
            warnings.warn(f"refcocom: {text}", UserWarning, stacklevel=2)
        # Names without folders: the card shows them, and a run can continue where the files are in another folder.
        files = [Path(path).name for path in about.get("files", [source.name])]
        self._about = {"files": files, "xxh3_128": about.get("xxh3_128") or self._masks.digest()}

    def identity(self) -> dict[str, Any]:
        """Return the names of the files, a hash of their contents, and how they are read."""
        return {
            "kind": "predictions",
            **self._about,
            "missing": self.missing,
            **self.options.deciding(),
        }

    def propose(
        self, picture: NDArray[np.uint8] | None, instances: Sequence[Instance]
    ) -> list[Proposals]:
        """Return one proposal for each instance: the medoid, scored by its mean IoU with the others, or NaN.

        Args:
            picture: Not used.
            instances: Of the dataset that is predicted.

        Raises:
            DataError: An instance and its predictions differ in size.
        """
        return [[self._propose(instance)] for instance in instances]

    def _propose(self, instance: Instance) -> Candidate | Refused:
        first = instance.first_example
        examples = range(first, first + len(instance.sentences))
        masks = [runs for e in examples if (runs := self._masks.of(e)) is not None]
        if not masks:
            return Refused(self.name, "no prediction")
        height, width = instance.mask.shape
        if any(int(runs[-1]) != height * width for runs in masks):
            raise DataError(
                f"{self.name}: the predictions for sample {instance.sample_id} are of {masks[0][-1]} pixels, "
                f"its mask is {height}×{width}"
            )
        filled = [runs for runs in masks if _area(runs)]
        if not filled:
            return Refused(self.name, f"empty for all {len(masks)} expressions")
        chosen, score = medoid(filled, height, width)
        return Candidate(self.name, filled[chosen], (height, width), score)


def medoid(masks: Sequence[Runs], height: int, width: int) -> tuple[int, float]:
    """Find the mask with the highest mean IoU with the others.

    Args:
        masks: K arrays of [R] int32 run ends, K at least 1; no mask is empty.
        height: H of all of them.
        width: W.

    Returns:
        Its row, the first of several, and that mean; NaN where there are no others.

    >>> cut = [np.array([0, 2, 4], np.int32), np.array([0, 3, 4], np.int32), np.array([0, 4], np.int32)]
    >>> medoid(cut, 2, 2)
    (1, 0.7083333333333333)
    """
    n = len(masks)
    if n == 1:
        return 0, math.nan
    heights, widths = np.full(n, height, np.int64), np.full(n, width, np.int64)
    offsets = cpu.offsets_from(np.array([len(runs) for runs in masks], np.int64))
    words = cpu.rle_pack(np.concatenate(masks), offsets, heights, widths, threads=1)
    begins = cpu.word_offsets_for(heights * widths)
    shared = cpu.pairwise_intersections(words, begins, words, begins, threads=1)
    areas = shared.diagonal()
    iou = shared / (areas[:, None] + areas[None, :] - shared)
    # With fsum, the order of the expressions decides only ties.
    means = [math.fsum(np.delete(row, k)) / (n - 1) for k, row in enumerate(iou)]
    chosen = int(np.argmax(means))
    return chosen, means[chosen]


class _Masks(NamedTuple):
    """The masks of all examples. `ends[starts[n]:stops[n]]` are the runs of example n; none where it has no mask."""

    ends: Runs
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]

    def of(self, example: int) -> Runs | None:
        start, stop = self.starts[example], self.stops[example]
        return self.ends[start:stop] if stop > start else None

    def digest(self) -> str:
        """A hash of the masks, for predictions in memory."""
        hashed = xxhash.xxh3_128()
        for example in range(len(self.starts)):
            runs = self.of(example)
            hashed.update(b"-" if runs is None else len(runs).to_bytes(8, "little"))
            hashed.update(b"" if runs is None else runs.tobytes())
        return hashed.hexdigest()


def _read(
    batches: Batches, keys: Keys, options: ReadOptions, problems: Problems, source: str
) -> _Masks:
    """Read all batches of a source as runs."""
    n = keys.dataset.n_examples
    starts, stops = np.zeros(n, np.int64), np.zeros(n, np.int64)
    parts: list[Runs] = [np.zeros(0, np.int32)]
    used, traits = 0, np.zeros(n, np.int64)
    for batch in batches:
        ends, offsets, traits[batch.index] = batch_runs(batch, keys.dataset, options, problems)
        starts[batch.index], stops[batch.index] = used + offsets[:-1], used + offsets[1:]
        used += len(ends)
        parts.append(ends)
    # A prediction that says that there is no target is empty, whatever its mask.
    rejected = np.flatnonzero(keys.labels == NO_TARGET)
    starts[rejected] = used + np.arange(len(rejected))
    stops[rejected] = starts[rejected] + 1
    sample = keys.dataset.example_sample[rejected]
    parts.append((keys.dataset.heights[sample] * keys.dataset.widths[sample]).astype(np.int32))
    for verdict in judge_set(traits, options):
        verdict.add_to(problems, source, keys.where)
    return _Masks(np.concatenate(parts), starts, stops)


def _area(ends: Runs) -> int:
    # Every second run is set; it begins at the end of the run before it.
    return int(ends[1::2].sum(dtype=np.int64) - ends[: len(ends) // 2 * 2 : 2].sum(dtype=np.int64))
