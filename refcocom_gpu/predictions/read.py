"""Prediction files of any accepted format in, batches with known examples out; one reader per format.

| path | reader |
|---|---|
| `.parquet` | `parquet.py`: the native table |
| `.jsonl` | `rows.py`: the native lines |
| `.json` | `rows.py`: COCO results with the key |
| folder | `arrays.py`: `{sample_id}_{sentence_idx}.png` |
| `.npz`, `.safetensors`, `.pt`, `.pth` | `arrays.py`: members named like the PNGs |

Every mistake is recorded in one `Problems` and reading goes on, so that one pass finds them all.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refcocom_gpu.errors import Problems, UsageError
from refcocom_gpu.predictions.batches import Batches
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.options import ReadOptions

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset

READERS = {
    ".parquet": ("parquet", "read_parquet"),
    ".jsonl": ("rows", "read_jsonl"),
    ".ndjson": ("rows", "read_jsonl"),
    ".json": ("rows", "read_coco_results"),
    ".npz": ("arrays", "read_npz"),
    ".safetensors": ("arrays", "read_safetensors"),
    ".pt": ("arrays", "read_torch"),
    ".pth": ("arrays", "read_torch"),
}
PICKLES = {".pkl", ".pickle", ".joblib"}


def expand_paths(predictions: str | Path | Iterable[str | Path]) -> list[Path]:
    """A path, a glob or a list of either, to the files of one set of predictions.

    A path that exists is taken as it stands, whatever characters it has.

    Args:
        predictions: Several files are the shards of one set, not several sets.

    Raises:
        UsageError: When nothing is there.
    """
    if isinstance(predictions, str | Path):
        predictions = [predictions]
    found: list[Path] = []
    for entry in predictions:
        try:
            path = Path(entry).expanduser()
        except RuntimeError as error:  # `~name` of nobody
            raise UsageError(f"no prediction file at {entry}: {error}") from None
        try:
            exists = path.exists()
        except OSError as error:  # a name longer than the system allows
            raise UsageError(f"no prediction file at {entry!s:.80}: {error.strerror}") from None
        if exists:
            found.append(path)
            continue
        matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(str(path)) else []  # noqa: PTH207
        if not matches:
            raise UsageError(f"no prediction file at {entry}")
        found += [Path(match) for match in matches]
    if not found:
        raise UsageError("no prediction file was given")
    return found


def read_predictions(
    paths: Sequence[Path],
    dataset: Dataset,
    options: ReadOptions,
    problems: Problems,
) -> tuple[Batches, Keys]:
    """Stream predictions in batches of bounded memory.

    Args:
        paths: Shards of one set of predictions, from `expand_paths`.
        dataset: What they are predictions for.
        options: What the files cannot say of themselves.
        problems: Collects every mistake; check it when the batches are exhausted.

    Returns:
        The batches, and the `Keys` that know which examples were given.

    Raises:
        UsageError: For a format that is not read, before anything is.
    """
    readers = [_reader(path) for path in paths]
    keys = Keys(dataset, problems)

    def batches() -> Batches:
        for path, read in zip(paths, readers, strict=True):
            try:
                yield from read(path, keys, options, problems)
            except OSError as error:
                raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None

    return batches(), keys


def _reader(path: Path) -> Any:
    from importlib import import_module

    suffix = path.suffix.lower()
    if path.is_dir():
        module, name = "arrays", "read_png_folder"
    elif suffix in READERS:
        module, name = READERS[suffix]
    elif suffix in PICKLES:
        from refcocom_gpu.predictions.arrays import PICKLE_HINT

        raise UsageError(f"{path}: {PICKLE_HINT}")
    else:
        raise UsageError(
            f"{path}: predictions are a folder of PNGs or a file ending in {', '.join(READERS)}, "
            f"not {suffix or 'a file without an ending'}"
        )
    return getattr(import_module(f"refcocom_gpu.predictions.{module}"), name)


__all__ = ["Batches", "Keys", "ReadOptions", "expand_paths", "read_predictions"]
