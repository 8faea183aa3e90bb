"""Batches in, one prediction file per rank and epoch out, which `refcocom score` scores to the same counts.

`FOLDER/epoch-00000/rank-00000-of-00004.parquet`, and so on: the files of an epoch are the shards of one set. Rows go
to a writer's journal as they come, so that a killed epoch loses the batch in flight; every `compute` writes the file
anew, without the examples that a rank before this one has too, and the last one of an epoch deletes the journal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from refcocom_kernels import reference

from refcocom_gpu.errors import UsageError
from refcocom_gpu.hooks.batches import Index, Stack
from refcocom_gpu.letterbox import valid_cells
from refcocom_gpu.predictions.batches import VALUES, ReadOptions
from refcocom_gpu.predictions.writer import PredictionWriter
from refcocom_gpu.store import MaskStore


class Saver:
    """Writes what a metric is given.

    Args:
        folder: Holds a folder per epoch.
        store: What the predictions are for.
        options: What float arrays mean.
    """

    def __init__(self, folder: str | Path, store: MaskStore, options: ReadOptions) -> None:
        self.folder = Path(folder)
        self.epoch = 0
        self._store, self._options = store, options
        self._writer: PredictionWriter | None = None
        self._complete = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Saver:
        raise UsageError(
            "a metric that saves predictions cannot be copied: two would write one file"
        )

    def __getstate__(self) -> dict[str, Any]:
        if self._writer is not None:
            raise UsageError(
                "a metric that is saving predictions cannot be pickled; reset it first"
            )
        return self.__dict__

    def write(self, stacks: list[Stack], index: Index) -> None:
        """Add a batch; an example that was written before keeps its first mask, as it keeps its first counts."""
        if self._complete:
            return
        if self._writer is None:
            self._writer = self._open()
        pending = np.zeros(len(self._store), np.bool_)
        pending[self._writer.pending()] = True
        known = index if isinstance(index, np.ndarray) else index.cpu().numpy()
        examples: list[int] = []
        masks: list[Any] = []
        for values, where in stacks:
            rows = range(len(known)) if where is None else where
            for row, mask in zip(rows, values.cpu(), strict=True):
                example = int(known[row])
                # On a device an index that is none comes to light at the end of the epoch.
                if 0 <= example < len(pending) and pending[example] and _is_finite(mask):
                    pending[example] = False
                    examples.append(example)
                    masks.append(self._at_image_size(mask, example))
        self._writer.write(examples, masks)

    def finish(self, keep: NDArray[np.bool_], *, complete: bool) -> None:
        """Write the file of this rank and epoch; more batches may follow, and another `finish`.

        Args:
            keep: [N] which examples belong into this rank's file.
            complete: Every example was seen on some rank, so that nothing new can come in this epoch.
        """
        if self._writer is not None and not self._complete:
            self._writer.save(keep)
            if complete:
                self._writer.discard()
        self._complete = complete

    def next_epoch(self) -> None:
        """Begin another epoch if anything was written in this one."""
        self._complete = False
        if self._writer is not None:
            self._writer.discard()
            self._writer = None
            self.epoch += 1

    def _open(self) -> PredictionWriter:
        rank, ranks = 0, 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        path = self.folder / f"epoch-{self.epoch:05}" / f"rank-{rank:05}-of-{ranks:05}.parquet"
        if any(path.parent.glob(f"{path.name}*")):
            # A writer would go on from the masks that another run's model gave.
            raise UsageError(
                f"{path.parent} holds the predictions of another run; give another folder"
            )
        return PredictionWriter(
            path,
            self._store.dataset,
            values=self._options.values,
            letterbox=self._options.letterbox,
        )

    def _at_image_size(self, mask: torch.Tensor, example: int) -> torch.Tensor:
        """A mask of another size than the image's as it was counted; anything else unchanged."""
        sample = int(self._store.example_sample[example])
        size = int(self._store.heights[sample]), int(self._store.widths[sample])
        if mask.is_floating_point() or tuple(mask.shape) == size:
            return mask
        side = self._options.letterbox
        valid = None if side is None else valid_cells(*size, side, (mask.shape[0], mask.shape[1]))
        certain = (mask != 0).half()
        return reference.resize_logits(certain, *size, valid) > VALUES["probabilities"]


def _is_finite(mask: torch.Tensor) -> bool:
    return not mask.is_floating_point() or bool(mask.float().isfinite().all())
