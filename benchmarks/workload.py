"""A seed in, a RefCOCO-M-sized workload out: 1,190 images, 2,080 masks, 5,598 predictions.

A mask is drawn as runs, column by column: an outline with smooth waves and a pixel of jitter, and in most objects a
gap (legs, handles). A prediction is the same outline with other jitter and an offset; one in twenty is another object.
With the defaults a mask has about 660 runs, as in RefCOCO-M.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

N_IMAGES, N_SAMPLES, N_EXAMPLES = 1190, 2080, 5598
SIZES = ((480, 640), (640, 480), (427, 640), (640, 427), (426, 640), (500, 375), (612, 612))
SIZE_SHARES = (0.45, 0.12, 0.14, 0.05, 0.08, 0.06, 0.10)


@dataclass(frozen=True)
class Column:
    """Masks as strings and as run ends; B rows."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    ends: NDArray[np.int32]
    run_offsets: NDArray[np.int64]

    def strings(self) -> list[bytes]:
        """One bytes object per mask, as peers take them."""
        raw = self.data.tobytes()
        return [raw[a:b] for a, b in zip(self.offsets[:-1], self.offsets[1:], strict=True)]


class Workload:
    """Ground truth and predictions.

    Attributes:
        heights: [M] H.
        widths: [M] W.
        image: [M] image of each sample.
        sample: [N] sample of each example.
        targets: M true masks.
        predictions: N predicted masks.
    """

    def __init__(self, seed: int = 0, sentences: float = N_EXAMPLES / N_SAMPLES) -> None:
        rng = np.random.default_rng(seed)
        self.image = np.sort(
            np.concatenate([np.arange(N_IMAGES), rng.integers(0, N_IMAGES, N_SAMPLES - N_IMAGES)])
        )
        size_of_image = rng.choice(len(SIZES), N_IMAGES, p=SIZE_SHARES)
        sizes = np.array(SIZES, np.int64)[size_of_image][self.image]
        self.heights, self.widths = sizes[:, 0].copy(), sizes[:, 1].copy()
        per_sample = np.full(N_SAMPLES, int(sentences), np.int64)
        extra = round(sentences * N_SAMPLES) - per_sample.sum()
        per_sample[rng.permutation(N_SAMPLES)[:extra]] += 1
        self.sample = np.repeat(np.arange(N_SAMPLES), per_sample)
        outlines = [_outline(rng, h, w) for h, w in sizes.tolist()]
        self.targets = _column([_runs(rng, *o, offset=0) for o in outlines])
        predicted = []
        for sample in self.sample.tolist():
            wrong = rng.random() < 0.05
            outline = _outline(rng, *outlines[sample][:2]) if wrong else outlines[sample]
            predicted.append(_runs(rng, *outline, offset=int(rng.integers(-3, 4))))
        self.predictions = _column(predicted)

    @property
    def pixels(self) -> NDArray[np.int64]:
        """[M] H·W."""
        return self.heights * self.widths

    @cached_property
    def first_example(self) -> NDArray[np.int64]:
        """[M + 1] where a sample's examples begin."""
        return np.searchsorted(self.sample, np.arange(N_SAMPLES + 1))

    def dense(self, rows: NDArray[np.int64]) -> list[NDArray[np.bool_]]:
        """Predictions as [H, W] bool masks."""
        return [self._decode(self.predictions, row, self.sample[row]) for row in rows.tolist()]

    def dense_targets(self, samples: NDArray[np.int64]) -> list[NDArray[np.bool_]]:
        """True masks as [H, W] bool."""
        return [self._decode(self.targets, row, row) for row in samples.tolist()]

    def _decode(self, column: Column, row: int, sample: int) -> NDArray[np.bool_]:
        ends = column.ends[column.run_offsets[row] : column.run_offsets[row + 1]]
        lengths = np.diff(ends, prepend=np.int32(0))
        flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
        return np.ascontiguousarray(flat.reshape(self.widths[sample], self.heights[sample]).T)

    def rle(self, column: Column, row: int, sample: int) -> dict[str, Any]:
        """One mask as pycocotools takes it."""
        counts = column.data[column.offsets[row] : column.offsets[row + 1]].tobytes()
        return {"size": [int(self.heights[sample]), int(self.widths[sample])], "counts": counts}

    def write_dataset(self, path: Path) -> Path:
        """Ground truth as JSONL records."""
        by_image: dict[int, list[dict[str, Any]]] = {}
        for sample in range(N_SAMPLES):
            mask = self.rle(self.targets, sample, sample)
            mask["counts"] = mask["counts"].decode()
            n = int(np.diff(self.first_example)[sample])
            by_image.setdefault(int(self.image[sample]), []).append(
                {
                    "id": 10_000 + sample,
                    "category": f"category {sample % 80}",
                    "sentences": [f"expression {k} of {sample}" for k in range(n)],
                    "mask": mask,
                }
            )
        with path.open("w") as file:
            for image, samples in by_image.items():
                record = {"image_id": image, "file_name": f"{image}.jpg", "samples": samples}
                file.write(json.dumps(record) + "\n")
        return path

    def prediction_rows(self) -> list[dict[str, Any]]:
        """Predictions as rows of the native format."""
        rows = []
        for row, sample in enumerate(self.sample.tolist()):
            mask = self.rle(self.predictions, row, sample)
            mask["counts"] = mask["counts"].decode()
            rows.append(
                {
                    "sample_id": 10_000 + sample,
                    "sentence_idx": row - int(self.first_example[sample]),
                    "segmentation": mask,
                }
            )
        return rows


def _outline(rng: np.random.Generator, height: int, width: int) -> tuple[Any, ...]:
    """Top and bottom of an object per column, and a gap inside it."""
    span = int(np.clip(rng.lognormal(np.log(0.42 * width), 0.45), 24, width - 2))
    left = int(rng.integers(1, width - span + 1))
    tall = int(np.clip(rng.lognormal(np.log(0.4 * height), 0.4), 16, height - 8))
    centre = rng.uniform(tall / 2 + 3, height - tall / 2 - 3)
    t = np.linspace(-1, 1, span)
    bulge = np.sqrt(1 - (0.98 * t) ** 2) * tall / 2
    waves = sum(
        rng.normal(0, 0.08 * tall / k) * np.sin(k * np.pi * t + rng.uniform(0, 6))
        for k in (1, 2, 3, 5, 8)
    )
    gap = (rng.uniform(0.3, 0.6), rng.uniform(0.1, 0.5)) if rng.random() < 0.7 else None
    return height, width, left, centre - bulge + waves, centre + bulge + waves, gap


def _runs(
    rng: np.random.Generator,
    height: int,
    width: int,
    left: int,
    top: Any,
    bottom: Any,
    gap: Any,
    *,
    offset: int,
) -> NDArray[np.int32]:
    """Run ends of an outline with a pixel of jitter."""
    n = len(top)
    a = np.clip(np.rint(top + rng.normal(0, 0.6, n)) + offset, 0, height - 2).astype(np.int64)
    b = np.clip(np.rint(bottom + rng.normal(0, 0.6, n)) + offset, a + 1, height).astype(np.int64)
    base = (left + np.arange(n)) * height
    parts = [np.stack([base + a, base + b], axis=1)]
    if gap is not None:
        inside, share = gap
        columns = slice(int(n * (0.5 - inside / 2)), int(n * (0.5 + inside / 2)))
        middle = ((a + b) // 2)[columns]
        half = np.maximum(1, ((b - a)[columns] * share / 2).astype(np.int64))
        low, high = middle - half, middle + half + rng.integers(0, 2, len(half))
        good = (low > a[columns]) & (high < b[columns])
        rows = np.arange(n)[columns][good]
        parts[0][rows, 1] = base[rows] + low[good]
        parts.append(np.stack([base[rows] + high[good], base[rows] + b[rows]], axis=1))
    spans = np.concatenate(parts)
    spans = spans[np.argsort(spans[:, 0])]
    # A span that reaches the bottom joins one that begins at the top of the next column.
    joined = np.flatnonzero(spans[1:, 0] <= spans[:-1, 1])
    flat = np.delete(spans.reshape(-1), np.concatenate([2 * joined + 1, 2 * joined + 2]))
    ends = np.append(flat, height * width) if flat[-1] < height * width else flat
    return ends.astype(np.int32)


def _column(ends: list[NDArray[np.int32]]) -> Column:
    run_offsets = cpu.offsets_from(np.array([len(e) for e in ends], np.int64))
    flat = np.concatenate(ends)
    return Column(*cpu.rle_write(flat, run_offsets), flat, run_offsets)
