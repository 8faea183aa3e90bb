"""Batches in, one prediction file per rank and epoch out; `refcocom score` gets the same counts from it.

`FOLDER/epoch-00000/rank-00000-of-00004.parquet` and so on: the files of an epoch are the shards of one set. Rows go to
the journal of a writer as they come, so a killed epoch loses only the batch in flight. Every `compute` writes the file
anew, without examples that an earlier rank has too. The journal is deleted when the epoch or the process ends.
"""

from __future__ import annotations

import os
import weakref
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from refcocom_gpu.counting.stacks import Index, Stack
from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.labels import NO_TARGET, UNLABELLED
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.writer import PredictionWriter
from refcocom_gpu.store.store import MaskStore


class _EpochFile:
    """The writer of one epoch, and whether its journal holds predictions that are not in the file yet."""

    def __init__(self) -> None:
        self.writer: PredictionWriter | None = None
        self.unsaved = False
        self.kept: bytes | None = None
        self._process = os.getpid()

    def tidy(self) -> None:
        """Delete the journal once its file is written; not in a forked copy of the process, such as a data loader's."""
        if self.writer is not None and not self.unsaved and self._process == os.getpid():
            self.writer.discard()
            self.writer = None


class Saver:
    """Writes the predictions that a metric gets.

    Args:
        folder: Holds a folder per epoch.
        store: What the predictions are for.
        options: What float arrays mean.
    """

    def __init__(self, folder: str | Path, store: MaskStore, options: ReadOptions) -> None:
        self.folder = Path(folder)
        self.epoch = 0
        self._store, self._options = store, options
        self._file = _EpochFile()
        weakref.finalize(self, self._file.tidy)

    def __deepcopy__(self, memo: dict[int, Any]) -> Saver:
        raise UsageError(
            "a metric that saves predictions cannot be copied: two would write one file"
        )

    def __getstate__(self) -> dict[str, Any]:
        if self._file.writer is not None:
            raise UsageError(
                "a metric that is saving predictions cannot be pickled; reset it first"
            )
        return self.__dict__

    def write(self, stacks: list[Stack], index: Index, codes: Tensor | None) -> None:
        """Add a batch; an example that was written before keeps its first mask, as it keeps its first counts.

        Args:
            stacks: The predictions.
            index: [B] their examples.
            codes: [B] what they say in `no_target`, as codes of `predictions.labels`; None for nothing.
        """
        file = self._file
        if file.writer is None:
            file.writer = self._open()
        pending = np.zeros(len(self._store), np.bool_)
        pending[file.writer.pending()] = True
        known = index if isinstance(index, np.ndarray) else index.cpu().numpy()
        examples: list[int] = []
        masks: list[Any] = []
        labels: list[bool | None] = []
        said = [UNLABELLED] * len(known) if codes is None else codes.tolist()
        for values, where in stacks:
            rows = range(len(known)) if where is None else where
            listed = [None] * len(rows) if values is None else values.cpu()
            for row, mask in zip(rows, listed, strict=True):
                example = int(known[row])
                # The end of the epoch reports an index that names no example.
                if 0 <= example < len(pending) and pending[example]:
                    pending[example] = False
                    examples.append(example)
                    masks.append(mask)
                    labels.append(None if said[row] == UNLABELLED else said[row] == NO_TARGET)
        file.writer.write(examples, masks, no_target=labels)
        file.unsaved |= bool(examples)

    def finish(self, keep: NDArray[np.bool_] | None = None) -> None:
        """Write the file of this rank and epoch; more batches and another `finish` may follow.

        Args:
            keep: [N] which examples belong into the file of this rank; by default all.
        """
        file = self._file
        kept = None if keep is None else keep.tobytes()
        # Each score that is computed by itself ends here.
        if file.writer is not None and (file.unsaved or file.kept != kept):
            file.writer.save(keep)
            file.unsaved, file.kept = False, kept

    def next_epoch(self, *, anything_seen: bool) -> None:
        """Begin another epoch; write predictions that `finish` has not written yet.

        Args:
            anything_seen: Whether any rank saw an example, so that ranks without a batch count epochs as the others do.
        """
        file = self._file
        if file.writer is not None:
            if file.unsaved:
                self.finish()
            file.tidy()
            anything_seen = True
        self.epoch += anything_seen

    def _open(self) -> PredictionWriter:
        rank, ranks = 0, 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        path = self.folder / f"epoch-{self.epoch:05}" / f"rank-{rank:05}-of-{ranks:05}.parquet"
        if any(path.parent.glob(f"{path.name}*")):
            # A writer would go on from the masks of the model of another run.
            raise UsageError(
                f"{path.parent} holds the predictions of another run; give another folder"
            )
        return PredictionWriter(path, self._store.dataset, **asdict(self._options))
