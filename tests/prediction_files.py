"""The sample's predictions as text and bytes of every kind of file, for the tests of what files may hold."""

import bz2
import gzip
import io
import json
import lzma

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
from helpers import problems_of, sample_case
from PIL import Image

CASE = sample_case()
STORE, DATASET = CASE.store, CASE.dataset
N = len(CASE.masks)
HEADER = {"schema": "refcocom-predictions", "version": 1, "dataset": DATASET.fingerprint}

BOM = b"\xef\xbb\xbf"


def lines(end: str = "\n", rows: list | None = None) -> bytes:
    return "".join(json.dumps(row) + end for row in rows or CASE.rows()).encode()


def array(**how) -> bytes:
    return json.dumps(CASE.rows(), **how).encode()


def only_problem(path, **options):
    """The one thing that is wrong beside that predictions are missing."""
    (problem,) = problems_of(path, STORE, missing="zero", **options).problems
    assert problem.where.startswith(str(path))
    return problem


TEXTS = {
    "lines": lines(),
    "BOM and CRLF": BOM + lines("\r\n", [HEADER, *CASE.rows()]),
    "array": array(),
    "array, indented, with BOM and CRLF": BOM + array(indent=1).replace(b"\n", b"\r\n"),
    "array after blank lines": b" \r\n\n" + array() + b"\n\n",
}

COMPRESS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


def png(mask: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


MASKS = dict(zip(CASE.names(), CASE.masks, strict=True))
MEMBERS = {f"masks/{name}.png": png(mask) for name, mask in MASKS.items()}
FIRST = next(iter(MEMBERS))


def write_ipc(path, given: pa.Table, *, stream: bool, rows: int = 50, **options):
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(path, given.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(given, max_chunksize=rows)
    return path
