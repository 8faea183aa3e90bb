"""Decisions in, a dataset in RefCOCO-M's published features out: Parquet shards that `load_dataset` reads.

The same decisions and pictures give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from refcocom_gpu.construct.boxes import tight_box
from refcocom_gpu.construct.keep import Decision
from refcocom_gpu.dataset.images import Images
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import UsageError
from refcocom_gpu.masks import rle

PICTURES = ("embed", "path", "none")
"""Where the pictures of a written dataset are: in it, as paths to their files, nowhere."""

ROW_GROUP = 100
"""Images written at a time: some 50 MB of pictures are held, and a reader can seek."""


def schema() -> pa.Schema:
    """The published features as Arrow, with the words by which `datasets` knows a picture."""
    import datasets

    text, number = datasets.Value("string"), datasets.Value("int64")
    sample = {
        "id": number,
        "image_id": number,
        "category": text,
        "supercategory": text,
        "label": text,
        "sentences": [text],
        "bbox": [datasets.Value("float64")],
        "mask": {"counts": text, "size": [number]},
    }
    return datasets.Features(
        {"image": datasets.Image(), "image_id": number, "file_name": text, "samples": [sample]}
    ).arrow_schema


def write_dataset(
    folder: Path,
    split: str,
    dataset: Dataset,
    decisions: Sequence[Sequence[Decision]],
    images: Images | None,
    *,
    pictures: str = "embed",
    shard_bytes: int = 500_000_000,
) -> list[Path]:
    """Write what stays.

    Args:
        folder: Where `{split}-00000-of-0000n.parquet` are written; it must be there.
        split: Name of the split.
        dataset: The original set.
        decisions: For each image, about each of its samples. An image without one that stays is left out.
        images: The pictures; None only with `pictures="none"`.
        pictures: One of `PICTURES`.
        shard_bytes: Size of the pictures and masks at which a shard ends.

    Returns:
        The shards.

    Raises:
        UsageError: For pictures that are not known, or asked for by path where they are no files.
        DatasetError: A picture is not there any more.
    """
    layout = schema()
    shards: list[Path] = []
    for rows in _shards(dataset, decisions, images, pictures, shard_bytes):
        path = folder / f"{split}-{len(shards):05}.parquet"
        with pq.ParquetWriter(path, layout, compression="zstd") as writer:
            for group in rows:
                writer.write_table(pa.Table.from_pylist(group, schema=layout))
        shards.append(path)
    # How many there are is known when the last is written.
    total = f"of-{len(shards):05}"
    return [path.rename(path.with_name(f"{path.stem}-{total}.parquet")) for path in shards]


def check_pictures(pictures: str, images: Images | None) -> None:
    """Refuse before any work what `write_dataset` would refuse after it.

    Raises:
        UsageError: As `write_dataset` does.
    """
    if pictures not in PICTURES:
        raise UsageError(f"pictures must be {', '.join(PICTURES)}, not {pictures!r}")
    if pictures != "none" and images is None:
        raise UsageError(
            f"pictures={pictures} needs the pictures; pass the folder that holds them as images=DIR, or pictures=none"
        )
    if pictures == "path" and images is not None and len(images) and images.path(0) is None:
        raise UsageError(
            "pictures=path needs pictures that are files; pass the folder that holds them as images=DIR"
        )


def _shards(
    dataset: Dataset,
    decisions: Sequence[Sequence[Decision]],
    images: Images | None,
    pictures: str,
    shard_bytes: int,
) -> Iterator[Iterator[list[dict[str, Any]]]]:
    """Row groups of each shard; a picture is read when it is written."""
    kept = iter(
        [row for row, of_image in enumerate(decisions) if any(not d.cause for d in of_image)]
    )
    ended = False

    def groups() -> Iterator[list[dict[str, Any]]]:
        nonlocal ended
        group: list[dict[str, Any]] = []
        used = 0
        for row in kept:
            record, size = _record(dataset, row, decisions[row], images, pictures)
            group.append(record)
            used += size
            if len(group) == ROW_GROUP or used >= shard_bytes:
                yield group
                group = []
            if used >= shard_bytes:
                return
        ended = True
        if group:
            yield group

    first = True
    while not ended:
        shard = groups()
        head = next(shard, None)
        # An empty dataset is one shard without rows; otherwise no shard is empty.
        if head is None and not first:
            return
        first = False
        yield _chain(head, shard)


def _chain(head: Any, rest: Iterator[Any]) -> Iterator[Any]:
    if head is not None:
        yield head
    yield from rest


def _record(
    dataset: Dataset,
    row: int,
    decisions: Sequence[Decision],
    images: Images | None,
    pictures: str,
) -> tuple[dict[str, Any], int]:
    """One image record, and about how many bytes it takes."""
    image_id = int(dataset.image_ids[row])
    samples = [_sample(dataset, image_id, decision) for decision in decisions if not decision.cause]
    picture: dict[str, Any] | None = None
    size = sum(len(sample["mask"]["counts"]) for sample in samples)
    name = dataset.images["file_name"][row].as_py()
    if images is not None and pictures == "embed":
        content = images.encoded(row)
        size += len(content)
        picture = {"bytes": content, "path": Path(name).name or None}
    elif images is not None and pictures == "path":
        picture = {"bytes": None, "path": str(images.path(row))}
    return {"image": picture, "image_id": image_id, "file_name": name, "samples": samples}, size


def _sample(dataset: Dataset, image_id: int, decision: Decision) -> dict[str, Any]:
    sample = decision.measured.sample
    described = {
        name: dataset.samples[name][sample].as_py() for name in dataset.samples.column_names
    }
    size = [int(dataset.heights[sample]), int(dataset.widths[sample])]
    mask = {"size": size, "counts": decision.measured.counts.decode()}
    first, last = dataset.first_example[sample : sample + 2].tolist()
    sentences = dataset.examples["sentence"].slice(first, last - first).to_pylist()
    return {
        "id": described["sample_id"],
        "image_id": image_id,
        "category": described["category"],
        "supercategory": described["supercategory"],
        "label": described.get("label", ""),
        "sentences": [
            text
            for text, (cause, _) in zip(sentences, decision.sentences, strict=True)
            if not cause
        ],
        "bbox": list(tight_box(rle.decode(mask))),
        "mask": mask,
    }
