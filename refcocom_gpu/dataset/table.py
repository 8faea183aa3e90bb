"""A name or a path in, a `Dataset` out: tables of images, samples and examples; no image byte is read.

Every source (the Hub, Parquet shards, an Arrow folder, JSON lines, the built-in sample) becomes the same flat columns,
and `checks` then treats all alike. torch is never imported, `datasets` only for a Hub name or an Arrow folder.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from refcocom_gpu.dataset.checks import check_columns, check_invalid
from refcocom_gpu.dataset.examples import Examples
from refcocom_gpu.dataset.facts import REFER_IDS
from refcocom_gpu.dataset.known import REFCOCO_M, Counts, choose, counts_of, label_of
from refcocom_gpu.dataset.lookup import Lookup
from refcocom_gpu.dataset.sources import read_source
from refcocom_gpu.errors import UsageError
from refcocom_gpu.masks.rle import Column
from refcocom_gpu.utils.arrow import from_numpy, to_numpy

KeyKind = Literal["sample_id", "image_position"]
KEY_KINDS: tuple[str, ...] = get_args(KeyKind)
INVALID_REFERENCES = ("error", "drop")
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Examples):
    """A referring-segmentation set as three tables, whose rows refer to each other by row number.

    It is a sequence of its examples too: `len(dataset)`, `dataset[17]`, `for example in dataset`.

    Letters: `M` samples, `N` examples, `B` keys in a query.

    Attributes:
        images: `image_id` int64, `file_name` string.
        samples: `sample_id` int64, `image` int64 (row of `images`), `position` int64 (0… within its
            image), `category` string, `supercategory` string, `height` int64, `width` int64,
            `counts` large_binary (COCO compressed RLE string, not yet validated), `label` string,
            `bbox` list<double> (x, y, w, h in pixels as the record states them; null where absent),
            `ref_id` int64 and `ann_id` int64 (of the original sets; null in others), `no_target` bool (its
            expressions refer to nothing in the image, and its mask has no pixel).
        examples: `sample` int64 (row of `samples`), `sentence_idx` int64, `sentence` string, `sent_id` int64
            (of the original sets; null in others).
            Sorted by (sample, sentence_idx), so the examples of a sample are consecutive. The row
            number of an example is its *index*.
        key: How predictions name an example: by `(sample_id, sentence_idx)` or by
            `(image_id, position, sentence_idx)`.
        source: The requested source: a Hub name, a path, or `sample`.
        revision: The resolved commit of a Hub dataset, else None.
        split: Split name.
        fingerprint: 32 hex digits, a hash of the tables without file names, labels, boxes and the ids of the
            original sets, which no score depends on. Equal content from any source has the same fingerprint.
        n_dropped: Number of references that `invalid_references="drop"` left out.
        name: The known set (`known.KNOWN`) that it is meant to be, such as `refcoco`; None for any other.
        split_by: The way in which a known set is split, such as `unc`; None where it has one only, without a name.
    """

    images: pa.Table
    samples: pa.Table
    examples: pa.Table
    key: KeyKind
    source: str
    revision: str | None
    split: str
    fingerprint: str
    n_dropped: int = 0
    name: str | None = None
    split_by: str | None = None

    def __getstate__(self) -> dict[str, Any]:
        # The cached properties are computed again in each worker instead of being sent to it.
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    @property
    def n_images(self) -> int:
        """Number of images."""
        return int(self.images.num_rows)

    @property
    def n_samples(self) -> int:
        """Number of samples, M."""
        return int(self.samples.num_rows)

    @property
    def n_examples(self) -> int:
        """Number of examples, N."""
        return int(self.examples.num_rows)

    @property
    def example_key_fields(self) -> tuple[str, ...]:
        """The fields by which a prediction names its example."""
        if self.key == "sample_id":
            return ("sample_id", "sentence_idx")
        return ("image_id", "position", "sentence_idx")

    @cached_property
    def refer_ids(self) -> tuple[str, ...]:
        """The ids of the original sets that examples carry: some of `facts.REFER_IDS`, in their order."""
        tables = {**dict.fromkeys(("ref_id", "ann_id"), self.samples), "sent_id": self.examples}
        return tuple(
            name for name in REFER_IDS if tables[name][name].null_count < tables[name].num_rows
        )

    @cached_property
    def image_ids(self) -> Ints:
        """`images.image_id`, int64 [images]."""
        return to_numpy(self.images["image_id"])

    @cached_property
    def sample_ids(self) -> Ints:
        """`samples.sample_id`, int64 [M]."""
        return to_numpy(self.samples["sample_id"])

    @cached_property
    def sample_image(self) -> Ints:
        """`samples.image`, int64 [M]."""
        return to_numpy(self.samples["image"])

    @cached_property
    def positions(self) -> Ints:
        """`samples.position`, int64 [M]."""
        return to_numpy(self.samples["position"])

    @cached_property
    def heights(self) -> Ints:
        """`samples.height`, int64 [M], pixels."""
        return to_numpy(self.samples["height"])

    @cached_property
    def widths(self) -> Ints:
        """`samples.width`, int64 [M], pixels."""
        return to_numpy(self.samples["width"])

    @cached_property
    def boxes(self) -> NDArray[np.float64] | None:
        """`samples.bbox`, float64 [M, 4], x, y, w, h in pixels; None unless every record states its box."""
        column = self.samples["bbox"].combine_chunks()
        if column.null_count:
            return None
        return to_numpy(column.flatten()).reshape(-1, 4)

    @cached_property
    def no_target(self) -> NDArray[np.bool_]:
        """`samples.no_target`, bool [M]."""
        return np.array(self.samples["no_target"].to_pylist(), np.bool_)

    @cached_property
    def example_sample(self) -> Ints:
        """`examples.sample`, int64 [N]."""
        return to_numpy(self.examples["sample"])

    @cached_property
    def example_sentence_idx(self) -> Ints:
        """`examples.sentence_idx`, int64 [N]."""
        return to_numpy(self.examples["sentence_idx"])

    @cached_property
    def first_example(self) -> Ints:
        """The index of each sample's first example, int64 [M + 1]; the last entry is N."""
        return np.searchsorted(self.example_sample, np.arange(self.n_samples + 1)).astype(np.int64)

    @cached_property
    def described(self) -> pa.Table:
        """The columns of a result that describe its example: index, sample_id, …, height, width; N rows."""
        # Without `counts`: a copy of the mask for each sentence would take a hundred megabytes.
        names = ("sample_id", "image", "category", "supercategory", "height", "width")
        samples = self.samples.select(names).take(from_numpy(self.example_sample))
        return pa.table(
            {
                "index": from_numpy(np.arange(self.n_examples)),
                "sample_id": samples["sample_id"],
                "sentence_idx": self.examples["sentence_idx"],
                "image_id": self.images["image_id"].take(samples["image"]),
                "sentence": self.examples["sentence"],
                **{name: samples[name] for name in ("category", "supercategory")},
                **{name: samples[name].cast(pa.int32()) for name in ("height", "width")},
            }
        ).combine_chunks()

    @cached_property
    def counts(self) -> Column:
        """`samples.counts` as one buffer: M compressed RLE strings, not yet validated."""
        column = self.samples["counts"].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = column.chunk(0)
        _, offsets, data = column.buffers()
        starts = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
        return Column(np.frombuffer(data, np.uint8)[starts[0] : starts[-1]], starts - starts[0])

    def key_of(self, index: int) -> tuple[int, ...]:
        """Return the key of an example, one number per field of `example_key_fields`."""
        sample = int(self.example_sample[index])
        sentence_idx = int(self.example_sentence_idx[index])
        if self.key == "sample_id":
            return int(self.sample_ids[sample]), sentence_idx
        image = int(self.image_ids[self.sample_image[sample]])
        return image, int(self.positions[sample]), sentence_idx

    @property
    def counts_as_published(self) -> bool | None:
        """Whether the sizes are the published ones of this split; None where none is known."""
        if self.name is None or not any(counts_of(self.name, self.split, self.split_by)):
            return None
        return self.published_difference() is None

    def published_difference(self) -> str | None:
        """Say in one line how the sizes differ from the published ones; None if they do not, or none is known."""
        if self.name is None:
            return None
        label = label_of(self.name, self.split, self.split_by)
        published = counts_of(self.name, self.split, self.split_by)
        sizes = Counts(self.n_images, self.n_samples, self.n_examples)
        differing = [
            f"{size:,} {what} where {label} has {number:,}"
            for what, size, number in zip(Counts._fields, sizes, published, strict=True)
            if number is not None and size != number
        ]
        dropped = f" ({self.n_dropped:,} references were dropped)" if self.n_dropped else ""
        return f"{self.source}: {', '.join(differing)}{dropped}" if differing else None

    def index_of_key(self, columns: Sequence[Ints]) -> Ints:
        """Find the index of each key.

        Args:
            columns: An int64 [B] for each of `example_key_fields`.

        Returns:
            int64 [B], a row number of `examples`, or -1 where there is no such example.
        """
        if self.key == "sample_id":
            return self.index_of(*columns)
        return self.index_of_position(*columns)

    def find(
        self,
        sentence: str,
        *,
        sample_id: int | None = None,
        image_id: int | None = None,
        file_name: str | None = None,
    ) -> int:
        """Find an example by its sentence and one of the others.

        Args:
            sentence: Compared after Unicode normalisation (NFC) and without spaces at its ends.
            sample_id: Of its sample.
            image_id: Of its image.
            file_name: Of the picture of its image, with or without folders.

        Returns:
            The index of the example.

        Raises:
            NotFoundError: No example fits, or several do, which are listed.
            UsageError: Not exactly one of the others is given.
        """
        holders = {"sample_id": sample_id, "image_id": image_id, "file_name": file_name}
        given = {name: value for name, value in holders.items() if value is not None}
        if len(given) != 1:
            raise UsageError(f"find takes one of {', '.join(holders)} beside the sentence")
        ((holder, value),) = given.items()
        return self.lookup.index(holder, value, sentence)

    @cached_property
    def lookup(self) -> Lookup:
        """Finds examples by their sentence."""
        return Lookup(self.images, self.samples, self.examples, self.describe)

    def fact(self, index: int, name: str) -> Any:
        """Return what is known of an example by one of the names that `facts.FACTS` lists; None where it is not."""
        sample = int(self.example_sample[index])
        if name in ("sentence_idx", "sentence", "sent_id"):
            return self.examples[name][index].as_py()
        if name in ("image_id", "file_name"):
            return self.images[name][int(self.sample_image[sample])].as_py()
        return self.samples[name][sample].as_py()

    def describe(self, index: int) -> str:
        """Return the key of an example as text, such as `sample_id 7, sentence_idx 0`."""
        named = zip(self.example_key_fields, self.key_of(index), strict=True)
        return ", ".join(f"{name} {number}" for name, number in named)

    def index_of(self, sample_id: ArrayLike, sentence_idx: ArrayLike) -> Ints:
        """Find the index of each `(sample_id, sentence_idx)`.

        Args:
            sample_id: B whole numbers.
            sentence_idx: B whole numbers.

        Returns:
            int64 [B], a row number of `examples`, or -1 where there is no such example.

        Raises:
            UsageError: The dataset is keyed by image and position; its sample ids may repeat.
        """
        if self.key != "sample_id":
            raise UsageError(
                "this dataset is keyed by (image_id, position, sentence_idx); use index_of_position"
            )
        sample = _rows(*self._by_sample_id, np.atleast_1d(np.asarray(sample_id, np.int64)))
        return _nth(self.first_example, sample, np.atleast_1d(np.asarray(sentence_idx, np.int64)))

    def index_of_position(self, image_id: Ints, position: Ints, sentence_idx: Ints) -> Ints:
        """Find the index of each `(image_id, position, sentence_idx)`.

        Args:
            image_id: int64 [B].
            position: int64 [B], 0… within the image.
            sentence_idx: int64 [B].

        Returns:
            int64 [B], a row number of `examples`, or -1 where there is no such example.

        Raises:
            UsageError: The dataset is keyed by sample id; its image ids may repeat.
        """
        if self.key != "image_position":
            raise UsageError("this dataset is keyed by (sample_id, sentence_idx); use index_of")
        image = _rows(*self._by_image_id, image_id)
        first_sample = np.searchsorted(self.sample_image, np.arange(self.n_images + 1))
        sample = _nth(first_sample, image, position)
        return _nth(self.first_example, sample, sentence_idx)

    @cached_property
    def _by_sample_id(self) -> tuple[Ints, Ints]:
        order = np.argsort(self.sample_ids, kind="stable")
        return order, self.sample_ids[order]

    @cached_property
    def _by_image_id(self) -> tuple[Ints, Ints]:
        order = np.argsort(self.image_ids, kind="stable")
        return order, self.image_ids[order]


def load_dataset(
    source: str | Path = "moondream/refcoco-m",
    *,
    path: str | Path | None = None,
    revision: str | None = None,
    split: str = "validation",
    split_by: str | None = None,
    key: KeyKind = "sample_id",
    cache: bool | str | Path = True,
    invalid_references: str = "error",
) -> Dataset:
    """Load a referring-segmentation set; no image byte is read.

    Args:
        source: A path, if it exists: a folder of Parquet shards however it was downloaded, one
            Parquet file, a folder that `save_to_disk` wrote, a `.jsonl` or `.json` file of records,
            one per line, or a release of the original sets or of gRefCOCO. Otherwise `"sample"`, the built-in
            sample, a Hub name `owner/name`, or a known set: `"refcoco"`, `"refcoco+"`, `"refcocog"`, `"grefcoco"`,
            `"refcoco-m"`. The splits of a known set are checked, and its counts against the published ones.
        path: Where a known set lies: any path that `source` takes. By default, a path of its name, or the Hub.
        revision: Branch, tag or commit of a Hub dataset; for a snapshot folder, the commit that it
            must hold.
        split: The split to load where the source has several.
        split_by: Who split the images, where a release or a known set is split in several ways: `"unc"`, `"umd"`
            or `"google"`.
        key: How predictions name an example: by sample id, which must then be unique, or by image
            id and position, for sets whose sample ids repeat.
        cache: Where the columns of JSON lines are kept, so that they are parsed once: True for the
            user's cache folder, a path for another folder, False for nowhere.
        invalid_references: What becomes of references of the original sets, a release or a copy, that
            have no sentence, or whose polygons cover no pixel of their image: `error`, or `drop` to go
            on without them, which warns and counts them.

    Returns:
        The dataset, checked.

    Raises:
        UsageError: There is no such source, split or revision, or an option is unknown.
        DatasetError: The records are malformed or invalid or their ids repeat, or the Hub cannot be reached.

    Examples:
        >>> import json, tempfile
        >>> mask = {"size": [2, 3], "counts": "06"}
        >>> sample = {"id": 5, "sentences": ["the dog", "dog"], "mask": mask}
        >>> path = Path(tempfile.mkdtemp()) / "tiny.jsonl"
        >>> _ = path.write_text(json.dumps({"image_id": 7, "samples": [sample]}))
        >>> dataset = load_dataset(path)
        >>> dataset.n_examples, dataset.index_of(np.array([5, 5, 6]), np.array([1, 2, 0])).tolist()
        (2, [1, -1, -1])
    """
    if key not in KEY_KINDS:
        raise UsageError(f"key={key!r}: expected one of {', '.join(KEY_KINDS)}")
    if invalid_references not in INVALID_REFERENCES:
        raise UsageError(
            f"invalid_references must be {' or '.join(INVALID_REFERENCES)}, not {invalid_references!r}"
        )
    chosen = choose(source, path, split, split_by, revision)
    where = str(chosen.source)
    columns, commit, is_published, invalid = read_source(
        chosen.source, revision, chosen.split, cache
    )
    check_invalid(invalid, invalid_references, where)
    unique = "sample_id" if key == "sample_id" else "image_id"
    images, samples, examples, fingerprint = check_columns(columns, unique, where)
    name = chosen.name
    if name is None:
        # RefCOCO-M is known without a name too: by where it was found, or by its counts in files of any form.
        sizes = Counts(images.num_rows, samples.num_rows, examples.num_rows)
        is_it = is_published or sizes == counts_of(REFCOCO_M, chosen.split, None)
        name = REFCOCO_M if is_it else None
    dataset = Dataset(
        images, samples, examples, key, where, commit, chosen.split, fingerprint, invalid.n, name,
        chosen.split_by,
    )  # fmt: skip
    if difference := dataset.published_difference():
        warnings.warn(difference, UserWarning, stacklevel=2)
    return dataset


def _rows(order: Ints, ordered: Ints, wanted: Ints) -> Ints:
    """Find the row of each wanted id, int64 [B], or -1 where it is unknown; `ordered` is `ids[order]`."""
    place = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return np.where(ordered[place] == wanted, order[place], -1)


def _nth(first: Ints, group: Ints, position: Ints) -> Ints:
    """Find `first[group] + position`, int64 [B], or -1 where the group is -1 or has no such position."""
    start = first[group]
    inside = (group >= 0) & (position >= 0) & (position < first[group + 1] - start)
    return np.where(inside, start + position, -1)
