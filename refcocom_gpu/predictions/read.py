"""Prediction files of any accepted format in, batches with known examples out; each format has a reader.

| path | reader |
|---|---|
| `.parquet` | `parquet.py`: the native table |
| `.arrow`, `.feather`, `datasets.Dataset` in memory or saved | `arrow_tables.py`: the same table |
| `.jsonl`, `.json`, these compressed | `text.py`: the native lines, or an array of COCO results with the key |
| folder of PNGs | `arrays.py`: `{sample_id}_{sentence_idx}.png` |
| folder of files of one other kind | `shards.py`: its files are one set |
| `.zip`, `.tar`, `.tar` compressed | `archives.py`: such PNGs, or `.npy` arrays named like them |
| `.npz` | `archives.py`: members named like the PNGs |
| `.safetensors`, `.pt`, `.pth` | `arrays.py`: the same |

A mistake is recorded in `Problems` and reading goes on, so that one pass finds them all.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from refcocom_gpu.errors import Problem, Problems, UsageError
from refcocom_gpu.predictions.answers import Answers, Key
from refcocom_gpu.predictions.arrow_tables import is_dataset, read_dataset
from refcocom_gpu.predictions.batches import Batches, BoxBatch
from refcocom_gpu.predictions.box_rows import read_box_pairs
from refcocom_gpu.predictions.built_in import built_in_file, is_built_in
from refcocom_gpu.predictions.header import NATIVE_BOXES, box_form_of, model_of
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.memory import read_pairs
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.repeats import each_once
from refcocom_gpu.predictions.shards import read_shard, reader_of
from refcocom_gpu.utils.files import hash_files, regular

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset


Options = TypeVar("Options", bound=ReadOptions)


def expand_paths(predictions: str | Path | Iterable[str | Path]) -> list[Path]:
    """Expand a path, a glob or a list of either to the files of one set of predictions.

    A path that exists is not taken for a glob, whatever characters it has.

    Args:
        predictions: Several files are the shards of one set, not several sets.

    Raises:
        UsageError: When a path is absent or a glob matches nothing.
    """
    if isinstance(predictions, str | Path):
        predictions = [predictions]
    paths: list[Path] = []
    for entry in predictions:
        try:
            path = Path(entry).expanduser()
        except RuntimeError as error:  # no user has the name of `~name`
            raise UsageError(f"no prediction file at {entry}: {error}") from None
        try:
            exists = path.exists()
        except OSError as error:  # a name longer than the system allows
            raise UsageError(f"no prediction file at {entry!s:.80}: {error.strerror}") from None
        if exists:
            paths.append(path)
            continue
        matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(str(path)) else []  # noqa: PTH207
        if not matches:
            raise UsageError(f"no prediction file at {entry}")
        paths += [Path(match) for match in matches]
    if not paths:
        raise UsageError("no prediction file was given")
    return paths


class Source(NamedTuple):
    """Where a set of predictions is.

    Attributes:
        name: What messages and summaries call it.
        files: Its shards; empty for predictions in memory.
        pairs: `(index, masks)` pairs, `Answers` or a `datasets.Dataset` in memory; None for files.
        is_built_in: Whether this package drew the files, so that a summary leaves out their temporary paths.
    """

    name: str
    files: list[Path]
    pairs: Any = None
    is_built_in: bool = False

    @property
    def unread(self) -> dict[Key, Problem]:
        """What is wrong with each answer of a model that could not be read, by the key of its example."""
        return self.pairs.unread if isinstance(self.pairs, Answers) else {}

    def about(self) -> dict[str, Any]:
        """Return what a summary says about the predictions: `source`, and for files `files` and `xxh3_128`.

        `model` is the name that the header of a native file declares.

        Files are hashed here: call it, and read them, in one `unchanged` block.

        Raises:
            UsageError: When a file cannot be read.
        """
        about: dict[str, Any] = {"source": self.name}
        if isinstance(self.pairs, Answers):
            return {**about, **self.pairs.about()}
        if not self.files:
            return about
        if not self.is_built_in:
            about["files"] = [str(path) for path in self.files]
            if model := next(filter(None, map(model_of, self.files)), None):
                about["model"] = model
        try:
            return {**about, "xxh3_128": hash_files(self.files)}
        except OSError as error:
            raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from None


def find_source(predictions: Any) -> Source:
    """Find a set of predictions: files, a built-in set or pairs in memory.

    Args:
        predictions: A path, glob or list of paths; the name of a built-in set; `(index, masks)` pairs, a dict or
            `Answers`; or a `datasets.Dataset` with the columns of native Parquet.

    Raises:
        UsageError: When there is no such file, or its format is unknown.

    >>> find_source("sample").name, find_source([(0, None)]).name
    ('sample', 'memory')
    """
    if is_built_in(predictions):
        return Source(predictions, [built_in_file(predictions)], is_built_in=True)
    if isinstance(predictions, Answers):
        return Source(predictions.name, [], predictions)
    # An empty list names no file, and is refused as such; it is not a set in memory whose predictions are all missing.
    if isinstance(predictions, str | Path) or (
        isinstance(predictions, list | tuple)
        and all(isinstance(path, str | Path) for path in predictions)
    ):
        paths = [regular(path) for path in expand_paths(predictions)]
        for path in paths:
            reader_of(path)  # an unknown format is refused before a dataset is loaded
        return Source(", ".join(map(str, paths)), paths)
    return Source("memory", [], predictions)


def read_predictions(
    source: Source,
    dataset: Dataset,
    options: ReadOptions,
    problems: Problems,
    columns: Iterable[str] = (),
) -> tuple[Batches, Keys]:
    """Stream predictions in batches of bounded memory.

    Args:
        source: From `find_source`.
        dataset: What they are predictions for.
        options: What the predictions cannot say themselves.
        problems: Collects every mistake; check it when the batches are exhausted.
        columns: Further columns of tables, which the `Keys` keep in `own`.

    Returns:
        The batches, and the `Keys` that know which examples were given.

    Raises:
        UsageError: For an unknown format, before anything is read.
    """
    keys = Keys(
        dataset,
        problems,
        options.keys,
        fields=options.fields,
        name=options.name,
        may_repeat=options.repeats is not None,
        ignores_extra=options.extra is not None,
        columns=columns,
        no_target_threshold=options.no_target_threshold,
    )
    batches = _batches(source, keys, options, problems)
    if keys.may_repeat:
        batches = each_once(batches, keys, options, problems)
    return batches, keys


def options_of(source: Source, options: Options) -> Options:
    """Return the options with which a set is read: native files of boxes and adapters declare their form themselves.

    Raises:
        UsageError: The options, or some files of the set, declare another form.
    """
    forms: list[dict[str, Any]] = [form for form in map(box_form_of, source.files) if form]
    if isinstance(source.pairs, Answers) and source.pairs.are_boxes:
        forms.append(NATIVE_BOXES)
    for form in forms:
        declared = replace(options, **form)
        if options.box_format is not None and options != declared:
            given = " ".join(f"{name}={value}" for name, value in form.items())
            raise UsageError(
                f"{source.name} declares {given} of its boxes, not box_format={options.box_format} "
                f"box_scale={options.box_scale}"
            )
        options = declared
    return options


def read_boxes(
    source: Source, dataset: Dataset, options: ReadOptions, problems: Problems
) -> tuple[Iterator[BoxBatch], Keys]:
    """Stream predictions that are boxes, as `read_predictions` streams masks.

    Raises:
        UsageError: As there, and while reading where the predictions have a format that holds masks.
    """
    batches, keys = read_predictions(source, dataset, options, problems)

    def boxes() -> Iterator[BoxBatch]:
        batch: Any
        for batch in batches:
            if not isinstance(batch, BoxBatch):
                raise UsageError(
                    f"{source.name} holds masks, and box_format={options.box_format} reads boxes, from rows of "
                    "Parquet, JSON, Arrow or datasets and from memory; without box_format, metrics=[iou,boxes] scores "
                    "the boxes of masks too"
                )
            yield batch

    return boxes(), keys


def _batches(source: Source, keys: Keys, options: ReadOptions, problems: Problems) -> Batches:
    if not source.files:
        in_memory = read_pairs if options.box_format is None else read_box_pairs
        read_memory = read_dataset if is_dataset(source.pairs) else in_memory
        return read_memory(source.pairs, keys, options, problems)
    readers = [reader_of(path) for path in source.files]

    def of_files() -> Batches:
        for path, read in zip(source.files, readers, strict=True):
            n_before = problems.counts["duplicate"]
            yield from read_shard(read, path, keys, options, problems)
            # Of shards no two predict one example; of whole sets each repeats what the first one predicts.
            if (
                problems.counts["duplicate"] - n_before >= keys.dataset.n_examples / 2
                and not problems.hints
            ):
                problems.hints.append(
                    f"{path} predicts what the files before it do: if each is a set of its own, rank them with "
                    "refcocom sweep, or compare two with refcocom compare"
                )
        keys.polygon_scale.judge(source.name, problems)
        if keys.form is not None:
            keys.form.finish(source.name, problems)

    return of_files()
