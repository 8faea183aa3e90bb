"""Every operator on the device against the CPU: the same integers, for every type, size, layout and stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from refcocom_kernels import ops, reference
from torch import Tensor

import refcocom_gpu as rc
from benchmarks.gpu.inputs import HEIGHT, WIDTH, Inputs

BOUND = 2.0**-20
"""Largest distance from the threshold, as a share of the largest magnitude, at which fp32 may flip a pixel."""

INTERPOLATE_BOUND = 2.0**-14
"""The same for `F.interpolate`, which computes positions in fp32: up to 2⁻²⁴ of 1,024 cells, times their slope."""

Row = dict[str, Any]
TYPES = (torch.float32, torch.float16, torch.bfloat16)


def run(inputs: Inputs) -> list[Row]:
    """Run all checks; `wrong` of each must be 0."""
    rows: list[Row] = []
    for check in (operators, circumstances, flips, scores):
        rows += check(inputs)
    return rows


def compared(name: str, results: Any, expected: Any, **more: Any) -> Row:
    """Number of entries of the device's results that differ from the expected ones."""
    results = results if isinstance(results, tuple | list) else [results]
    expected = expected if isinstance(expected, tuple | list) else [expected]
    wrong = sum(
        a.numel() if a.shape != b.shape else int((a.cpu() != b.cpu()).sum())
        for a, b in zip(results, expected, strict=True)
    )
    return {"check": name, "of": sum(e.numel() for e in expected), "wrong": wrong, **more}


def calls(inputs: Inputs) -> Iterator[tuple[str, Callable[..., Any], tuple[Any, ...]]]:
    """(name, operator, arguments on the host) of every call that is compared."""
    host = inputs.host
    store = (host["words"], host["word_offsets"])
    data, offsets = inputs.strings()
    yield (
        "rle_counts", ops.rle_counts,
        (data, offsets, host["sample"], host["ends"], host["ranks"], host["run_offsets"], host["pixels"]),
    )  # fmt: skip
    broken = data.clone()
    broken[offsets[:-1:3]] = 7
    yield (
        "rle_counts, a third of the strings broken", ops.rle_counts,
        (broken, offsets, host["sample"], host["ends"], host["ranks"], host["run_offsets"], host["pixels"]),
    )  # fmt: skip
    masks, samples = inputs.masks, inputs.samples
    value = (torch.arange(len(masks)) % 255 + 1).to(torch.uint8)[:, None, None]
    for name, given in (
        ("bool", masks),
        ("uint8 of any value", masks.to(torch.uint8) * value),
        ("empty", torch.zeros_like(masks)),
        ("full", torch.ones_like(masks)),
        ("columns first in memory", masks[:64].transpose(1, 2).contiguous().transpose(1, 2)),
    ):  # fmt: skip
        yield f"mask_counts, {name}", ops.mask_counts, (given, samples[: len(given)], *store)
    given = masks[:256], samples[:256]
    yield "mask_boundary_counts", ops.mask_boundary_counts, (*given, *inputs.boundaries)
    n_words = -(-HEIGHT * WIDTH // 64)
    packed = np.packbits(masks[:64].flatten(1).numpy(), axis=1, bitorder="little")
    many = torch.from_numpy(packed.reshape(-1)).view(torch.int64)
    places = torch.arange(len(masks[:64]) + 1) * n_words
    yield (
        "pairwise_intersections",
        ops.pairwise_intersections,
        (many, places, many, places, n_words),
    )
    yield "mask_runs", ops.mask_runs, (masks[:256],)
    bounds = (int(host["heights"].max()), int(host["widths"].max()))
    for dtype in TYPES:
        for noise in (False, True):
            kind = f"{'noise' if noise else 'smooth'} {dtype}".replace("torch.", "")
            logits = inputs.logits(96, 128, dtype, noise=noise)
            sizes = (host["heights"], host["widths"], *store, *bounds)
            yield f"logit_counts, {kind}", ops.logit_counts, (logits, samples, *sizes)
            valid = torch.tensor([[70.25, 128.0]] * len(logits), dtype=torch.float64)
            yield (
                f"logit_counts, {kind}, letterboxed, above 0.5",
                ops.logit_counts,
                (logits, samples, *sizes, 0.5, valid),
            )
            drawn = (logits[:64], samples[:64], *sizes[:2], *bounds)
            yield f"logit_masks, {kind}", ops.logit_masks, drawn
            yield f"logit_runs, {kind}", ops.logit_runs, (logits[:64], HEIGHT, WIDTH)
    # A ragged batch: target sizes differ between examples.
    generator = torch.Generator().manual_seed(1)
    ragged = torch.randn(len(host["sample"]), 40, 56, generator=generator)
    yield (
        "logit_counts, targets of all sizes", ops.logit_counts,
        (ragged, host["sample"], host["heights"], host["widths"], *store, *bounds),
    )  # fmt: skip


def moved(inputs: Inputs, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same arguments on the device, with the same memory layout."""
    return tuple(a.to(inputs.device) if isinstance(a, Tensor) else a for a in arguments)


def operators(inputs: Inputs) -> Iterator[Row]:
    """The device against the CPU, and against itself."""
    for name, operator, arguments in calls(inputs):
        on_device = moved(inputs, arguments)
        first = operator(*on_device)
        yield compared(name, first, operator(*arguments))
        again = [compared("", operator(*on_device), first)["wrong"] for _ in range(3)]
        yield {"check": f"{name}, run to run", "of": 3, "wrong": sum(map(bool, again))}


def circumstances(inputs: Inputs) -> Iterator[Row]:
    """Operators under compile, autocast and inference mode, and on another stream."""
    for name, operator, arguments in calls(inputs):
        if name not in {"mask_counts, bool", "logit_counts, smooth float16", "rle_counts"}:
            continue
        on_device = moved(inputs, arguments)
        expected = operator(*on_device)
        registered = getattr(torch.ops.refcocom, name.split(",")[0])

        def step(*values: Any, registered: Any = registered) -> Any:
            return registered(*values)

        backend = "inductor" if inputs.device.type == "cuda" else "aot_eager"
        compiled = torch.compile(step, fullgraph=True, backend=backend)
        yield compared(f"{name}, compiled", compiled(*on_device), expected)
        with torch.inference_mode(), torch.autocast(inputs.device.type, torch.bfloat16):
            yield compared(f"{name}, autocast, inference mode", operator(*on_device), expected)
        if inputs.device.type == "cuda":
            stream = torch.cuda.Stream(inputs.device)
            stream.wait_stream(torch.cuda.current_stream(inputs.device))
            with torch.cuda.stream(stream):
                results = operator(*on_device)
            stream.synchronize()
            yield compared(f"{name}, another stream", results, expected)


def flips(inputs: Inputs) -> Iterator[Row]:
    """Pixels that differ from float64 and from `F.interpolate`, and their distance from the threshold."""
    for noise in (False, True):
        logits = inputs.logits(120, 160, torch.float32, noise=noise)[: 2 if inputs.small else 512]
        turned = {"float64": 0, "F.interpolate": 0}
        farthest = dict.fromkeys(turned, 0.0)
        on_device = logits.to(inputs.device)
        ends, offsets = ops.logit_runs(on_device, HEIGHT, WIDTH)
        bounds = offsets.tolist()
        for k, row in enumerate(on_device):
            exact = _float64(row)
            mine = reference.decode_runs(ends[bounds[k] : bounds[k + 1]], HEIGHT, WIDTH)
            theirs = F.interpolate(row[None, None], (HEIGHT, WIDTH), mode="bilinear")[0, 0] > 0
            distance = exact.abs() / row.abs().max()
            for name, other in (("float64", exact > 0), ("F.interpolate", theirs)):
                turned[name] += int((mine != other).sum())
                farthest[name] = max(farthest[name], float(distance.where(mine != other, 0).max()))
        kind = "noise" if noise else "smooth"
        for name, bound in (("float64", BOUND), ("F.interpolate", INTERPOLATE_BOUND)):
            yield {
                "check": f"pixels turned against {name}, {kind} 120×160 → 480×640, beyond the bound",
                "of": len(logits) * HEIGHT * WIDTH,
                "wrong": int(farthest[name] > bound),
                "note": f"{turned[name]} turned, at most {farthest[name]:.2e} of the largest logit from the "
                f"threshold; bound {bound:.2e}",
            }


def _float64(row: Tensor) -> Tensor:
    return F.interpolate(row[None, None].double(), (HEIGHT, WIDTH), mode="bilinear")[0, 0]


def scores(inputs: Inputs) -> Iterator[Row]:
    """Whole runs: the built-in sample in every form, on the device and on the CPU."""
    store = rc.MaskStore.build(rc.load_dataset("sample"))
    device_store = store.to(str(inputs.device)) if inputs.device.type == "cuda" else store
    masks = [store.mask(k) for k in range(len(store))]
    rng = np.random.default_rng(0)
    noisy = [rng.normal(size=(64, 80)).astype(np.float16) for _ in masks]
    for name, predictions in {
        "sample": lambda: "sample",
        "sample, masks from the host": lambda: enumerate(masks),
        "sample, masks there": lambda: ((k, torch.from_numpy(m).to(inputs.device)) for k, m in enumerate(masks)),
        "sample, logits from the host": lambda: enumerate(noisy),
    }.items():  # fmt: skip
        result, expected = (rc.score(predictions(), s).per_example for s in (device_store, store))
        wrong = sum(result.column(c) != expected.column(c) for c in ("intersection", "pred_area"))
        yield {"check": f"score, {name}", "of": len(store), "wrong": wrong}
