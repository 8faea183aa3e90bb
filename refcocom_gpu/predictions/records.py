"""JSON rows as typed records, and whether their text repeats a key: decoders keep the last one in silence.

Every key and every string stands in two quotes, so a row has at least the quotes that its decoded fields need. A key
that an object repeats adds two or more, whatever its name, its escapes and the spaces around it. So text with exactly
the quotes that are needed repeats no key, and counting them costs a few percent of decoding. A row with more quotes,
such as one with a field that is not read, is searched exactly, at all levels and with all its fields.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from refcocom_gpu.dataset.facts import REFER_IDS
from refcocom_gpu.errors import Problems
from refcocom_gpu.predictions.renames import Renames

NOT_JSON = (msgspec.DecodeError, ValueError, RecursionError)
"""What decoders raise on text that is not the expected JSON; the last one on brackets nested without end."""

_NOT_IN_JSON = {
    b"NaN": "NaN stands there, which JSON does not have; write null, or leave the field out",
    b"Infinity": "Infinity stands there, which JSON does not have; write null, or leave the field out",
    b"\xef\xbb\xbf": "a byte order mark stands there: files were joined; pass them as several files",
}
"""What writers put into JSON against its rules, and what to say of it."""


ABSENT = -1
"""Stands for a number that a row does not have."""


class Segmentation(msgspec.Struct):
    """A COCO RLE."""

    size: tuple[int, int]
    counts: str | list[int]


class Row(msgspec.Struct):
    """A prediction; its key is some of the numbers."""

    segmentation: Segmentation | None
    sentence_idx: int = ABSENT
    sample_id: int = ABSENT
    image_id: int = ABSENT
    position: int = ABSENT
    sentence: str | None = None
    file_name: str | None = None
    # What COCO results also carry; only their quotes are counted.
    category_id: Any = None
    score: Any = None
    no_target: Any = None


def row_type(renames: Renames, wanted: Collection[str]) -> type[Row]:
    """Return the type of rows under the names of a file; `Row` itself where they are ours.

    Args:
        renames: The names of the file.
        wanted: Fields that are read; the ids of the original sets are among those of a row only if they are wanted.
    """
    ids = [name for name in REFER_IDS if name in wanted or name in renames.given]
    if not renames and not ids:
        return Row
    known = {entry.name: entry for entry in msgspec.structs.fields(Row)}
    fields: list[Any] = [
        (name, entry.type) if entry.required else (name, entry.type, entry.default)
        for name, entry in known.items()
        if renames.column(name) is not None
    ]
    fields += [(name, int, ABSENT) for name in ids if renames.column(name) is not None]
    # Others are no part of a prediction; they are kept to tell whether the file has them.
    fields += [(name, Any, None) for name in renames.given if name not in known and name not in ids]
    # A field whose column is read as another one has the value of one that is absent.
    hidden = {
        n: ABSENT if n in ids else known[n].default for n in (*known, *ids) if not renames.column(n)
    }
    row: Any = msgspec.defstruct("RenamedRow", fields, rename=renames.given, namespace=hidden)
    return row  # type: ignore[no-any-return]


def why_not_json(error: Exception, text: bytes | memoryview) -> str:
    """Return what an error of a decoder says, or the cause where the text shows it.

    >>> text = b'{"score": NaN}'
    >>> try:
    ...     msgspec.json.decode(text)
    ... except msgspec.DecodeError as error:
    ...     print(why_not_json(error, text))
    NaN stands there, which JSON does not have; write null, or leave the field out (byte 10)
    """
    found = re.search(r"\(byte (\d+)\)$", str(error))
    if found is not None:
        at = int(found[1])
        for start, reason in _NOT_IN_JSON.items():
            if bytes(text[at : at + len(start)]) == start:
                return f"{reason} (byte {at})"
    return str(error)


def keys_stand_once(
    rows: Sequence[Row], n_fields: int, text: bytes, raw: Callable[[], Iterable[bytes]]
) -> bool:
    """Return whether no object in the rows repeats a key.

    Rows without a field of the key or with counts as a list have fewer quotes than are taken for needed here. What is
    returned for blocks with such rows means nothing; they are read row by row anyway.

    Args:
        rows: All rows of a block.
        n_fields: Fields that every row has for its key.
        text: Of all rows.
        raw: Returns the text of each row.
    """
    n = len(rows)
    n_masks = n - [row.segmentation for row in rows].count(None)
    n_sentences = n - [row.sentence for row in rows].count(None)
    # A mask has two keys and a string; a sentence is a key and a string.
    needed = 2 * (n_fields + 1) * n + 6 * n_masks + 4 * n_sentences
    # This is several times as fast as `bytes.count`.
    if np.count_nonzero(np.frombuffer(text, np.uint8) == ord('"')) <= needed:
        return True
    try:
        return not any(
            line.count(b'"') > _needed_quotes(row) and repeated_keys(line)
            for row, line in zip(rows, raw(), strict=False)
        )
    except NOT_JSON:
        return False


def _needed_quotes(row: Row) -> int:
    n_keys = (
        1
        + (row.sentence_idx != ABSENT)
        + (row.sample_id != ABSENT)
        + (row.image_id != ABSENT)
        + (row.position != ABSENT)
    )
    if type(row) is not Row:
        n_keys += sum(getattr(row, name, ABSENT) != ABSENT for name in REFER_IDS)
    n_keys += (row.category_id is not None) + (row.score is not None) + (row.no_target is not None)
    n_texts = (row.sentence is not None) + (row.file_name is not None)
    return 2 * n_keys + 6 * (row.segmentation is not None) + 4 * n_texts


def json_object(text: bytes, where: str, problems: Problems) -> dict[str, Any] | None:
    """Return the row that a text holds, None after recording that it is none.

    Args:
        text: One row.
        where: Its place.
        problems: Collects what is wrong.

    >>> problems = Problems()
    >>> json_object(b'{"a": 1}', "line 1", problems), json_object(b"[1]", "line 2", problems), len(problems.kept)
    ({'a': 1}, None, 1)
    """
    try:
        row = msgspec.json.decode(text)
        repeated = repeated_keys(text)
    except NOT_JSON as error:
        problems.add("malformed", where, f"not JSON: {why_not_json(error, text)}")
        return None
    if not isinstance(row, dict):
        problems.add("malformed", where, f"a row is an object, not {row!r:.60}")
        return None
    if repeated:
        names = ", ".join(repeated)
        problems.add("duplicate", where, f"the row has {names} more than once in one object")
        return None
    return row


def repeated_keys(text: bytes) -> list[str]:
    r"""Return the keys that an object of a JSON text has more than once, at any level and under any spelling.

    Args:
        text: Valid JSON.

    Raises:
        ValueError: The text is not JSON.
        RecursionError: The text is nested too deeply.

    >>> repeated_keys(rb'{"a": 1, "b": {"c": 1, "\u0063": 2}, "a": null}')
    ['c', 'a']
    """
    repeated: list[str] = []

    def see(pairs: list[tuple[str, Any]]) -> None:
        if len(dict(pairs)) < len(pairs):
            times = Counter(key for key, _ in pairs)
            repeated.extend(key for key, n in times.items() if n > 1)

    # Numbers stay text: only keys matter here, and `int` refuses numbers of thousands of digits.
    decoder = json.JSONDecoder(object_pairs_hook=see, parse_int=str, parse_float=str, strict=False)
    decoder.decode(text.decode("utf-8", "surrogateescape"))
    return repeated
