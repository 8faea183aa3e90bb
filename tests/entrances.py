"""Predictions of six examples in, their counts out, through every entrance by which they can come.

An entrance is a function of `{index: prediction}`, options and an empty folder. It returns [N, 2] counts, or raises
what its user would see. A prediction is an array, a tensor, a picture, the bytes of a picture, an RLE object or None.
"""

import contextlib
import copy
import io
import json
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers import true_masks
from PIL import Image
from refcocom_kernels import reference
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file as save_tensors

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.construct.instances import Candidate, Instance
from refcocom_gpu.construct.propose.files import FileProposer
from refcocom_gpu.counting.device import DeviceCounter
from refcocom_gpu.counting.rows import SAME_RANK
from refcocom_gpu.dataset.sample import make_records
from refcocom_gpu.engines import make_engine
from refcocom_gpu.errors import DataError
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.sweep.inputs import read_inputs
from refcocom_gpu.sweep.run import Ranking, run_sweep
from refcocom_gpu.sweep.task import Options
from refcocom_gpu.training import metric as metric_module

Predictions = dict[int, Any]


def small_records(n_images: int = 3, n_samples: int = 2) -> list[dict[str, Any]]:
    """Images of the sample at half of their resolution, with a few samples of one sentence each."""
    records = make_records(n_images=n_images + 1)
    # The third is nearly square.
    del records[2]
    for record in records:
        record["samples"] = record["samples"][:n_samples]
        for sample in record["samples"]:
            sample["sentences"] = sample["sentences"][:1]
            sample["mask"] = rle.encode(rle.decode(sample["mask"])[::2, ::2])
    return records


def dataset_file(folder: Path, *sizes: int) -> Path:
    path = folder / "dataset.jsonl"
    path.write_text("\n".join(map(json.dumps, small_records(*sizes))), "utf-8")
    return path


def small_store(*sizes: int) -> rc.MaskStore:
    with tempfile.TemporaryDirectory() as folder:
        return rc.MaskStore.build(rc.load_dataset(dataset_file(Path(folder), *sizes)), cache=False)


STORE = small_store()
DATASET = STORE.dataset
TRUTH = [np.ascontiguousarray(mask) for mask in true_masks(DATASET)]
"""One sample an example, so this is the truth of each example too."""


def as_on_a_device(store: rc.MaskStore) -> rc.MaskStore:
    """The store on a device, which here is host memory under another name."""
    store = copy.copy(store)
    store.device = "cpu:0"
    return store


DEVICE_STORE = as_on_a_device(STORE)


def record_on_a_device(state: Any, index: Any, rows: Any, conflict: int = SAME_RANK) -> None:
    reference.tally(state, torch.as_tensor(index), rows, conflict)


@contextlib.contextmanager
def metrics_on_a_device() -> Iterator[None]:
    """Metrics count as on a device, whose verdicts come to light at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metric_module, "counter_on", DeviceCounter)
        patch.setattr(metric_module, "record", record_on_a_device)
        yield


def counts_of(masks: dict[int, np.ndarray]) -> np.ndarray:
    """[N, 2] intersection and area by their definitions; 0 for examples without a mask."""
    counts = np.zeros((len(TRUTH), 2), np.int64)
    for index, mask in masks.items():
        counts[index] = (mask & TRUTH[index]).sum(), mask.sum()
    return counts


def key_of(index: int) -> tuple[int, ...]:
    return tuple(map(int, DATASET.key_of(index)))


def name_of(index: int) -> str:
    return "_".join(map(str, key_of(index)))


# Files --------------------------------------------------------------------------------------------


def as_pngs(values: Predictions, folder: Path) -> Path:
    path = folder / "masks"
    path.mkdir()
    for index, value in values.items():
        file = path / f"{name_of(index)}.png"
        if isinstance(value, bytes):
            file.write_bytes(value)
        else:
            picture = Image.fromarray(value) if isinstance(value, np.ndarray) else value
            picture.save(file)
    return path


def as_npz(values: Predictions, folder: Path) -> Path:
    path = folder / "masks.npz"
    np.savez(path, **{name_of(index): value for index, value in values.items()})
    return path


def as_safetensors(values: Predictions, folder: Path) -> Path:
    path = folder / "masks.safetensors"
    save = save_arrays if isinstance(next(iter(values.values())), np.ndarray) else save_tensors
    save({name_of(index): value for index, value in values.items()}, path)
    return path


def as_pt(values: Predictions, folder: Path) -> Path:
    path = folder / "masks.pt"
    torch.save({name_of(index): torch.as_tensor(value) for index, value in values.items()}, path)
    return path


def as_file(values: Predictions, folder: Path) -> Path:
    value = next(iter(values.values()))
    if isinstance(value, bytes | Image.Image):
        return as_pngs(values, folder)
    return as_npz(values, folder) if isinstance(value, np.ndarray) else as_pt(values, folder)


def grey_png(values: np.ndarray, bits: int) -> bytes:
    """Encode a grey PNG of 1, 2, 4, 8 or 16 bits, which Pillow does not write for some of them."""
    shifts = np.arange(bits - 1, -1, -1)
    rows = np.packbits((values[:, :, None] >> shifts & 1).reshape(len(values), -1), axis=1)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))  # fmt: skip

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels, 1)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# Entrances ----------------------------------------------------------------------------------------


def in_memory(values: Predictions) -> Predictions:
    """What a caller in Python has: pictures are opened, and not yet loaded."""
    return {
        index: Image.open(io.BytesIO(value)) if isinstance(value, bytes) else value
        for index, value in values.items()
    }


def scored(predictions: Any, options: dict[str, Any], store: rc.MaskStore = STORE) -> np.ndarray:
    return columns(rc.score(predictions, store, **options).per_example)


def columns(table: Any) -> np.ndarray:
    return np.stack([table["intersection"].to_numpy(), table["pred_area"].to_numpy()], axis=1)


def in_pairs(values: Predictions) -> list[tuple[Any, Any]]:
    """One prediction alone, the others in a list."""
    first, *others = in_memory(values).items()
    return [first, ([index for index, _ in others], [value for _, value in others])]


def by_key(values: Predictions) -> dict[tuple[int, ...], Any]:
    return {key_of(index): value for index, value in in_memory(values).items()}


def through_writer(values: Predictions, options: dict[str, Any], folder: Path) -> np.ndarray:
    path = folder / "written.parquet"
    with rc.PredictionWriter(path, DATASET, **options) as writer:
        for index, value in in_pairs(values):
            writer.write(index, value)
    return scored(path, {})


def through_metric(values: Predictions, options: dict[str, Any], folder: Path) -> np.ndarray:
    metric = rc.RefCOCOMMetric(STORE, **options)
    for index, value in in_pairs(values):
        metric.update(value, index)
    metric.compute()
    return metric.counts[:-1, :2].numpy()


def through_stacks(values: Predictions, options: dict[str, Any], folder: Path) -> np.ndarray:
    """Batches of one shape, as models give them."""
    metric = rc.RefCOCOMMetric(STORE, **options)
    for index, value in values.items():
        batch = value if value.ndim == 3 else value[None, None] if index % 2 else value[None]
        metric.update(batch, torch.tensor([index]))
    metric.compute()
    return metric.counts[:-1, :2].numpy()


def on_a_device(entrance: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def call(*arguments: Any) -> np.ndarray:
        with metrics_on_a_device():
            return entrance(*arguments)

    return call


def through_command(values: Predictions, options: dict[str, Any], folder: Path) -> np.ndarray:
    path, output, errors = as_file(values, folder), folder / "out", io.StringIO()
    words = [
        f"dataset.path={dataset_file(folder)}",
        f"output_dir={output}",
        "device=cpu",
        "quiet=true",
    ]
    with contextlib.redirect_stderr(errors):
        code = main(["score", str(path), *words, *(f"{k}={v}" for k, v in options.items())])
    if code:
        assert code == 3, errors.getvalue()
        raise DataError(errors.getvalue())
    assert errors.getvalue() == ""
    return columns(pq.read_table(output / "per_example.parquet"))


def through_sweep(values: Predictions, options: dict[str, Any], folder: Path) -> np.ndarray:
    items = read_inputs(str(as_file(values, folder)))
    outcome = run_sweep(
        items,
        STORE,
        folder / "swept",
        options=Options(ReadOptions(threads=1, **options)),
        engine=make_engine("serial", 0),
        ranking=Ranking(replicates=19),
    )
    (result,) = outcome.results
    if result.error is not None:
        assert not result.error.startswith("unexpected")
        raise DataError(result.error)
    return np.array(result.counts)


def through_proposer(values: Predictions, options: dict[str, Any], folder: Path) -> np.ndarray:
    is_object = isinstance(next(iter(values.values())), dict | None)
    source = in_pairs(values) if is_object else as_file(values, folder)
    proposer = FileProposer("p", source, DATASET, ReadOptions(**options))
    masks = {}
    for index, truth in enumerate(TRUTH):
        instance = Instance(index, key_of(index)[0], index, truth, (0, 0, 1, 1), ("a",), "")
        (proposal,) = proposer.propose(None, [instance])[0]
        if isinstance(proposal, Candidate):
            masks[index] = rle.decode_ends(proposal.ends, *proposal.size)
    return counts_of(masks)


class Entrance(NamedTuple):
    """An entrance, and the forms of predictions that come through it, see `form_of`."""

    count: Callable[[Predictions, dict[str, Any], Path], np.ndarray]
    forms: set[str]


ARRAYS, TENSORS = {"grey", "array"}, {"tensor", "odd"}
IN_MEMORY = {*ARRAYS, "foreign", *TENSORS, "picture", "object"}
IN_FILES = IN_MEMORY - {"object"} | {"file"}
ENTRANCES = {
    "PNG": Entrance(lambda v, o, f: scored(as_pngs(v, f), o), {"grey", "picture", "file"}),
    "npz": Entrance(lambda v, o, f: scored(as_npz(v, f), o), {*ARRAYS, "foreign"}),
    "safetensors": Entrance(lambda v, o, f: scored(as_safetensors(v, f), o), {*ARRAYS, "tensor"}),
    "pt": Entrance(lambda v, o, f: scored(as_pt(v, f), o), {*ARRAYS, *TENSORS}),
    "pairs": Entrance(lambda v, o, f: scored(in_pairs(v), o), IN_MEMORY),
    "keys": Entrance(lambda v, o, f: scored(by_key(v), o), IN_MEMORY),
    "device": Entrance(lambda v, o, f: scored(in_pairs(v), o, DEVICE_STORE), IN_MEMORY),
    "writer": Entrance(through_writer, IN_MEMORY),
    "metric": Entrance(through_metric, IN_MEMORY),
    "stacks": Entrance(through_stacks, {*ARRAYS, "foreign", *TENSORS}),
    "metric on a device": Entrance(on_a_device(through_metric), IN_MEMORY),
    "stacks on a device": Entrance(on_a_device(through_stacks), {*ARRAYS, "foreign", *TENSORS}),
    "command": Entrance(through_command, IN_FILES),
    "sweep": Entrance(through_sweep, IN_FILES),
    "proposer": Entrance(through_proposer, {*IN_MEMORY, "file"}),
}


def form_of(value: Any) -> str:
    """Name the form of a prediction: what can hold it."""
    if isinstance(value, np.ndarray):
        if value.dtype in (np.bool_, np.uint8, np.uint16):
            return "grey"
        is_usual = value.dtype.kind in "iuf" and value.dtype.itemsize <= 8 and value.dtype.isnative
        return "array" if is_usual else "foreign"
    if isinstance(value, torch.Tensor):
        # A nested tensor has the layout of a dense one.
        is_dense = value.layout == torch.strided and not value.is_nested and not value.is_neg()
        return "tensor" if is_dense and not value.is_meta and not value.is_quantized else "odd"
    if isinstance(value, bytes):
        return "picture" if value.startswith(b"\x89PNG") else "file"
    return "picture" if isinstance(value, Image.Image) else "object"
