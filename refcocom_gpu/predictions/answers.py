"""Predictions that were made of a model's raw answers, and the answers that could not be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refcocom_gpu.errors import Problem, UsageError
from refcocom_gpu.utils.files import hash_files

KEEP = "keep"
"""The option `boxes` of sources whose answers are predictions of boxes."""

Key = tuple[int, ...]
"""What names an example, such as `(sample_id, sentence_idx)`."""


@dataclass
class Answers:
    """Pairs of a key and a prediction, which `score` takes as they are and `PredictionWriter.write` one by one.

    Attributes:
        files: The files of raw answers.
        xxh3_128: The hash of what was read from them, 32 hex digits.
        adapter: Source, `combine` and the options with which they were read.
        pairs: Key and COCO RLE, or box, of each answer that was read; None for an answer that names no object.
        unread: What is wrong with each answer that holds no mask that can be read. Its example has no prediction: it
            is an error, or counts as missing with `missing=zero`.
        n_combined: Answers of which several masks were combined.
        n_none: Answers that name no object, which are empty masks.
    """

    files: list[Path]
    xxh3_128: str
    adapter: dict[str, Any]
    pairs: list[tuple[Key, Any]] = field(default_factory=list)
    unread: dict[Key, Problem] = field(default_factory=dict)
    n_combined: int = 0
    n_none: int = 0

    @classmethod
    def of(cls, files: list[Path], adapter: dict[str, Any]) -> Answers:
        """Return the answers of some files, of which none was read yet.

        Raises:
            UsageError: A file cannot be read.
        """
        try:
            return cls(files, hash_files(files), adapter)
        except OSError as error:
            raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from None

    @property
    def are_boxes(self) -> bool:
        """Whether the predictions are boxes x0, y0, x1, y1 in pixels, as `boxes=keep` asks for, instead of masks."""
        return self.adapter.get("boxes") == KEEP

    @property
    def name(self) -> str:
        """What messages and summaries call them."""
        return ", ".join(map(str, self.files))

    def about(self) -> dict[str, Any]:
        """Return what a summary says about the files and how they were read."""
        return {
            "files": [str(path) for path in self.files],
            "xxh3_128": self.xxh3_128,
            "adapter": self.adapter,
            "n_combined": self.n_combined,
            "n_none": self.n_none,
            "n_unread": len(self.unread),
        }

    def __iter__(self) -> Iterator[tuple[Key, Any]]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v}" for k, v in self.adapter.items() if v is not None)
        return (
            f"Answers({options}: {len(self.pairs)} read, {self.n_combined} of them combined, {self.n_none} without "
            f"an object; {len(self.unread)} unread)"
        )
