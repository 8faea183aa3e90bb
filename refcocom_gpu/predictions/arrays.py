"""PNG folders, `.npz`, safetensors and tensor-only `.pt` in, `ArrayBatch` out: one array per member, read when needed.

A member is named by its key, `{sample_id}_{sentence_idx}`; integers and bools are masks, floats logits or probabilities.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from refcocom_gpu.errors import Problems, UsageError
from refcocom_gpu.predictions.batches import ArrayBatch, Batches, ReadOptions
from refcocom_gpu.predictions.keys import Keys

BATCH_BYTES = 2**26
"""Arrays held at a time, in bytes, whatever `batch_size` allows."""

PICKLE_HINT = (
    "pickles can run code and are refused; save a dict of tensors with torch.save, an .npz of plain arrays, "
    "or use refcocom_gpu.PredictionWriter"
)

Load = Callable[[str], Any]


def read_png_folder(path: Path, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """A folder of one-channel PNG masks; what is not 0 is set."""
    try:
        from PIL import Image
    except ImportError:
        raise UsageError("PNG masks need Pillow: pip install 'refcocom-gpu[images]'") from None

    def load(name: str) -> Any:
        with Image.open(path / f"{name}.png") as image:
            if len(image.getbands()) != 1:
                raise ValueError(f"a mask has one channel, this image is {image.mode}")
            return np.asarray(image)

    # Hidden files are the file system's, not the user's.
    files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    for other in files:
        if other.suffix.lower() != ".png":
            problems.add("unknown file", str(other), "a folder of masks holds .png files only")
    names = [p.stem for p in files if p.suffix.lower() == ".png"]
    yield from _members(names, load, lambda name: str(path / f"{name}.png"), keys, options, problems)


def read_npz(path: Path, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """A NumPy archive."""
    try:
        archive = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        problems.add("malformed", str(path), f"not an .npz archive: {error}")
        return

    def load(name: str) -> Any:
        try:
            return archive[name]
        except ValueError as error:
            raise ValueError(PICKLE_HINT if "allow_pickle" in str(error) else str(error)) from None

    with archive:
        yield from _members(
            archive.files, load, lambda name: f"{path}, member {name}", keys, options, problems
        )


def read_safetensors(path: Path, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """A safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        # bfloat16 has no NumPy type; torch is imported only where it is needed.
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            in_torch = any(file.get_slice(name).get_dtype() == "BF16" for name in names)
        framework = "pt" if in_torch else "numpy"
        with safe_open(path, framework=framework) as file:
            yield from _members(
                names, file.get_tensor, lambda n: f"{path}, member {n}", keys, options, problems
            )
    except (SafetensorError, OSError) as error:
        problems.add("malformed", str(path), f"not a safetensors file: {error}")


def read_torch(path: Path, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    """A `torch.save`d dict of tensors, mapped and read with `weights_only=True`."""
    import pickle

    import torch

    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()
        problems.add("malformed", str(path), f"{reason[0] if reason else error!r}; {PICKLE_HINT}")
        return
    if not isinstance(saved, dict) or not all(isinstance(v, torch.Tensor) for v in saved.values()):
        problems.add("malformed", str(path), "a .pt file of predictions is a dict of tensors")
        return
    yield from _members(
        [str(k) for k in saved], saved.__getitem__, lambda n: f"{path}, member {n}", keys, options, problems
    )


def _members(
    names: Sequence[str],
    load: Load,
    place: Callable[[str], str],
    keys: Keys,
    options: ReadOptions,
    problems: Problems,
) -> Batches:
    """Resolve all names at once, then load and yield their arrays in batches of bounded size."""
    pattern = re.compile("_".join([r"(\d{1,18})"] * len(keys.fields)))
    matches = [(name, pattern.fullmatch(name)) for name in names]
    expected = "_".join(f"{{{name}}}" for name in keys.fields)
    for name, match in matches:
        if match is None:
            problems.add("bad key", place(name), f"a name is {expected}, such as {_example(keys)}")
    named = [(name, match.groups()) for name, match in matches if match is not None]
    columns = [np.array([int(g[k]) for _, g in named], np.int64) for k in range(len(keys.fields))]
    index = keys.resolve(columns, lambda row: place(named[row][0]))
    members = [(int(i), name) for i, (name, _) in zip(index, named, strict=True) if i >= 0]
    yield from batched(_loaded(members, load, place, keys, problems), options.batch_size)


def _loaded(
    members: Iterable[tuple[int, str]], load: Load, place: Callable[[str], str], keys: Keys, problems: Problems
) -> Iterable[tuple[int, Any, str]]:
    for index, name in members:
        try:
            array = load(name)
        except (ValueError, OSError, SyntaxError, zipfile.BadZipFile, KeyError) as error:
            problems.add("malformed mask", place(name), str(error))
            continue
        checked = check_array(array, index, place(name), keys, problems)
        if checked is not None:
            yield index, checked, place(name)


def check_array(array: Any, index: int, where: str, keys: Keys, problems: Problems) -> Any:
    """One array or tensor as [H, W], or None after recording what is wrong.

    Floats may have any size; they are resized. Masks must have the image's.
    """
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or 0 in array.shape:
        problems.add("malformed mask", where, f"a mask is [H, W], not of shape {list(array.shape)}")
        return None
    kind = str(array.dtype).removeprefix("torch.")
    if "float" in kind:
        # Non-finite values are seen where the logits are counted, without another pass over them here.
        return array
    if not (kind == "bool" or "int" in kind):
        problems.add("malformed mask", where, f"a mask is bool, integer or float, not {kind}")
        return None
    height, width = (np.array([x]) for x in array.shape)
    if keys.check_sizes(np.array([index]), height, width, lambda _: where)[0] < 0:
        return None
    return array


def batched(loaded: Iterable[tuple[int, Any, str]], batch_size: int) -> Batches:
    """Gather (index, array, place) into batches of at most `batch_size` arrays and about `BATCH_BYTES`."""
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


def _example(keys: Keys) -> str:
    return "_".join(map(str, keys.dataset.key_of(0)))
