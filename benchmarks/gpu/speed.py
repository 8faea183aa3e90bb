"""Speed of each operator, beside what a user would write and as a share of the bandwidth measured in the same run.

No input is in the device's cache when it is read: it is larger than the cache, or several copies take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from refcocom_kernels import ops
from torch import Tensor

import refcocom_gpu as rc
from benchmarks.gpu import sam3
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.inputs import BATCH, HEIGHT, WIDTH, Inputs
from benchmarks.gpu.runs import logits_to_runs, masks_to_runs
from benchmarks.timing import OURS, Contender
from refcocom_gpu.counting.staging import Staging
from refcocom_gpu.scores import metrics

N_EXAMPLES = 5598
COPIES = 32
"""Copies of an input of a few megabytes that take turns; together more than 50 MB, the cache of an H100 or H200."""


def run(inputs: Inputs, clock: Clock) -> Iterator[dict[str, Any]]:
    """Run all timings, the bandwidth first."""
    bandwidth = copy_bandwidth(inputs, clock)
    yield {
        "case": "copy on the device", "unit": "GB/s", "rounds": clock.rounds, "results": [], "absent": {},
        "notes": {"GB/s, read and written": bandwidth / 1e9},
    }  # fmt: skip
    for case in (
        dense, logits, rle, boundary, pairwise, masks_to_runs, logits_to_runs, end_to_end
    ):  # fmt: skip
        yield from case(inputs, clock, bandwidth)


def copy_bandwidth(inputs: Inputs, clock: Clock) -> float:
    """Bytes that a copy on the device reads and writes per second."""
    source = torch.zeros(2**20 if inputs.small else 2**31, dtype=torch.uint8, device=inputs.device)
    target = torch.empty_like(source)
    for _ in range(3):
        target.copy_(source)
    times = [clock.once(lambda: target.copy_(source)) for _ in range(clock.rounds)]
    return 2 * len(source) / float(np.median(times))


def rows_of(inputs: Inputs) -> Tensor:
    """Rows of the 480×640 examples, repeated up to the number of examples in RefCOCO-M."""
    n = len(inputs.masks) if inputs.small else N_EXAMPLES
    return torch.arange(n) % len(inputs.masks)


def batches(n: int) -> list[slice]:
    """Slices of `BATCH` rows."""
    return [slice(k, min(k + BATCH, n)) for k in range(0, n, BATCH)]


def dense(inputs: Inputs, clock: Clock, bandwidth: float) -> Iterator[dict[str, Any]]:
    """Bool masks that are already on the device."""
    rows, store = rows_of(inputs), inputs.on_device
    masks = inputs.masks[rows].to(inputs.device)
    samples = inputs.samples[rows].to(inputs.device)
    few = slice(0, min(4 * BATCH, len(rows)))
    targets = inputs.targets[rows[few]].to(inputs.device)

    def ours() -> Tensor:
        return ops.mask_counts(masks, samples, store["words"], store["word_offsets"])  # type: ignore[no-any-return]

    def eager_batch(mask: Tensor, target: Tensor) -> Tensor:
        return torch.stack([(mask & target).sum((1, 2)), mask.sum((1, 2))], 1)

    compiled = torch.compile(
        eager_batch, backend="inductor" if inputs.device.type == "cuda" else "eager"
    )

    def over(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], Tensor]:
        parts = batches(few.stop)
        return lambda: torch.cat([function(masks[s], targets[s]) for s in parts])

    n = few.stop
    contenders = [
        Contender(OURS, ours, len(rows), "ours"),
        Contender("torch eager, (m & t).sum, truth as bool", over(eager_batch), n),
        Contender("torch.compile of the same", over(compiled), n),
    ]
    expected = over(eager_batch)()
    for contender in contenders:
        if not torch.equal(contender.run()[:n], expected):
            raise AssertionError(f"{contender.name} disagrees")
    try:
        from torchmetrics.classification import BinaryJaccardIndex

        metric = BinaryJaccardIndex().to(inputs.device)
        contenders.append(
            Contender(
                "torchmetrics BinaryJaccardIndex",
                lambda: [metric(masks[k], targets[k]) for k in range(8)],
                8,
            )
        )
    except ImportError:
        pass
    result = clock.case(f"dense bool {HEIGHT}×{WIDTH}, on the device", contenders, {})
    seconds = result["results"][0]["median"] / 1e6
    read = HEIGHT * WIDTH + HEIGHT * WIDTH / 8
    result["notes"] = {
        "share of the copy bandwidth, bytes read": read / seconds / bandwidth,
        "ms for all": 1e3 * seconds * len(rows),
        "MB above the inputs": clock.peak_bytes(ours) / 1e6,
    }
    yield result


def logits(inputs: Inputs, clock: Clock, bandwidth: float) -> Iterator[dict[str, Any]]:
    """Half-precision logits of low resolution that are already on the device."""
    rows, store = rows_of(inputs), inputs.on_device
    samples = inputs.samples[rows].to(inputs.device)
    few = slice(0, min(BATCH, len(rows)))
    targets = inputs.targets[rows[few]].to(inputs.device)
    for h, w, noise in ((120, 160, False), (120, 160, True), (256, 256, False)):
        values = inputs.logits(h, w, torch.float16, noise=noise)[rows].to(inputs.device)

        def ours(values: Tensor = values) -> Tensor:
            return ops.logit_counts(  # type: ignore[no-any-return]
                values, samples, store["heights"], store["widths"], store["words"],
                store["word_offsets"], HEIGHT, WIDTH,
            )[0]  # fmt: skip

        def idiom(values: Tensor = values) -> Tensor:
            parts = []
            for start in range(0, few.stop, 32):
                part = slice(start, min(start + 32, few.stop))
                full = F.interpolate(values[part][:, None], (HEIGHT, WIDTH), mode="bilinear")[:, 0]
                mask = full > 0
                parts.append(torch.stack([(mask & targets[part]).sum((1, 2)), mask.sum((1, 2))], 1))
            return torch.cat(parts)

        kind = "noise" if noise else "smooth"
        result = clock.case(
            f"logits {kind} {h}×{w} float16 → {HEIGHT}×{WIDTH}, on the device",
            [
                Contender(OURS, ours, len(rows), "ours"),
                Contender("F.interpolate > 0, and, sum", idiom, few.stop),
            ],
            {},
        )
        seconds = result["results"][0]["median"] / 1e6
        result["notes"] = {
            "ms for all": 1e3 * seconds * len(rows),
            "share of the copy bandwidth, bytes read": (2 * h * w + HEIGHT * WIDTH / 8)
            / seconds
            / bandwidth,
            "MB above the inputs": clock.peak_bytes(ours) / 1e6,
            "MB above the inputs, F.interpolate": clock.peak_bytes(idiom) / 1e6,
        }
        yield result


def rle(inputs: Inputs, clock: Clock, bandwidth: float) -> Iterator[dict[str, Any]]:
    """A column of strings in host memory to mIoU."""
    data, offsets = (x.numpy() for x in inputs.strings())
    sample = inputs.host["sample"].numpy()
    areas = np.bincount(
        np.repeat(np.arange(len(inputs.workload.heights)), np.diff(inputs.workload.targets.run_offsets)),
        weights=_ones(inputs),
    ).astype(np.int64)  # fmt: skip
    staging = Staging(inputs.device)
    store = [inputs.on_device[name] for name in ("ends", "ranks", "run_offsets", "pixels")]
    copies = cycle([staging.send(data, offsets, sample) for _ in range(COPIES)])

    def kernel() -> Any:
        return ops.rle_counts(*next(copies), *store)

    def whole() -> float:
        sent = staging.send(data, offsets, sample)
        counts, _ = ops.rle_counts(*sent, *store)
        intersections, predicted_areas = counts.cpu().numpy().T
        return metrics.mean(metrics.iou(intersections, predicted_areas, areas[sample]))

    host = [inputs.host[name] for name in ("ends", "ranks", "run_offsets", "pixels")]
    on_host = [torch.from_numpy(x) for x in (data, offsets, sample)]
    yield clock.case(
        "RLE column in host memory → mIoU",
        [
            Contender(f"{OURS}: copied, counted, read back, averaged", whole, 1, "ours"),
            Contender(f"{OURS}: the kernel alone", kernel, 1, "limit"),
            Contender(
                f"{OURS} on the CPU, all threads",
                lambda: ops.rle_counts(*on_host, *host),
                1,
                "limit",
            ),
        ],
        {"examples": len(sample), "MB copied": len(data) / 1e6},
        unit="ms",
    )


def _ones(inputs: Inputs) -> Any:
    """[R] length of each run of ones of the targets, 0 for runs of zeros."""
    column = inputs.workload.targets
    lengths = np.diff(column.ends, prepend=0)
    starts = column.run_offsets[:-1]
    lengths[starts] = column.ends[starts]
    first = np.repeat(starts, np.diff(column.run_offsets))
    return np.where((np.arange(len(lengths)) - first) % 2 == 1, lengths, 0)


def boundary(inputs: Inputs, clock: Clock, bandwidth: float) -> Iterator[dict[str, Any]]:
    """Boundary counts, with the boundaries of the truth computed beforehand, beside max pooling."""
    n = min(BATCH, len(inputs.masks))
    masks, samples = inputs.masks[:n].to(inputs.device), inputs.samples[:n].to(inputs.device)
    truth = [tensor.to(inputs.device) for tensor in inputs.boundaries]
    distance = int(inputs.boundaries[3][inputs.samples[0]])
    few = 1 if inputs.small else 16

    def ours() -> Tensor:
        return ops.mask_boundary_counts(masks, samples, *truth)  # type: ignore[no-any-return]

    def pooled() -> Tensor:
        gone = F.pad(1 - masks[:few, None].half(), (distance,) * 4, value=1.0)
        eroded = F.max_pool2d(gone, 2 * distance + 1, stride=1)
        return (masks[:few] & (eroded[:, 0] > 0)).sum((1, 2))

    if not torch.equal(pooled(), ours()[:few, 1]):
        raise AssertionError("max pooling disagrees")
    yield clock.case(
        f"boundary counts {HEIGHT}×{WIDTH}, on the device",
        [
            Contender(OURS, ours, n, "ours"),
            Contender("torch, max_pool2d, area alone", pooled, few),
        ],
        {},
    )


def pairwise(inputs: Inputs, clock: Clock, bandwidth: float) -> Iterator[dict[str, Any]]:
    """All pairs of masks of one image, beside torch on whole masks and SAM 3's matrix product."""
    n = min(64, len(inputs.masks))
    masks = inputs.masks[:n].to(inputs.device)
    n_words = HEIGHT * WIDTH // 64
    packed = np.packbits(inputs.masks[:n].flatten(1).numpy(), axis=1, bitorder="little")
    words = torch.from_numpy(packed.reshape(-1)).view(torch.int64).to(inputs.device)
    places = torch.arange(n + 1, device=inputs.device) * n_words
    copies = cycle([words.clone() for _ in range(COPIES)])

    def ours() -> Tensor:
        words = next(copies)
        return ops.pairwise_intersections(words, places, words, places, n_words)  # type: ignore[no-any-return]

    def materialised() -> Tensor:
        return torch.cat([(masks[k : k + 1, None] & masks[None]).sum((2, 3)) for k in range(n)])

    both = ours()
    if not torch.equal(both, materialised()):
        raise AssertionError("the materialised form disagrees")
    areas = both.diagonal()
    union = areas[:, None] + areas - both
    if not torch.equal(sam3.pairwise_iou(masks, masks), both.float() / (union.float() + 1e-6)):
        raise AssertionError("SAM 3's manner disagrees")
    yield clock.case(
        f"pairwise intersections, {n} × {n} masks {HEIGHT}×{WIDTH}",
        [
            Contender(f"{OURS}, packed", ours, n * n, "ours"),
            Contender("torch, (a[:, None] & b).sum, a row at a time", materialised, n * n),
            Contender(
                "torch in SAM 3's manner, matrix product of floats, to IoU",
                lambda: sam3.pairwise_iou(masks, masks),
                n * n,
            ),
        ],
        {},
    )


def end_to_end(inputs: Inputs, clock: Clock, bandwidth: float) -> Iterator[dict[str, Any]]:
    """`score` as a user calls it, from the host and from the device."""
    store = rc.MaskStore.build(rc.load_dataset("sample"))
    device_store = store.to(str(inputs.device)) if inputs.device.type == "cuda" else store
    masks = [store.mask(k) for k in range(len(store))]
    moved = [torch.from_numpy(mask).to(inputs.device) for mask in masks]
    n = len(masks)
    yield clock.case(
        "score(): masks of the built-in sample → mIoU",
        [
            Contender(
                f"{OURS}: from host memory",
                lambda: rc.score(enumerate(masks), device_store).miou,
                n,
                "ours",
            ),
            Contender(
                f"{OURS}: from the device",
                lambda: rc.score(enumerate(moved), device_store).miou,
                n,
                "limit",
            ),
            Contender(
                f"{OURS}: on the CPU", lambda: rc.score(enumerate(masks), store).miou, n, "limit"
            ),
        ],
        {},
    )
