"""Decisions in; Parquet shards in RefCOCO-M's published features out, which `load_dataset` reads.

The same decisions and pictures give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from refcocom_gpu.construct.boxes import tight_box
from refcocom_gpu.construct.keep import Decision
from refcocom_gpu.construct.pictures import Pictures
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.masks import rle
from refcocom_gpu.utils.files import PARQUET, sync
from refcocom_gpu.utils.text import base_name

ROW_GROUP = 100
"""Images written at a time: about 50 MB of pictures are in memory, and a reader can seek."""


@dataclass(frozen=True)
class Output:
    """Where and how a refined set is written.

    Attributes:
        folder: Created where absent.
        pictures: One of `pictures.PICTURES`.
        shard_bytes: Size of the pictures and masks at which a Parquet shard ends.
        config: Content of `config.yaml`, the keys of the command that constructs.
    """

    folder: str | Path
    pictures: str = "auto"
    shard_bytes: int = 500_000_000
    config: bytes | None = None


def schema() -> pa.Schema:
    """The published features as an Arrow schema, with the metadata by which `datasets` recognizes pictures."""
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
    dataset: Dataset,
    decisions: Sequence[Sequence[Decision]],
    pictures: Pictures,
    output: Output,
) -> list[Path]:
    """Write the samples that stay.

    Args:
        folder: Where `{split}-00000-of-0000n.parquet` are written; it must exist.
        dataset: The original set.
        decisions: For each image, one for each of its samples. An image whose samples are all removed is left out.
        pictures: The pictures, and how they are written.
        output: When a shard ends.

    Returns:
        The shards.

    Raises:
        DatasetError: A picture is no longer there.
    """
    layout = schema()
    shards: list[Path] = []
    groups = _row_groups(dataset, decisions, pictures, output)
    group = next(groups, None)
    # An empty dataset is one shard without rows; otherwise no shard is empty.
    while group is not None or not shards:
        path = folder / f"{dataset.split}-{len(shards):05}.parquet"
        shards.append(path)
        with pq.ParquetWriter(path, layout, **PARQUET) as writer:
            while group is not None:
                writer.write_table(pa.Table.from_pylist(group.records, schema=layout))
                ends_shard = group.ends_shard
                group = next(groups, None)
                if ends_shard:
                    break
        sync(path)
    # The number of shards is known only now.
    total = f"of-{len(shards):05}"
    return [path.rename(path.with_name(f"{path.stem}-{total}.parquet")) for path in shards]


class _RowGroup(NamedTuple):
    records: list[dict[str, Any]]
    ends_shard: bool


def _row_groups(
    dataset: Dataset,
    decisions: Sequence[Sequence[Decision]],
    pictures: Pictures,
    output: Output,
) -> Iterator[_RowGroup]:
    """The records of the images that stay, in groups; a picture is read when its group is made."""
    records: list[dict[str, Any]] = []
    shard_bytes = 0
    for row, of_image in enumerate(decisions):
        if all(decision.cause for decision in of_image):
            continue
        record, size = _record(dataset, row, of_image, pictures)
        records.append(record)
        shard_bytes += size
        ends_shard = shard_bytes >= output.shard_bytes
        if ends_shard or len(records) == ROW_GROUP:
            yield _RowGroup(records, ends_shard)
            records = []
        if ends_shard:
            shard_bytes = 0
    if records:
        yield _RowGroup(records, True)


def _record(
    dataset: Dataset,
    row: int,
    decisions: Sequence[Decision],
    pictures: Pictures,
) -> tuple[dict[str, Any], int]:
    """One image record, and about how many bytes it needs."""
    image_id = int(dataset.image_ids[row])
    samples = [_sample(dataset, image_id, decision) for decision in decisions if not decision.cause]
    picture: dict[str, Any] | None = None
    size = sum(len(sample["mask"]["counts"]) for sample in samples)
    name = dataset.images["file_name"][row].as_py()
    images = pictures.images
    if images is not None and pictures.can_be_held(row):
        content = images.encoded(row) if pictures.held_as == "embed" else None
        size += len(content or b"")
        path = str(images.path(row)) if content is None else base_name(name) or None
        picture = {"bytes": content, "path": path}
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
