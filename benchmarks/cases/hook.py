"""The validation hook: the cost of `update` beside its kernel, other metrics and a model."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from refcocom_kernels import cpu

import refcocom_gpu as rc
from benchmarks.timing import OURS, Case, Contender
from benchmarks.workload import Workload

HEIGHT, WIDTH, CELLS = 480, 640, 256
ROWS = 384
"""Examples of one size; their masks are 118 MB, more than any cache."""

FEW = 48
"""Examples on which the slow idioms are timed."""


def cases(w: Workload) -> Iterator[Case]:
    """Masks and logits, in batches of 32 and 128; then the reference model."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = rc.load_dataset(w.write_dataset(Path(folder) / "dataset.jsonl"), cache=folder)
        store = rc.MaskStore.build(dataset, cache=False)
    # The workload and the dataset have the same indices: both are in the order of the samples.
    index = np.flatnonzero((w.heights[w.sample] == HEIGHT) & (w.widths[w.sample] == WIDTH))[:ROWS]
    masks = torch.from_numpy(np.stack(w.dense(index)))
    truth = torch.from_numpy(np.stack(w.dense_targets(w.sample[index])))
    logits = F.interpolate(masks[:, None].float(), (CELLS, CELLS), mode="area")[:, 0] * 16 - 8
    for size in (32, 128):
        yield _beside_kernel("bool 480×640", store, index, masks, truth, size)
        yield _beside_kernel("logits 256² float32", store, index, logits, truth, size)
    yield _beside_model()


def _beside_kernel(
    name: str,
    store: rc.MaskStore,
    index: NDArray[np.int64],
    preds: torch.Tensor,
    truth: torch.Tensor,
    size: int,
) -> Case:
    metric = rc.RefCOCOMMetric(store, partial=True)
    batches = [
        (preds[k : k + size], torch.from_numpy(index[k : k + size]))
        for k in range(0, len(index), size)
    ]
    words, word_offsets = store.words, store.word_offsets

    def hook() -> NDArray[np.int64]:
        metric.reset()
        for batch in batches:
            metric.update(*batch)
        counts: NDArray[np.int64] = metric.counts[index, :2].numpy()
        return counts

    def kernel() -> NDArray[np.int64]:
        counts = []
        for batch, batch_index in batches:
            sample = store.example_sample[batch_index.numpy()]
            values = batch.numpy()
            if batch.is_floating_point():
                result = cpu.logit_counts(
                    values, sample, store.heights, store.widths, words, word_offsets
                )
                counts.append(result.counts)
            else:
                flat = values.view(np.uint8).reshape(len(values), HEIGHT * WIDTH)
                counts.append(cpu.mask_counts(flat, sample, words, word_offsets).counts)
        return np.concatenate(counts)

    return Case(
        f"validation hook, {name}, batches of {size}, all threads",
        [
            Contender(f"{OURS}: RefCOCOMMetric.update", hook, len(index), "ours"),
            Contender("its kernel alone", kernel, len(index), "limit"),
            *_idioms(preds, truth, FEW),
        ],
        # The idioms resize with F.interpolate, which rounds differently, and return no counts per example.
        compare=False,
        notes={"counts equal the kernel's": str(np.array_equal(hook(), kernel()))},
    )


def _beside_model() -> Case:
    """The reference model on the built-in sample: its forward pass, and the cost of scoring its logits."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    from reference_model import make_model, training_set, validation_set

    vocabulary = training_set(8).vocabulary
    model = make_model(vocabulary).eval()
    batch = rc.collate([validation_set(vocabulary)[k] for k in range(32)])
    store = rc.MaskStore.build(rc.load_dataset("sample"), cache=False)
    metric = rc.RefCOCOMMetric(store, partial=True)
    with torch.inference_mode():
        logits = model(**batch)["logits"]
    truth = [torch.from_numpy(store.mask(k)) for k in range(32)]

    def forward() -> None:
        with torch.inference_mode():
            model(**batch)

    def hook() -> None:
        metric.reset()
        metric.update(logits, batch["index"])

    return Case(
        "validation hook beside the reference model, a batch of 32, all threads",
        [
            Contender(f"{OURS}: RefCOCOMMetric.update", hook, 32, "ours"),
            Contender("the model's forward pass", forward, 32, "limit"),
            *_idioms(logits[:, 0].clone(), truth, 32),
        ],
        compare=False,
        unit="µs/example",
    )


def _idioms(
    preds: torch.Tensor, truth: Sequence[torch.Tensor] | torch.Tensor, rows: int
) -> list[Contender]:
    from torchmetrics.classification import BinaryJaccardIndex

    def at_image_size(k: int) -> torch.Tensor:
        if not preds.is_floating_point():
            return preds[k]
        full = F.interpolate(
            preds[k][None, None].float(),
            tuple(truth[k].shape),
            mode="bilinear",
            align_corners=False,
        )
        return full[0, 0] > 0

    def histogram() -> None:
        """Areas by `histc` of class numbers, one example at a time, as many evaluators of this field do."""
        for k in range(rows):
            mask, target = at_image_size(k).float(), truth[k].float()
            areas = [torch.histc(x, 2, 0, 1) for x in (mask[mask == target], mask, target)]
            _ = areas[0] / (areas[1] + areas[2] - areas[0] + 1e-10)

    jaccard = BinaryJaccardIndex(validate_args=False)

    def torchmetrics() -> None:
        for k in range(rows):
            jaccard(at_image_size(k).int(), truth[k].int())

    return [
        Contender("histc of the classes", histogram, rows),
        Contender("torchmetrics BinaryJaccardIndex", torchmetrics, rows),
    ]
