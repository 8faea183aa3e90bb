"""Keys in, example indices out: every reader resolves its keys here, so that all formats have the same rules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.dataset.lookup import normal_text
from refcocom_gpu.errors import AbsentError, NotFoundError, Problems, UsageError
from refcocom_gpu.predictions.batches import Where
from refcocom_gpu.predictions.key_forms import BySentence, difference, row_form, whole_number
from refcocom_gpu.predictions.labels import (
    FIELD,
    NO_TARGET,
    UNLABELLED,
    UNREADABLE,
    label_code,
    label_codes,
    why_unreadable,
)
from refcocom_gpu.predictions.names import template_of
from refcocom_gpu.predictions.own_columns import OwnColumns
from refcocom_gpu.predictions.polygon_scale import PolygonScale
from refcocom_gpu.predictions.renames import Renames
from refcocom_gpu.predictions.suggest import WITNESSES, fitting, suggestion

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset
    from refcocom_gpu.predictions.options import ReadOptions

Ints = NDArray[np.int64]

Witnesses = Callable[[], Iterable[Mapping[str, Any]]]
"""Reads rows of a file anew, as the file has them."""

NO_ROW = "is not a row of the store (0 to {})"
"""What is wrong with an index that names no example; filled with the last index."""

NEEDS_SENTENCES = (
    "extra=ignore needs the sentence of each row that is used, because positions differ between versions of a dataset; "
    "add a column sentence, or carry the run over with refcocom convert"
)

EXTRA = "; extra=ignore leaves out what the dataset does not have"

MOVED = (
    "; positions differ between versions of a dataset: keys=sentence finds examples by their text"
)


class Keys:
    """Resolves the keys of a whole read to indices, and remembers which examples were given and where.

    Args:
        dataset: What the predictions are for.
        problems: Collects unknown keys, duplicates, wrong sentences and wrong sizes.
        form: How rows of a table name their examples: `keys` of `ReadOptions`.
        fields: What a file calls our fields: `fields` of `ReadOptions`.
        name: How members and pictures are called: `name` of `ReadOptions`.

    Raises:
        UsageError: The dataset is keyed otherwise, or the names hold too little to find an example.
        may_repeat: Whether rows for an example that was given go on to `repeats`, which compares their masks.
        ignores_extra: Whether rows for examples that the dataset does not have are counted instead of recorded.
        columns: Further columns of the file that are kept.
        no_target_threshold: Of scores in `no_target`, as in `ReadOptions`.

    Attributes:
        own: Those columns.
        n_extra: Number of those.
        n_repeated: Number of rows that `repeats` left out.
        labels: [N] int64 what the rows say in `no_target`, as codes of `predictions.labels`.
        form: How rows are found one by one; None where their key is columns of numbers.
        template: How names are read; None where only tables can be.
        renames: What the file calls our fields.
        polygon_scale: Judges the polygons of the read as one set, whatever number of files it has.
    """

    def __init__(
        self,
        dataset: Dataset,
        problems: Problems,
        form: str | None = None,
        *,
        fields: Mapping[str, str] | None = None,
        name: str | None = None,
        may_repeat: bool = False,
        ignores_extra: bool = False,
        columns: Iterable[str] = (),
        no_target_threshold: float | None = None,
    ) -> None:
        self.own = OwnColumns(columns, dataset.n_examples)
        self.may_repeat, self.ignores_extra = may_repeat, ignores_extra
        self.n_extra = self.n_repeated = 0
        self.form = row_form(form, dataset)
        self.dataset = dataset
        self.problems = problems
        self.fields: tuple[str, ...] = dataset.example_key_fields
        self.renames = Renames(fields)
        needed = (self.fields,) if self.form is None else self.form.named
        self.template = template_of(name, form, dataset, needed)
        self._keys = form
        self._witnesses: Witnesses | None = None
        self._source: str | None = None
        self._words: list[str] | None = None
        self.given = np.zeros(dataset.n_examples, np.bool_)
        self.labels = np.zeros(dataset.n_examples, np.int64)
        self._no_target_threshold = no_target_threshold
        self.polygon_scale = PolygonScale()
        # Where each example was first given: a batch and a row in it, so that a duplicate can point there.
        self._places: list[Where] = []
        self._batch_of = np.zeros(dataset.n_examples, np.int32)
        self._row_of = np.zeros(dataset.n_examples, np.int32)

    def resolve(self, columns: Sequence[Ints], where: Where) -> Ints:
        """Return the indices of a batch of keys.

        Args:
            columns: One [B] array per field of the key.
            where: Place of each row.

        Returns:
            [B] indices, −1 for a row that was recorded as a problem.
        """
        return self.claim(self.look_up(columns, where), where)

    def look_up(self, columns: Sequence[Ints], where: Where) -> Ints:
        """Return the indices of a batch of keys as `resolve` does, without claiming the examples."""
        index = self.lookup(columns)
        if self.ignores_extra:
            self.n_extra += int(np.count_nonzero(index < 0))
            return index
        for row in np.flatnonzero(index < 0):
            key = tuple(int(column[row]) for column in columns)
            message = f"{self._explain_unknown(key)}{self._what_fits()}"
            self.problems.add("unknown key", where(int(row)), message)
        return index

    def look_at(self, source: str, witnesses: Witnesses | None) -> None:
        """Say how some rows of a file can be read, under its own names; hints are tried on them."""
        if source != self._source:
            self._source, self._words = source, None
        self._witnesses = witnesses

    def hint(self, names: Collection[str]) -> str:
        """Return what would help rows that lack the key and have these names."""
        return suggestion(names, self.dataset, self._fitting())

    def _what_fits(self) -> str:
        """Return the hint for a key that is unknown: only what was tried."""
        words = self._fitting()
        return suggestion((), self.dataset, words) if words else ""

    def _fitting(self) -> list[str]:
        if self._witnesses is None:
            return []
        if self._words is None:
            rows = list(islice(self._witnesses(), WITNESSES))
            self._words = fitting(rows, self.dataset, self._keys, self.renames)
        return self._words

    def resolve_indices(self, index: Ints, where: Where) -> Ints:
        """Check [B] indices, given instead of keys, as `resolve` checks keys."""
        n = self.dataset.n_examples
        known = (index >= 0) & (index < n)
        for row in np.flatnonzero(~known).tolist():
            message = f"index {index[row]} {NO_ROW.format(n - 1)}"
            self.problems.add("unknown key", where(row), message)
        return self.claim(np.where(known, index, -1), where)

    def ids_of(
        self, row: Mapping[str, Any], where: str, names: Collection[str] | None = None
    ) -> list[int] | None:
        """Return the numbers of a row's key, or None after recording that it has none.

        Args:
            row: Under our names.
            where: Its place.
            names: Those of the file, for messages; None where they are ours.
        """
        names = row if names is None else names
        key = []
        for name in self.fields:
            number = whole_number(row.get(name))
            if number is None:
                called = self.renames.called(name)
                reason = f"{called} is {row.get(name)!r:.60}"
                if name not in row:
                    reason = f"no {called}; the row has {', '.join(names) or 'nothing'}"
                fields = " and ".join(map(self.renames.called, self.fields))
                hint = "" if name in row else self.hint(names)
                self.problems.add("bad key", where, f"{reason}; a key is {fields}{hint}")
                return None
            key.append(number)
        return key

    def resolve_rows(self, rows: Iterable[Mapping[str, Any]], where: Where) -> Ints:
        """Return the indices of rows that `form` finds, as `resolve` does."""
        index = [self.find(row, where(k)) for k, row in enumerate(rows)]
        return self.claim(np.array(index, np.int64), where)

    def find(self, row: Mapping[str, Any], where: str) -> int:
        """Return the index of a row that `form` finds, or −1 after recording why there is none; claim nothing."""
        assert self.form is not None
        try:
            return self.form.index_of(row)
        except NotFoundError as error:
            if self.ignores_extra and isinstance(error, AbsentError):
                self.n_extra += 1
                return -1
            extra = EXTRA if isinstance(error, AbsentError) else ""
            self.problems.add("unknown key", where, f"{error}{self._what_fits()}{extra}")
            return -1

    def resolve_any(self, keys: Ints, where: Where) -> Ints:
        """Return the indices of [B] row numbers or of [B, F] keys, as `resolve` does."""
        if keys.ndim == 1:
            return self.resolve_indices(keys, where)
        return self.resolve(list(keys.T), where)

    def check_facts(self, index: Ints, rows: Sequence[Mapping[str, Any]], where: Where) -> Ints:
        """Return the indices with −1 where a row states another fact than the dataset does."""
        index = index.copy()
        for k, row in enumerate(rows):
            if index[k] >= 0 and (differing := difference(self.dataset, int(index[k]), row, row)):
                self.problems.add("bad key", where(k), differing)
                index[k] = -1
        return index

    def where(self, index: int) -> str:
        """Return the place of the prediction that was given for an example."""
        where: Where = self._places[self._batch_of[index]]
        return where(int(self._row_of[index]))

    def lookup(self, columns: Sequence[Ints]) -> Ints:
        """Return the indices of a batch of keys, −1 where a key is unknown; record nothing."""
        return self.dataset.index_of_key(columns)

    def claim(self, index: Ints, where: Where) -> Ints:
        """Mark examples as given; a second prediction for one is a problem and becomes −1."""
        known = np.flatnonzero(index >= 0)
        free = known[~self.given[index[known]]]
        # Of several rows for one example the one written last stays: backwards, that is the first. No sort is needed.
        self._row_of[index[free[::-1]]] = free[::-1]
        taken = free[self._row_of[index[free]] == free]
        self.given[index[taken]] = True
        self._batch_of[index[taken]] = len(self._places)
        self._places.append(where)
        result = np.full(len(index), -1, np.int64)
        result[taken] = index[taken]
        again = known[result[known] < 0]
        if self.may_repeat:
            result[again] = index[again]
            return result
        for row in again.tolist():
            self.add_duplicate(int(index[row]), where(row))
        return result

    def add_duplicate(self, index: int, where: str, how: str = "") -> None:
        """Record a second prediction for an example; `how` says what its mask is."""
        message = f"{self.describe(index)} was already predicted at {self.where(index)}{how}"
        self.problems.add("duplicate", where, message)

    def label(self, index: Ints, values: Sequence[Any], where: Where) -> None:
        """Remember what rows say in `no_target`; a row that says nothing of it changes nothing.

        Args:
            index: [B] example of each row, −1 for a row that was recorded as a problem.
            values: B labels, scores or None.
            where: Place of each row.
        """
        # Nearly always no row says anything.
        if values.count(None) == len(values):
            return
        codes = label_codes(values, self._no_target_threshold)
        for row in np.flatnonzero((codes == UNREADABLE) & (index >= 0)).tolist():
            reason = why_unreadable(values[row], self._no_target_threshold)
            self.problems.add("malformed no_target", where(row), reason)
        for row in np.flatnonzero((codes != UNLABELLED) & (index >= 0)).tolist():
            example, first = int(index[row]), self.labels[index[row]]
            # Only `may_repeat` lets an example come again.
            if first not in (UNLABELLED, codes[row]):
                self.add_duplicate(example, where(row), ", and its no_target is another one here")
            self.labels[example] = codes[row]

    def is_rejected(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row says that its expression has no target, so that it needs no mask."""
        return label_code(row.get(FIELD), self._no_target_threshold) == NO_TARGET

    @property
    def needs_sentences(self) -> bool:
        """Whether each row that is used must carry its sentence, because its key may be that of another dataset."""
        return self.ignores_extra and not isinstance(self.form, BySentence)

    def check_sentences(self, index: Ints, sentences: Sequence[Any], where: Where) -> Ints:
        """Return the indices with −1 where a sentence is another than its example's, or is absent and needed.

        Sentences are compared as `dataset.lookup` compares them. An equal pair, the usual case, is not normalised.
        """
        expected = self.dataset.examples.column("sentence")
        given, index = index.tolist(), index.copy()
        for row, sentence in enumerate(sentences):
            if given[row] < 0:
                continue
            if sentence is None:
                if self.needs_sentences:
                    self.problems.add("no sentence", where(row), NEEDS_SENTENCES)
                    index[row] = -1
                continue
            truth = expected[given[row]].as_py()
            if sentence == truth:
                continue
            if not isinstance(sentence, str) or normal_text(sentence) != normal_text(truth):
                self.problems.add(
                    "wrong sentence",
                    where(row),
                    f"{self.describe(given[row])} is {truth!r} in the dataset, {sentence!r} here"
                    f"{MOVED if self.ignores_extra else ''}",
                )
                index[row] = -1
        return index

    def check_sizes(self, index: Ints, heights: Ints, widths: Ints, where: Where) -> Ints:
        """Return the indices with −1 where a mask has another size than its image."""
        sample = self.dataset.example_sample[index]
        true_h, true_w = self.dataset.heights[sample], self.dataset.widths[sample]
        wrong = (index >= 0) & ((heights != true_h) | (widths != true_w))
        for row in np.flatnonzero(wrong):
            size, expected = (heights[row], widths[row]), (true_h[row], true_w[row])
            hint = "; height and width are swapped" if size == expected[::-1] else ""
            self.problems.add(
                "wrong size",
                where(int(row)),
                f"mask is {size[0]}×{size[1]} (height×width), "
                f"the image is {expected[0]}×{expected[1]}{hint}",
            )
        return np.where(wrong, -1, index)

    def missing(self) -> Ints:
        """Return the indices of the examples that were not given."""
        return np.flatnonzero(~self.given)

    def describe(self, index: int) -> str:
        """Return the key of an example as text for a person."""
        return describe_key(self.fields, self.dataset.key_of(index))

    def _explain_unknown(self, key: tuple[int, ...]) -> str:
        described = describe_key(self.fields, key)
        if len(key) == 2:
            # A sample that is known has a first sentence.
            first = int(self.dataset.index_of(np.array([key[0]]), np.zeros(1, np.int64))[0])
            if first >= 0:
                example_sample = self.dataset.example_sample
                n = int(np.count_nonzero(example_sample == example_sample[first]))
                return f"{described}: that sample has sentences 0 to {n - 1}"
        return f"{described} is not in the dataset"


def refuse_extra(options: ReadOptions) -> None:
    """Refuse `extra=ignore` for predictions that carry no sentences.

    Raises:
        UsageError: It was asked for.
    """
    if options.extra is not None:
        raise UsageError(
            f"arrays, pictures and masks in memory carry no sentence: {NEEDS_SENTENCES}"
        )


def describe_key(fields: Sequence[str], key: Sequence[int]) -> str:
    """Return a key as text, such as `sample_id 7, sentence_idx 0`."""
    return ", ".join(f"{name} {value}" for name, value in zip(fields, key, strict=True))
