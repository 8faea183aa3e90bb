"""Bytes read and peak memory when loading a data set with and without projecting its columns.

A synthetic set as large as RefCOCO-M (two shards, about 600 MB, nearly all of it pictures) is loaded in fresh
processes: by `load_dataset`, and by reading every column before selecting.

Run: `python -m benchmarks.projection`.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from refcocom_gpu.dataset.table import PUBLISHED, load_dataset

IMAGE_BYTES = 512_000
"""610 MB over 1,190 images; random, as JPEG bytes do not compress either."""

REPEATS = 5


def make_rle(rng: np.random.Generator, height: int, width: int) -> str:
    """A valid mask of columns with one run each, about 1,400 characters on average."""
    columns = int(rng.integers(width // 2, width))
    tops = rng.integers(1, height // 3, columns)
    lengths = rng.integers(1, height // 3, columns)
    starts = tops + np.arange(columns) * height
    edges = np.column_stack([starts, starts + lengths]).ravel()
    runs = np.diff(np.concatenate([[0], edges, [height * width]])).tolist()
    counts: bytes = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)[
        "counts"
    ]
    return counts.decode()


def share(total: int, among: int) -> list[int]:
    """`total` in `among` parts that differ by at most one."""
    return [(total * (i + 1)) // among - (total * i) // among for i in range(among)]


def make_set(folder: Path, seed: int = 0) -> int:
    """Write the shards; return their size in bytes."""
    rng = np.random.default_rng(seed)
    per_sample = iter(share(PUBLISHED["examples"], PUBLISHED["samples"]))
    records = []
    for i, n_samples in enumerate(share(PUBLISHED["samples"], PUBLISHED["images"])):
        height, width = int(rng.integers(300, 640)), int(rng.integers(300, 640))
        samples = []
        for k in range(n_samples):
            sample = {
                "id": 4 * i + k,
                "image_id": i,
                "category": "cow",
                "supercategory": "animal",
                "label": "cow",
            }
            sample["sentences"] = [
                f"the cow number {j} of image {i}" for j in range(next(per_sample))
            ]
            sample["bbox"] = rng.random(4).tolist()
            sample["mask"] = {"counts": make_rle(rng, height, width), "size": [height, width]}
            samples.append(sample)
        image = {"bytes": rng.bytes(IMAGE_BYTES), "path": f"{i}.jpg"}
        records.append({"image": image, "image_id": i, "file_name": f"{i}.jpg", "samples": samples})
    for shard, part in enumerate((records[:600], records[600:])):
        path = folder / f"validation-{shard:05}-of-00002.parquet"
        pq.write_table(pa.Table.from_pylist(part), path, row_group_size=100)
    return sum(path.stat().st_size for path in folder.iterdir())


def projected(folder: Path) -> int:
    """Load as this package does."""
    return load_dataset(folder).n_samples


def everything(folder: Path) -> int:
    """Load every column, then select: the usual way."""
    tables = [pq.ParquetFile(path).read() for path in sorted(folder.iterdir())]
    return int(pa.concat_tables(tables).select(["image_id", "file_name", "samples"]).num_rows)


WAYS: dict[str, Callable[[Path], int]] = {"projected": projected, "everything": everything}


def bytes_and_peak() -> NDArray[np.int64]:
    """Bytes that this process has read, from the page cache or the disk, and its peak memory in bytes."""
    read = int(Path("/proc/self/io").read_text().split()[1])
    # Not `ru_maxrss`, which starts at the value of the parent process.
    peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
    return np.array([read, int(peak) * 1024])


def measure(way: str, folder: Path) -> None:
    """In a child process, run one way once and print bytes read, peak memory, memory added and seconds."""
    pa.scalar(1)  # the first one imports pandas, which is not to be measured
    read, memory = bytes_and_peak()
    start = time.perf_counter()
    WAYS[way](folder)
    seconds = time.perf_counter() - start
    after = bytes_and_peak()
    print(json.dumps([int(after[0] - read), int(after[1]), int(after[1] - memory), seconds]))


def main() -> None:
    """Make the set, measure both ways in turn, print the table."""
    with tempfile.TemporaryDirectory() as name:
        size = make_set(Path(name))
        rows: dict[str, list[list[float]]] = {way: [] for way in WAYS}
        for _ in range(REPEATS):
            for way in WAYS:
                command = [sys.executable, "-m", "benchmarks.projection", way, name]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                rows[way].append(json.loads(done.stdout))
        metadata = [pq.ParquetFile(path).metadata for path in Path(name).iterdir()]
        groups = [file.row_group(g) for file in metadata for g in range(file.num_row_groups)]
        columns = [group.column(i) for group in groups for i in range(group.num_columns)]
        pictures = [
            c.total_compressed_size for c in columns if c.path_in_schema.startswith("image.")
        ]
        rest = sum(c.total_compressed_size for c in columns) - sum(pictures)
        loaded = load_dataset(name)
    medians = {way: np.median(np.array(rows[way]), axis=0) for way in WAYS}
    print(
        f"{loaded.n_images:,} images, {loaded.n_samples:,} samples, {loaded.n_examples:,} examples; {size:,} bytes"
    )
    print(
        f"of which pictures {sum(pictures):,}, all other columns {rest:,}; medians of {REPEATS} fresh processes"
    )
    print(f"{'':12}{'bytes read':>14}{'peak memory':>14}{'of it added':>14}{'seconds':>9}")
    for way, (read, peak, added, seconds) in medians.items():
        megabytes = f"{peak / 1e6:11.1f} MB{added / 1e6:11.1f} MB"
        print(f"{way:12}{read:14,.0f}{megabytes}{seconds:9.3f}")
    ratios = medians["everything"] / medians["projected"]
    print(f"{'ratio':12}{ratios[0]:14.1f}{ratios[1]:14.1f}{ratios[2]:14.1f}{ratios[3]:9.1f}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
