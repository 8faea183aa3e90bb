r"""Files of raw responses in, predictions for `score` out: JSON lines with the key of an example and a `response`.

```
{"sample_id": 20002, "sentence_idx": 0, "response": "Here it is:\n```json\n[…]\n```"}
```

`response` is the text that the model wrote, or the JSON in it. A response that holds no mask that can be read is kept
apart with its file and line; it is never an empty mask. Everything else that is wrong with a row is an error.
With `boxes=keep`, all this is said of boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from refcocom_gpu.adapters.boxes import one_box
from refcocom_gpu.adapters.combine import combined
from refcocom_gpu.adapters.sources import options_of, reader_of
from refcocom_gpu.errors import AnswerError, Problem, Problems, UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.predictions.answers import KEEP, Answers
from refcocom_gpu.predictions.keys import Keys
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.read import expand_paths
from refcocom_gpu.predictions.records import json_object
from refcocom_gpu.utils.changes import unchanged
from refcocom_gpu.utils.files import regular

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset

UNREAD = "unread answer"
"""The kind of problem that an answer without a readable mask is."""

OF_A_ROW = ("processed_size",)
"""Options that a row may carry for its own answer, because they differ from image to image."""


def read(
    path: str | Path | list[str | Path],
    dataset: Dataset,
    *,
    source: str,
    combine: str | None = None,
    keys: str | None = None,
    fields: dict[str, str] | None = None,
    **options: Any,
) -> Answers:
    """Read raw responses.

    Args:
        path: A `.jsonl` file, a glob or a list; several files are the shards of one set.
        dataset: What the responses are for.
        source: A name of the table in `adapters.sources`.
        combine: `union` or `best`, for answers that hold several masks; without it these are errors. Of boxes, `best`.
        keys: How rows name their examples, as for `score`.
        fields: What the rows call our fields and `response`, as for `score`.
        options: Those of the source. A row may carry its own `processed_size`.

    Returns:
        The predictions, as COCO RLE, or as boxes with the option `boxes="keep"`, and what could not be read. `score`
        takes them whole.

    Raises:
        PredictionError: A row has no key or no response, its key is unknown or repeated, its sentence is another
            one, its answer holds several masks, or the polygons of the whole set are not in pixels.
        DataError: A file changed while it was read.
        UsageError: A file is absent or no `.jsonl`, or an option is unknown or missing.

    >>> import json, tempfile, refcocom_gpu as rc
    >>> dataset = rc.load_dataset("sample")
    >>> path = Path(tempfile.mkdtemp()) / "responses.jsonl"
    >>> row = {"sample_id": 20002, "sentence_idx": 0, "response": "It is at [[9, 9], [60, 9], [60, 40]]."}
    >>> _ = path.write_text(json.dumps(row))
    >>> answers = read(path, dataset, source="points", scale="pixels")
    >>> answers
    Answers(source=points, scale=pixels: 1 read, 0 of them combined, 0 without an object; 0 unread)
    >>> rc.score(answers, dataset, missing="zero").n_missing == dataset.n_examples - 1
    True
    """
    ReadOptions(combine=combine, keys=keys, fields=fields)
    read_answer = reader_of(source, options)
    if options.get("boxes") == KEEP and combine == "union":
        raise UsageError(
            "the union of boxes is no box; combine=best takes the one with the highest score"
        )
    files = expand_paths(path)
    for file in files:
        if file.is_dir() or file.suffix.lower() not in (".jsonl", ".ndjson"):
            raise UsageError(f"{file}: raw responses are JSON lines in a .jsonl file")
    with unchanged(files):
        answers = Answers.of(files, {"source": source, "combine": combine, **options})
        _fill(answers, dataset, read_answer, keys, fields)
    return answers


def _fill(
    answers: Answers,
    dataset: Dataset,
    read_answer: Callable[..., list[Any]],
    keys: str | None,
    fields: dict[str, str] | None,
) -> None:
    """Read the rows of the files, as `read` says."""
    source, combine = answers.adapter["source"], answers.adapter["combine"]
    problems = Problems()
    resolver = Keys(dataset, problems, keys, fields=fields)
    resolver.look_at(answers.name, lambda: (row for row, _ in _rows(answers.files, Problems())))
    seen: set[str] = set()
    own_options = [name for name in OF_A_ROW if name in options_of(source)]
    for held, where in _rows(answers.files, problems):
        seen |= held.keys()
        row = resolver.renames.row(held)
        index = _example(row, resolver, where, held)
        if index < 0:
            continue
        sample = int(dataset.example_sample[index])
        height, width = int(dataset.heights[sample]), int(dataset.widths[sample])
        key = dataset.key_of(index)
        own = {name: row[name] for name in own_options if name in row}
        try:
            candidates = read_answer(row["response"], height, width, **own)
        except AnswerError as error:
            answers.unread[key] = Problem(UNREAD, where, str(error))
            continue
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
        try:
            if answers.are_boxes:
                prediction: Any = one_box(candidates, combine)
            else:
                for polygons in filter(None, (c.polygons for c in candidates)):
                    resolver.polygon_scale.see(polygons, height, width)
                mask = combined(candidates, height, width, combine)
                prediction = rle.encode(mask) if candidates else None
        except UsageError as error:
            # One line for each such answer tells more than an error at the first.
            problems.add(f"several {'boxes' if answers.are_boxes else 'masks'}", where, str(error))
            continue
        answers.n_combined += len(candidates) > 1
        answers.n_none += not candidates
        answers.pairs.append((key, prediction))
    if reason := resolver.renames.unseen(seen):
        problems.add("no column", answers.name, f"{reason}: no row holds it")
    resolver.polygon_scale.judge(answers.name, problems)
    if resolver.form is not None:
        resolver.form.finish(answers.name, problems)
    problems.raise_if_any()


def _rows(files: list[Path], problems: Problems) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the object of each line and its place."""
    for path in files:
        try:
            with regular(path).open("rb") as file:
                for number, line in enumerate(file, 1):
                    text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                    if not text.strip():
                        continue
                    where = f"{path}, line {number}"
                    row = json_object(text, where, problems)
                    if row is not None:
                        yield row, where
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None


def _example(row: Mapping[str, Any], keys: Keys, where: str, held: Mapping[str, Any]) -> int:
    """Return the index of a row's example, −1 after recording a problem with its key or its response.

    `held` is the row under the file's names.
    """
    index = example_of(row, keys, where, held)
    if index is not None and "response" not in row:
        hint = "; a file of predictions is scored as it is" if "segmentation" in row else ""
        reason = f"no {keys.renames.called('response')}; the row has {', '.join(held)}{hint}"
        keys.problems.add("no response", where, reason)
        return -1
    return -1 if index is None else index


def example_of(
    row: Mapping[str, Any], keys: Keys, where: str, held: Mapping[str, Any] | None = None
) -> int | None:
    """Return the index of the example that a row names, and claim it; `held` is the row under the file's names.

    Returns:
        −1 after recording a problem; None if the problem is that the row has no key.
    """
    if keys.form is not None:
        index = keys.claim(np.array([keys.find(row, where)]), lambda _: where)
    elif (numbers := keys.ids_of(row, where, row if held is None else held)) is None:
        return None
    else:
        index = keys.resolve([np.array([n], np.int64) for n in numbers], lambda _: where)
    if "sentence" in row:
        index = keys.check_sentences(index, [row["sentence"]], lambda _: where)
    return int(index[0])
