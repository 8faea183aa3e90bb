"""JSON rows in, RLE batches out: the rows of native JSONL and of COCO-results JSON.

A block of rows is decoded at once into typed records (the fast path). If anything in it breaks the format, or an
object in it repeats a key, the block is read again row by row, so that every mistake is found and named.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu

from refcocom_gpu.errors import DataError, Problems, UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.masks.polygons import parse_polygons, rasterise
from refcocom_gpu.predictions.batches import Batches, RLEBatch
from refcocom_gpu.predictions.combine import joined_rle
from refcocom_gpu.predictions.header import SCHEMA, check_header
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.labels import FIELD
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.records import (
    ABSENT,
    NOT_JSON,
    Row,
    keys_stand_once,
    repeated_keys,
    row_type,
    why_not_json,
)
from refcocom_gpu.predictions.rle_batches import finish_batch
from refcocom_gpu.predictions.suggest import mask_column


def read_lines(
    blocks: Iterable[bytes], source: str, keys: Keys, options: ReadOptions, problems: Problems
) -> Batches:
    """Read blocks of whole lines of the native file; `source` is its name in messages."""
    reader = _Rows(source, "line", keys, options, problems)
    decoder = msgspec.json.Decoder(reader.type)
    first_line = 1
    for block in blocks:
        if first_line == 1:
            head, _, rest = block.partition(b"\n")
            if check_header(head, source, keys.dataset, problems):
                first_line, block = 2, rest
        n_lines = block.count(b"\n") + (not block.endswith(b"\n") and block != b"")
        rows: list[Row] | None = None
        with contextlib.suppress(*NOT_JSON):
            rows = decoder.decode_lines(block)
        # The decoder skips blank lines, which would shift the number of every line after them.
        if rows is not None and len(rows) != n_lines:
            rows = None
        numbers = range(first_line, first_line + n_lines)
        yield from reader.batches(rows, numbers, block, partial(bytes.split, block, b"\n"))
        first_line += n_lines
    reader.finish()


def read_entries(
    chunks: Iterable[Sequence[msgspec.Raw]],
    source: str,
    keys: Keys,
    options: ReadOptions,
    problems: Problems,
) -> Batches:
    """Read the entries of a JSON array, COCO result objects that also carry the key, a chunk at a time."""
    reader = _Rows(source, "entry", keys, options, problems)
    decoder = msgspec.json.Decoder(reader.type)
    first = 1
    for raws in chunks:
        rows: list[Row] | None = None
        with contextlib.suppress(*NOT_JSON):
            rows = [decoder.decode(raw) for raw in raws]
        numbers = range(first, first + len(raws))
        yield from reader.batches(rows, numbers, b"".join(raws), partial(map, bytes, raws))
        first += len(raws)
    reader.finish()


def _possible(sizes: NDArray[np.int64]) -> bool:
    """Return whether a mask may have each of these sizes; sides are checked first, so that no product overflows."""
    sides_fit = bool(((sizes >= 1) & (sizes <= rle.MAX_PIXELS)).all())
    return sides_fit and bool((sizes[:, 0] * sizes[:, 1] <= rle.MAX_PIXELS).all())


class _Rows:
    """Turns decoded rows into batches; `unit` is what a row is called in messages."""

    def __init__(
        self, source: str, unit: str, keys: Keys, options: ReadOptions, problems: Problems
    ) -> None:
        self.source, self.unit = source, unit
        self.keys, self.options, self.problems = keys, options, problems
        self.type = row_type(keys.renames, () if keys.form is None else keys.form.fields)
        # The names of the file that a renamed field may have; looked for only where fields are renamed.
        self._seen: set[str] = set()

    def batches(
        self,
        rows: list[Row] | None,
        numbers: range,
        text: bytes,
        raw: Callable[[], Iterable[bytes]],
    ) -> Iterator[RLEBatch]:
        """Yield the batch of a block, decoded at once or, where that fails, row by row.

        Args:
            rows: The rows of the block; None where they cannot be decoded at once.
            numbers: What messages call them.
            text: Of all rows.
            raw: Returns the text of each row.
        """
        batch = None
        self.keys.look_at(self.source, partial(_objects, raw))
        n_fields = len(self.keys.fields) if self.keys.form is None else 0
        # Rows of a fixed type have no columns of the file's own.
        rows = None if self.keys.own else rows
        if rows is not None and keys_stand_once(rows, n_fields, text, raw):
            batch = self._fast(rows, numbers)
        if batch is None:
            batch = self._row_by_row(raw(), numbers)
        self.keys.look_at(self.source, None)
        if len(batch.index):
            yield batch

    def finish(self) -> None:
        """Record which renamed fields no row holds."""
        if reason := self.keys.renames.unseen(self._seen):
            self.problems.add("no column", self.source, f"{reason}: no row holds it")

    def _fast(self, rows: list[Row], numbers: range) -> RLEBatch | None:
        """Return a batch; None if any row needs the slow path."""
        n = len(rows)
        masks = [row.segmentation for row in rows]
        form = self.keys.form
        try:
            columns = [
                np.fromiter((getattr(row, name) for row in rows), np.int64, n)
                for name in (self.keys.fields if form is None else ())
            ]
            sizes = np.array([(1, 1) if m is None else m.size for m in masks], np.int64)
        except OverflowError:
            return None
        sizes = sizes.reshape(-1, 2)
        if any((column < 0).any() for column in columns) or not _possible(sizes):
            return None
        if any(m is not None and isinstance(m.counts, list) for m in masks):
            return None
        counts = ["" if m is None else m.counts for m in masks]
        joined = "".join(counts)  # type: ignore[arg-type]
        if not joined.isascii():
            return None
        lengths = np.fromiter(map(len, counts), np.int64, n)
        strings = rle.Column(
            np.frombuffer(joined.encode("ascii"), np.uint8), cpu.offsets_from(lengths)
        )
        null = np.fromiter((m is None for m in masks), np.bool_, n)
        sentences = [row.sentence for row in rows]

        for ours, theirs in self.keys.renames.given.items():
            if theirs not in self._seen and (
                ours == "segmentation"
                or any(getattr(row, ours) not in (None, ABSENT) for row in rows)
            ):
                self._seen.add(theirs)

        def where(row: int) -> str:
            return self._where(numbers[row])

        if form is None:
            index = self.keys.resolve(columns, where)
        else:
            index = self.keys.resolve_rows((_held(row, form.fields) for row in rows), where)
        labels = [row.no_target for row in rows]
        return finish_batch(self.keys, index, strings, null, sizes, sentences, where, labels)

    def _row_by_row(self, lines: Iterable[bytes], numbers: range) -> RLEBatch:
        """Read each row alone, and record what is wrong with it."""
        keys: list[Any] = []
        strings: list[bytes] = []
        null: list[bool] = []
        unreadable: list[bool] = []
        sizes: list[tuple[int, int]] = []
        sentences: list[str | None] = []
        labels: list[Any] = []
        places: list[int] = []
        held: list[dict[str, Any]] = []
        for number, line in zip(numbers, lines, strict=False):
            if not line.strip():
                continue
            where = self._where(number)
            try:
                row = msgspec.json.decode(line)
                repeated = repeated_keys(line)
            except NOT_JSON as error:
                self.problems.add("malformed", where, f"not JSON: {why_not_json(error, line)}")
                continue
            parsed = self._parse(row, repeated, where)
            if parsed is None:
                continue
            key, size, counts, sentence = parsed
            keys.append(key)
            null.append(counts is None)
            unreadable.append(size is None)
            strings.append(counts or b"")
            sizes.append(size or (0, 0))
            sentences.append(sentence)
            labels.append(self.keys.renames.row(row).get(FIELD))
            places.append(number)
            if self.keys.own:
                self.keys.own.see(
                    name for name in row if name not in self.keys.renames.given.values()
                )
                held.append(row)

        def place(row: int) -> str:
            return self._where(places[row])

        if self.keys.form is None:
            columns = [
                np.array([key[k] for key in keys], np.int64) for k in range(len(self.keys.fields))
            ]
            index = self.keys.resolve(columns, place)
        else:
            index = self.keys.claim(np.array(keys, np.int64), place)
        if self.keys.own:
            self.keys.own.keep(index, held, place, self.problems)
        # Their examples stay claimed, so that a malformed mask is not reported as missing too.
        index[unreadable] = -1
        return finish_batch(
            self.keys,
            index,
            rle.column(strings),
            np.array(null, np.bool_),
            np.array(sizes, np.int64).reshape(-1, 2),
            sentences,
            place,
            labels,
        )

    def _parse(self, row: Any, repeated: list[str], where: str) -> Any:
        """Return (key, size, counts, sentence) of one row, or None after recording that it has no key.

        The key is its numbers, or the index of the example where rows are found one by one.

        Counts are None for an explicit empty; the size is None after recording that the mask cannot be read.
        """
        if not isinstance(row, dict):
            self.problems.add("malformed", where, f"a prediction is an object, not {row!r:.60}")
            return None
        if row.get("schema") == SCHEMA:
            self.problems.add(
                "header",
                where,
                "a header among the predictions: shards were joined; pass them as several files, or delete this line",
            )
            return None
        if repeated:
            self.problems.add(
                "duplicate",
                where,
                f"the row has {', '.join(repeated)} more than once in one object; write each key once",
            )
            if not set(repeated).isdisjoint(map(self.keys.renames.column, self.keys.fields)):
                return None
        held, row = row, self.keys.renames.row(row)
        if self.keys.renames:
            self._seen |= held.keys()
        names = ", ".join(held) or "nothing"
        key: Any
        if self.keys.form is not None:
            key = self.keys.find(row, where)
        elif (key := self.keys.ids_of(row, where, held)) is None:
            return None
        sentence = row.get("sentence")
        if repeated:
            return key, None, b"", None
        if "segmentation" not in row and self.keys.is_rejected(row):
            return key, (0, 0), None, sentence
        if "segmentation" not in row:
            self.problems.add(
                "no segmentation",
                where,
                f"no {self.keys.renames.called('segmentation')}; the row has {names}; write null for a mask that is "
                f"empty on purpose{mask_column(held)}",
            )
            return key, None, b"", sentence
        segmentation = row["segmentation"]
        try:
            if (
                isinstance(segmentation, list)
                and segmentation
                and isinstance(segmentation[0], dict)
            ):
                segmentation = joined_rle(segmentation, self.options)
            if segmentation is None:
                return key, (0, 0), None, sentence
            if isinstance(segmentation, list):
                height, width, counts = self._rasterise(segmentation, key)
            else:
                height, width, counts = rle.check(segmentation)
        except (DataError, UsageError) as error:
            self.problems.add("malformed mask", where, str(error))
            return key, None, b"", sentence
        return key, (height, width), counts, sentence

    def _rasterise(self, segmentation: list[Any], key: Any) -> tuple[int, int, bytes]:
        """Return (H, W, counts) of polygons; any size for an unknown key, because its row is refused anyway."""
        index = key
        if self.keys.form is None:
            index = int(self.keys.lookup([np.array([value], np.int64) for value in key])[0])
        dataset = self.keys.dataset
        sample = dataset.example_sample[index] if index >= 0 else 0
        height, width = int(dataset.heights[sample]), int(dataset.widths[sample])
        polygons = parse_polygons(segmentation)
        if index >= 0 and self.options.polygons == "pixels":
            self.keys.polygon_scale.see(polygons, height, width)
        return rasterise(polygons, height, width, self.options.polygons)

    def _where(self, number: int) -> str:
        return f"{self.source}, {self.unit} {number}"


def _held(row: Row, fields: Sequence[str]) -> dict[str, Any]:
    """Return what a row holds of some fields."""
    values = {name: getattr(row, name) for name in fields}
    return {name: None if value == ABSENT else value for name, value in values.items()}


def _objects(raw: Callable[[], Iterable[bytes]]) -> Iterator[dict[str, Any]]:
    """Yield the rows that are JSON objects."""
    for text in raw():
        with contextlib.suppress(*NOT_JSON):
            if isinstance(row := msgspec.json.decode(text), dict):
                yield row
