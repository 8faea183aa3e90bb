"""The sets that papers report scores on, as data: the ways they are split, their published counts, how to get them.

A name of `KNOWN`, or a path, comes in; what to read, the split as the set calls it, and the way in which it is split go
out. The counts were checked against the `sources` of each set. One that could not be is None, and is not checked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from refcocom_gpu.dataset.locate import locate, split_by_of, synonyms_of
from refcocom_gpu.errors import UsageError


class Counts(NamedTuple):
    """How much a split holds; None where no number could be verified.

    Attributes:
        images: Number of images.
        samples: Number of referred instances; of references, in the original sets.
        examples: Number of expressions.
    """

    images: int | None = None
    samples: int | None = None
    examples: int | None = None


@dataclass(frozen=True)
class KnownSet:
    """A set with a name.

    Attributes:
        title: As papers write it.
        splits: For each way to split the images (`split_by`; None where there is one only, without a name), the counts
            of its splits, under the names that the set gives them.
        get: How to get it.
        sources: Where the counts are stated.
        references: What the file of its references is called before the bracket; None if it has no such file.
        hub: Its name on the Hub, if it is read from there.
    """

    title: str
    splits: Mapping[str | None, Mapping[str, Counts]]
    get: str
    sources: tuple[str, ...]
    references: str | None = None
    hub: str | None = None

    def resolve(self, split: str, split_by: str | None) -> tuple[str, str | None]:
        """Find a split.

        Args:
            split: Its name or a synonym, such as `validation` for `val`, in upper or lower case.
            split_by: The way in which the images are split; None where it is not known.

        Returns:
            The split and the way, as the set calls them.

        Raises:
            UsageError: There is no such split, or several ways have one of this name.

        >>> KNOWN["refcocog"].resolve("validation", "umd"), KNOWN["refcoco"].resolve("testa", None)
        (('val', 'umd'), ('testA', 'unc'))
        """
        ways = {by: list(splits) for by, splits in self.splits.items() if split_by in (None, by)}
        if not ways:
            known = " or ".join(str(by) for by in self.splits if by)
            how = f"is split by {known}, not by" if known else "is split in one way, not by"
            raise UsageError(f"{self.title} {how} {split_by!r}")
        fitting = {
            by: name
            for by, names in ways.items()
            for name in names
            if name.lower() == split.lower() or name in synonyms_of(split)
        }
        if not fitting:
            listed = "; ".join(", ".join(n) + (f" ({by})" if by else "") for by, n in ways.items())
            raise UsageError(f"{self.title} has no split {split!r}; its splits are {listed}")
        if len(fitting) > 1:
            choices = " or ".join(f"split_by='{by}'" for by in fitting)
            raise UsageError(f"{self.title} is split in several ways: pass {choices}")
        ((by, name),) = fitting.items()
        return name, by


_REFER_COUNTS = (
    "images, references: github.com/tensorflow/datasets, tensorflow_datasets/vision_language/refcoco/refcoco.py",
    "references: github.com/DerrickWang005/CRIS.pytorch, utils/dataset.py",
)
_REFER_GET = "docs/datasets.md says where its release is; pass path='FOLDER' of it"

KNOWN: dict[str, KnownSet] = {
    "refcoco-m": KnownSet(
        "RefCOCO-M",
        {None: {"validation": Counts(1190, 2080, 5598)}},
        get="it is read from the Hub",
        sources=("the dataset card of moondream/refcoco-m",),
        hub="moondream/refcoco-m",
    ),
    "refcoco": KnownSet(
        "RefCOCO",
        {
            "unc": {
                "train": Counts(16994, 42404, 120624),
                "val": Counts(1500, 3811, 10834),
                "testA": Counts(750, 1975, 5657),
                "testB": Counts(750, 1810, 5095),
            },
            "google": {
                "train": Counts(19213, 40000),
                "val": Counts(4559, 5000),
                "test": Counts(4527, 5000),
            },
        },
        get=_REFER_GET,
        sources=(
            *_REFER_COUNTS,
            "expressions: flageval.baai.ac.cn, docs/en/multimodal/Visual-Grounding",
            "sum of the expressions of val, testA, testB: the card of JierunChen/Ref-L4",
        ),
        references="refs",
    ),
    # Of the expressions, only the sum of val, testA and testB is verified: 21,373, on the card of JierunChen/Ref-L4.
    "refcoco+": KnownSet(
        "RefCOCO+",
        {
            "unc": {
                "train": Counts(16992, 42278),
                "val": Counts(1500, 3805),
                "testA": Counts(750, 1975),
                "testB": Counts(750, 1798),
            },
        },
        get=_REFER_GET,
        sources=_REFER_COUNTS,
        references="refs",
    ),
    "refcocog": KnownSet(
        "RefCOCOg",
        {
            "umd": {
                # 85,408 in train and val, and 14,498 in val and test, of which 9,602 in test.
                "train": Counts(21899, 42226, 80512),
                "val": Counts(1300, 2573, 4896),
                "test": Counts(2600, 5023, 9602),
            },
            "google": {"train": Counts(24698, 44822, 85474), "val": Counts(4650, 5000, 9536)},
        },
        get=_REFER_GET,
        sources=(
            *_REFER_COUNTS,
            "expressions of umd, train with val, and test: github.com/varun-nagaraja/referring-expressions/issues/2",
            "expressions of umd, val with test: the card of JierunChen/Ref-L4",
            "expressions of google: github.com/kdwonn/SaG/issues/4",
        ),
        references="refs",
    ),
    # Its papers and README state totals, over splits that were released at different times.
    "grefcoco": KnownSet(
        "gRefCOCO",
        {"unc": {"train": Counts(), "val": Counts(), "testA": Counts(), "testB": Counts()}},
        get=_REFER_GET,
        sources=(),
        references="grefs",
    ),
}
"""The known sets by their names."""

REFCOCO_M = "refcoco-m"


class Chosen(NamedTuple):
    """What is to be read.

    Attributes:
        name: The known set that it is meant to be; None for any other.
        source: A path, a Hub name, or `sample`.
        split: The split, as a known set calls it.
        split_by: The way in which a known set is split; None where it has one only, without a name.
    """

    name: str | None
    source: str | Path
    split: str
    split_by: str | None


def choose(
    source: str | Path,
    path: str | Path | None,
    split: str,
    split_by: str | None,
    revision: str | None,
) -> Chosen:
    """Say what is to be read, without reading it.

    Args:
        source: As for `load_dataset`.
        path: As for `load_dataset`.
        split: As for `load_dataset`.
        split_by: As for `load_dataset`.
        revision: As for `load_dataset`.

    Raises:
        UsageError: There is no such set, split or way to split it, or several references fit and none is declared.

    >>> choose("refcoco-m", None, "val", None, None)
    Chosen(name='refcoco-m', source='moondream/refcoco-m', split='validation', split_by=None)
    """
    name, source = _named(source, path)
    known = None if name is None else KNOWN[name]
    if known is not None and (split_by is not None or len(known.splits) == 1):
        known.resolve(split, split_by)  # a wrong word is told before a file is looked for
    if known is None and split_by is None:
        return Chosen(None, source, split, None)
    place = locate(source, revision, split_by)
    if place.kind == "refer" and split_by is not None:
        source = place.path  # whatever opens the source again finds the same file
    if known is None:
        if place.kind != "refer":
            raise UsageError(
                f"split_by='{split_by}' chooses references of a release; {source} is none"
            )
        return Chosen(None, source, split, None)
    if place.kind == "refer":
        by = split_by_of(place.path)
        if known.references is None or (by and not place.path.name.startswith(known.references)):
            raise UsageError(f"{place.path} is not of {known.title}{_expected(known)}")
        split_by = by or split_by
    split, split_by = known.resolve(split, split_by)
    return Chosen(name, source, split, split_by)


def counts_of(name: str, split: str, split_by: str | None) -> Counts:
    """Return the published counts of a split; a set of one split has its counts, whatever its files call it.

    >>> counts_of("refcoco", "testA", "unc")
    Counts(images=750, samples=1975, examples=5657)
    """
    splits = KNOWN[name].splits[split_by]
    return next(iter(splits.values())) if len(splits) == 1 else splits[split]


def label_of(name: str, split: str, split_by: str | None) -> str:
    """Return what a message calls a split.

    >>> label_of("refcocog", "val", "umd"), label_of("refcoco-m", "validation", None)
    ('RefCOCOg val (umd)', 'RefCOCO-M')
    """
    title = KNOWN[name].title
    return title if split_by is None else f"{title} {split} ({split_by})"


def _named(source: str | Path, path: str | Path | None) -> tuple[str | None, str | Path]:
    """Return the name of the set that a source is meant to be, and what is to be read."""
    if path is not None:
        if source not in KNOWN:
            raise UsageError(
                f"path= says where a known set lies, and {str(source)!r} is none: {', '.join(KNOWN)}"
            )
        if not _exists(path):
            raise UsageError(f"there is no file or folder {path}")
        return str(source), path
    exists = _exists(source)
    if source in KNOWN:
        known = KNOWN[str(source)]
        if not exists and known.hub is None:
            raise UsageError(f"{known.title} is read from a folder: {known.get}")
        return str(source), source if exists else str(known.hub)
    on_hub = {known.hub: name for name, known in KNOWN.items() if known.hub}
    return (None if exists else on_hub.get(str(source))), source


def _exists(path: str | Path) -> bool:
    return os.path.exists(os.path.expanduser(path))  # noqa: PTH110, PTH111 (Path's raise for odd names)


def _expected(known: KnownSet) -> str:
    if known.references is None:
        return ""
    return f", whose references are called {known.references}(…)"
