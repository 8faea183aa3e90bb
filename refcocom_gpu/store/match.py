"""Two datasets in; for each sample and each example of one its counterpart in the other, or why it has none, out.

The same images and expressions are published with other masks, other ids and fewer sentences: RefCOCO-M keeps 5,598
expressions of the 10,834 of RefCOCO's validation split. Ids and positions say nothing across such sets. Therefore
images are matched by id or file name, the samples of an image by their masks, the sentences of a sample by their text.
What is not certain is not matched.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.dataset.lookup import normal_text
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import DataError
from refcocom_gpu.store.others import MASK_IOU
from refcocom_gpu.store.pairs import BOX_IOU, BOX_MASK_IOU, MARGIN, Pairs
from refcocom_gpu.store.store import MaskStore, as_store
from refcocom_gpu.utils.text import base_name

Ints = NDArray[np.int64]

OUTCOMES = ("matched", "ambiguous", "absent")


class Rule(NamedTuple):
    """What became of a sample or a sentence.

    Attributes:
        outcome: One of `OUTCOMES`.
        meaning: The reason, for a person.
    """

    outcome: str
    meaning: str


SAMPLE_RULES = {
    "mask": Rule("matched", f"one mask of the image overlaps by IoU {MASK_IOU} or more"),
    "box": Rule("matched", f"one mask by {BOX_MASK_IOU} or more, and its box by {BOX_IOU} or more"),
    "several": Rule("ambiguous", f"another mask fits better, or less than {MARGIN} worse"),
    "image conflict": Rule("ambiguous", "the id and the file name of its image name two images"),
    "no mask": Rule("absent", "no mask of the image overlaps enough"),
    "no image": Rule("absent", "the other set lacks its image"),
}
"""Why a sample has a counterpart or none."""

SENTENCE_RULES = {
    "text": Rule("matched", "the text stands once in both samples"),
    "order": Rule("matched", "the text stands equally often in both samples, matched in order"),
    "repeats": Rule("ambiguous", "the text stands more often in one of the two samples"),
    "sample ambiguous": Rule("ambiguous", "its sample is ambiguous"),
    "no text": Rule("absent", "the other sample lacks the text"),
    "sample absent": Rule("absent", "its sample is absent"),
}
"""Why a sentence, which is an example, has a counterpart or none."""


@dataclass(frozen=True, eq=False)
class DatasetMatch:
    """What of one dataset, the target, is in another one, the source.

    Letters: `M` samples and `N` examples of the target.

    Attributes:
        source: Where counterparts are looked for.
        target: Whose samples and examples have or lack counterparts.
        source_sample: [M] int64 row of the counterpart in `source.samples`, −1 for none.
        sample_rule: [M] a key of `SAMPLE_RULES` for each sample.
        source_index: [N] int64 index of the counterpart in the source, −1 for none; none stands twice.
        rule: [N] a key of `SENTENCE_RULES` for each example.
    """

    source: Dataset
    target: Dataset
    source_sample: Ints
    sample_rule: list[str]
    source_index: Ints
    rule: list[str]

    @cached_property
    def target_index(self) -> Ints:
        """The other direction: for each example of the source its index in the target, −1 for none."""
        index = np.full(self.source.n_examples, -1, np.int64)
        matched = np.flatnonzero(self.source_index >= 0)
        index[self.source_index[matched]] = matched
        return index

    @property
    def n_matched(self) -> int:
        """Number of examples that have a counterpart."""
        return int(np.count_nonzero(self.source_index >= 0))

    @property
    def ambiguous(self) -> list[int]:
        """Indices, in the target, of the examples that may have several counterparts."""
        return [
            i for i, rule in enumerate(self.rule) if SENTENCE_RULES[rule].outcome == "ambiguous"
        ]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the numbers of samples and of sentences by rule, without zeros."""
        return {
            "samples": _counted(self.sample_rule, SAMPLE_RULES),
            "sentences": _counted(self.rule, SENTENCE_RULES),
        }

    def check_common(self) -> None:
        """Refuse two datasets of which no example is matched.

        Raises:
            DataError: There is none; the message counts the rules.
        """
        if not self.n_matched:
            raise DataError(
                f"no example of {self.target.source} has a counterpart in {self.source.source}: "
                + ", ".join(f"{n:,} {rule}" for rule, n in self.counts()["sentences"].items())
            )

    def __repr__(self) -> str:
        return (
            f"DatasetMatch({self.n_matched:,} of {self.target.n_examples:,} examples of {self.target.source!r} "
            f"in {self.source.source!r}, {len(self.ambiguous):,} ambiguous)"
        )


def match_datasets(
    source: MaskStore | Dataset | str | Path, target: MaskStore | Dataset | str | Path
) -> DatasetMatch:
    """Find the counterpart of each example of one dataset in another one.

    An image is the same if its id is, or if only the name of its file is known to the other set. A sample is matched
    if each of the two masks fits the other best, by `MARGIN`. Ids of samples and positions of sentences
    are not looked at.

    Args:
        source: The set that is searched: a store, a dataset, or the name or path of one.
        target: The set whose examples are looked for.

    Raises:
        DatasetError: A mask of either is not valid RLE, or an image has another size in one set than in the other.

    >>> match_datasets("sample", "sample")
    DatasetMatch(297 of 297 examples of 'sample' in 'sample', 0 ambiguous)
    """
    source, target = as_store(source), as_store(target)
    first, second = source.dataset, target.dataset
    group_of_source, group_of_target = _groups(first, second)
    sample_group = group_of_target[second.sample_image]
    pairs = Pairs(source, target, group_of_source[first.sample_image], sample_group)
    source_sample, by_mask = pairs.best()
    names = {_NO_IMAGE: "no image", _CONFLICT: "image conflict"}
    sample_rule = [
        names.get(group, rule) for group, rule in zip(sample_group.tolist(), by_mask, strict=True)
    ]
    source_index, rule = _sentences(first, second, source_sample, sample_rule)
    return DatasetMatch(first, second, source_sample, sample_rule, source_index, rule)


def _counted(rules: list[str], known: dict[str, Rule]) -> dict[str, int]:
    numbers = Counter(rules)
    return {name: numbers[name] for name in known if numbers[name]}


_NO_IMAGE, _CONFLICT = -1, -2


def _groups(source: Dataset, target: Dataset) -> tuple[Ints, Ints]:
    """Return a number for each image record of both sets, equal for records of one image.

    A record of the target has `_NO_IMAGE` if the source lacks its image, `_CONFLICT` if it may be one of two.
    """
    ids, of_source = np.unique(source.image_ids, return_inverse=True)
    by_name = _by_name(source, of_source.tolist())
    # A name that stands for several images here cannot tell which one it is there.
    own = _by_name(target, target.image_ids.tolist())
    group_of = dict(zip(ids.tolist(), range(len(ids)), strict=True))
    of_target = []
    for image_id, name in zip(target.image_ids.tolist(), _names(target), strict=True):
        named = by_name.get(name, set()) if len(own.get(name, ())) == 1 else set()
        group = group_of.get(image_id, _NO_IMAGE)
        if named and (group not in named if group >= 0 else len(named) > 1):
            group = _CONFLICT
        elif group < 0 and named:
            (group,) = named
        of_target.append(group)
    return of_source.astype(np.int64), np.array(of_target, np.int64)


def _by_name(dataset: Dataset, groups: list[int]) -> dict[str, set[int]]:
    """Return the numbers of the images that have each file name; records without one have none."""
    found: dict[str, set[int]] = defaultdict(set)
    for name, group in zip(_names(dataset), groups, strict=True):
        if name:
            found[name].add(group)
    return found


def _names(dataset: Dataset) -> list[str]:
    return [base_name(name or "") for name in dataset.images["file_name"].to_pylist()]


def _sentences(
    source: Dataset, target: Dataset, source_sample: Ints, sample_rule: list[str]
) -> tuple[Ints, list[str]]:
    """Return [N] the counterpart of each example of the target, −1 for none, and the rule of each."""
    texts, others = (
        [normal_text(text) for text in dataset.examples["sentence"].to_pylist()]
        for dataset in (source, target)
    )
    index = np.full(target.n_examples, -1, np.int64)
    rules = [""] * target.n_examples
    for sample, counterpart in enumerate(source_sample.tolist()):
        examples = range(*target.first_example[sample : sample + 2].tolist())
        if counterpart < 0:
            outcome = SAMPLE_RULES[sample_rule[sample]].outcome
            for example in examples:
                rules[example] = f"sample {outcome}"
            continue
        candidates = range(*source.first_example[counterpart : counterpart + 2].tolist())
        for own, found in _by_text(others, examples, texts, candidates):
            if not found:
                rule = "no text"
            elif len(own) != len(found):
                rule = "repeats"
            else:
                rule = "text" if len(own) == 1 else "order"
                index[own] = found
            for example in own:
                rules[example] = rule
    return index, rules


def _by_text(
    texts: list[str], examples: range, others: list[str], candidates: range
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield, for each text of some examples, those that have it and the candidates that have it, in order."""
    own: dict[str, list[int]] = defaultdict(list)
    found: dict[str, list[int]] = defaultdict(list)
    for example in examples:
        own[texts[example]].append(example)
    for candidate in candidates:
        found[others[candidate]].append(candidate)
    for text, rows in own.items():
        yield rows, found.get(text, [])
