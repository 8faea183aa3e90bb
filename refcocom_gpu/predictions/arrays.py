"""PNG folders, safetensors and tensor-only `.pt` in, `ArrayBatch` out: each member is read when it is needed.

A member is named by its key, `{sample_id}_{sentence_idx}`, or as `name=` says; `values.py` says what its values mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refcocom_gpu.errors import DataError, Problems, UsageError
from refcocom_gpu.predictions.batches import ArrayBatch, Batches, Where
from refcocom_gpu.predictions.combine import as_one
from refcocom_gpu.predictions.keys import Keys, refuse_extra
from refcocom_gpu.predictions.limits import limits_of
from refcocom_gpu.predictions.normalise import as_dense, is_rle
from refcocom_gpu.predictions.options import BOX_FORMS, ReadOptions
from refcocom_gpu.predictions.pictures import read_png
from refcocom_gpu.utils.optional import require
from refcocom_gpu.utils.text import first_line

BATCH_BYTES = 2**26
"""Bytes of arrays that a batch holds at most, whatever `batch_size` allows."""

PICKLE_HINT = (
    "pickles can run code and are refused; save a dict of tensors with torch.save, an .npz of plain arrays, "
    "or use refcocom_gpu.PredictionWriter; refcocom convert reads pickles of results that hold plain containers"
)

Load = Callable[[int], Any]

REFUSED = object()
"""What stands for a prediction that was recorded as a problem."""


def read_png_folder(path: Path, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """Read a folder of PNG masks, label maps or maps of probabilities, as `pictures` reads them."""
    require("PIL.Image", "PNG masks need Pillow", "images")
    # Hidden files such as .DS_Store come from the system, not from the user.
    entries = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    files = [p for p in entries if p.suffix.lower() == ".png" and p.is_file()]
    for entry in entries:
        if entry not in files:
            problems.add("unknown file", str(entry), "a folder of masks holds .png files only")

    limits = limits_of(keys.dataset)

    def load(k: int) -> Any:
        with files[k].open("rb") as file:
            return read_png(file, options, limits)

    names = [p.stem for p in files]
    yield from read_members(
        names,
        load,
        lambda k: str(files[k]),
        keys,
        options,
        problems,
    )


def read_safetensors(path: Path, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """Read a safetensors file."""
    from safetensors import SafetensorError, safe_open

    limits = limits_of(keys.dataset)
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            limits.check_number(len(names))
            dtypes = {file.get_slice(name).get_dtype() for name in names}
        # NumPy has no bfloat16 and no eight-bit floats; torch is imported only for a file that holds them.
        needs_torch = any(dtype.startswith(("BF", "F8")) for dtype in dtypes)
        framework = "pt" if needs_torch else "numpy"
        with safe_open(path, framework=framework) as file:

            def load(k: int) -> Any:
                limits.check_shape(file.get_slice(names[k]).get_shape())
                return file.get_tensor(names[k])

            yield from read_members(
                names,
                load,
                _member_of(path, names),
                keys,
                options,
                problems,
            )
    except (SafetensorError, OSError) as error:
        problems.add("malformed", str(path), f"not a safetensors file: {error}")


def read_torch(path: Path, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """Read a dict of tensors that `torch.save` wrote; it is mapped and read with `weights_only=True`."""
    import pickle

    import torch

    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        problems.add("malformed", str(path), _why_not_tensors(path, error))
        return
    if not isinstance(saved, dict) or not all(isinstance(v, torch.Tensor) for v in saved.values()):
        problems.add("malformed", str(path), "a .pt file of predictions is a dict of tensors")
        return
    limits = limits_of(keys.dataset)
    limits.check_number(len(saved))
    names, tensors = [str(k) for k in saved], list(saved.values())

    def load(k: int) -> Any:
        tensor = as_dense(tensors[k])
        # A tensor that repeats one value needs no memory, whatever its shape.
        limits.check_shape(tensor.shape)
        return tensor

    yield from read_members(names, load, _member_of(path, names), keys, options, problems)


def _why_not_tensors(path: Path, error: Exception) -> str:
    """Return why torch refuses a file, without its advice to let the file run code."""
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    if not is_zip and "mmap" in text:
        return f"a pickle or the form in which torch.save wrote before version 1.6; {PICKLE_HINT}"
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        name = found[1]
        what = "NumPy arrays" if name.startswith("numpy.") else "other objects than tensors"
        return f"it holds {what} ({name}); {PICKLE_HINT}"
    return f"{first_line(ValueError(text))}; {PICKLE_HINT}"


def _member_of(path: Path, names: Sequence[str]) -> Where:
    return lambda k: f"{path}, member {names[k]}"


def _reason(error: Exception) -> str:
    """Return an error's text, without NumPy's advice to pass `allow_pickle=True`, which lets a file run code."""
    return PICKLE_HINT if "allow_pickle" in str(error) else str(error)


def read_members(
    names: Sequence[str],
    load: Load,
    where: Where,
    keys: Keys,
    options: ReadOptions,
    problems: Problems,
) -> Batches:
    """Resolve all names at once, then load and yield their arrays in batches of bounded size."""
    refuse_extra(options)
    template = keys.template
    if template is None:
        hint = "; name={sent_id} says what they hold" if options.keys == "refer" else ""
        raise UsageError(
            f"keys={options.keys} is for tables; arrays and pictures are named by their key{hint}"
        )
    example = template.filled(keys.dataset, 0)
    named, rows = [], []
    for k, name in enumerate(names):
        if (row := template.read(name)) is not None:
            named.append(k)
            rows.append(row)
        else:
            reason = f"a name is {template}, such as {example}; name=… says how else it may be made"
            problems.add("bad key", where(k), reason)

    def where_named(row: int) -> str:
        return where(named[row])

    if keys.form is not None:
        index = keys.resolve_rows(rows, where_named)
    else:
        columns = [np.array([row[name] for row in rows], np.int64) for name in keys.fields]
        index = keys.resolve(columns, where_named)
    if len(template.fields) > len(keys.fields):
        index = keys.check_facts(index, rows, where_named)
    members = [(i, k) for i, k in zip(index.tolist(), named, strict=True) if i >= 0]
    yield from batched(_loaded(members, load, where, options, problems), options.batch_size)


def _loaded(
    members: Iterable[tuple[int, int]],
    load: Load,
    where: Where,
    options: ReadOptions,
    problems: Problems,
) -> Iterable[tuple[int, Any, str]]:
    for index, k in members:
        try:
            array = load(k)
        # The decoders of four libraries raise almost anything on damaged bytes.
        except Exception as error:
            problems.add("malformed mask", where(k), _reason(error) or type(error).__name__)
            continue
        checked = check_prediction(array, options, where(k), problems)
        if checked is not REFUSED:
            yield index, checked, where(k)


def check_prediction(value: Any, options: ReadOptions, where: str, problems: Problems) -> Any:
    """Return one prediction as an array or tensor [h, w], an RLE object, or None; or `REFUSED` after recording why."""
    try:
        array = as_one(value, options)
    except (UsageError, DataError) as error:
        problems.add("malformed mask", where, str(error))
        return REFUSED
    if array is None or is_rle(array):
        return array
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or 0 in array.shape:
        hint = (
            "; drop its last axis: mask[..., 0]" if array.ndim == 3 and array.shape[2] == 1 else ""
        )
        if array.shape == (4,):
            hint = f"; if it is a box, {BOX_FORMS}"
        reason = f"a mask is [H, W], not of shape {list(array.shape)}{hint}"
        problems.add("malformed mask", where, reason)
        return REFUSED
    return array


def batched(loaded: Iterable[tuple[int, Any, str]], batch_size: int) -> Batches:
    """Gather rows (index, array, place) into batches of at most `batch_size` arrays and about `BATCH_BYTES`."""
    rows: list[tuple[int, Any, str]] = []
    used = 0
    for row in loaded:
        rows.append(row)
        used += row[1].nbytes
        if len(rows) == batch_size or used >= BATCH_BYTES:
            yield _batch(rows)
            rows, used = [], 0
    if rows:
        yield _batch(rows)


def _batch(rows: list[tuple[int, Any, str]]) -> ArrayBatch:
    places = [place for _, _, place in rows]
    return ArrayBatch(
        np.array([index for index, _, _ in rows], np.int64),
        [array for _, array, _ in rows],
        places.__getitem__,
    )
