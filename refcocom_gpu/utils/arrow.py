"""NumPy arrays in, Arrow columns out, and back: memory is shared, and pandas is not imported.

Where pandas is installed, pyarrow imports it at the first `pa.array` or `to_numpy` of a process. That takes 0.3 s of a
command that needs one second in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
from numpy.typing import NDArray


def reader_of(content: bytes) -> pa.BufferReader:
    """Return bytes as a file that Arrow's threads may read, in memory of Arrow's own.

    A reader of a Python object lets go of it on whatever thread is the last to use it. If that is one of Arrow's while
    the interpreter is ending, as after an error of a command, the process dies by SIGABRT: one in some twenty did.

    >>> reader_of(b"abc").read()
    b'abc'
    """
    buffer = pa.allocate_buffer(len(content))
    np.frombuffer(buffer, np.uint8)[:] = np.frombuffer(content, np.uint8)
    return pa.BufferReader(buffer)


def from_numpy(array: NDArray[Any]) -> pa.Array:
    """Return integers as a column of the same width, without nulls.

    >>> from_numpy(np.array([3, 4], np.int32)).type
    DataType(int32)
    """
    array = np.ascontiguousarray(array)
    kind = pa.from_numpy_dtype(array.dtype)
    return pa.Array.from_buffers(kind, len(array), [None, pa.py_buffer(array)])


def from_list(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return int64, bool, string or large_binary without nulls, or lists of floats with them, as `pa.array` does.

    Raises:
        OverflowError: A number needs more than 64 bits.

    >>> from_list(["a", "é"], pa.string()).to_pylist(), from_list([[0.5], None], pa.list_(pa.float64())).to_pylist()
    (['a', 'é'], [[0.5], None])
    """
    n = len(values)
    if kind == pa.int64():
        return from_numpy(np.array(values, np.int64))
    if kind == pa.bool_():
        return pa.Array.from_buffers(kind, n, [None, _bits(values)])
    if pa.types.is_list(kind):
        lists = [value or () for value in values]
        inner = from_numpy(np.array([x for value in lists for x in value], np.float64))
        buffers = [_bits([value is not None for value in values]), _offsets(lists)]
        return pa.Array.from_buffers(kind, n, buffers, children=[inner])
    content = b"".join(
        strings := [value.encode() if isinstance(value, str) else value for value in values]
    )
    if kind == pa.string() and len(content) > np.iinfo(np.int32).max:
        return pa.array(values, kind)  # in several chunks
    wide = np.int32 if kind == pa.string() else np.int64
    return pa.Array.from_buffers(kind, n, [None, _offsets(strings, wide), pa.py_buffer(content)])


def _bits(values: Sequence[bool]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(np.array(values, np.bool_), bitorder="little"))


def _offsets(parts: Sequence[Sequence[Any]], kind: type = np.int32) -> pa.Buffer:
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    return pa.py_buffer(np.concatenate([[0], np.cumsum(lengths)]).astype(kind))


def to_numpy(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """Return a column of numbers or booleans as an array, read-only where memory is shared.

    Raises:
        ValueError: The column holds a null.

    >>> to_numpy(pa.chunked_array([[1], [2, 3]])), to_numpy(pa.array([True, False]))
    (array([1, 2, 3]), array([ True, False]))
    """
    if column.null_count:
        raise ValueError(f"a column of {column.type} holds {column.null_count} nulls")
    if isinstance(column, pa.ChunkedArray):
        # Nearly every column has one chunk, which is not copied.
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if pa.types.is_boolean(column.type):
        # Arrow stores a boolean as a bit, NumPy as a byte.
        return to_numpy(column.cast(pa.uint8())).view(np.bool_)
    dtype = np.dtype(column.type.to_pandas_dtype())
    buffer = column.buffers()[1]
    if buffer is None:
        return np.zeros(0, dtype)
    return np.frombuffer(buffer, dtype, len(column), column.offset * dtype.itemsize)


def filled(column: pa.Array, value: Any) -> pa.Array:
    """Replace the nulls of a column; return the column itself where it has none, as nearly always."""
    return pc.fill_null(column, value) if column.null_count else column


def open_ipc(path: Path) -> Any:
    """Open a file of Arrow's IPC format, mapped into memory: one of random access (Feather) or a stream.

    Raises:
        pa.ArrowException: It is neither.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        begins = file.read(6)
    if not begins:
        raise pa.ArrowInvalid("the file is empty")
    if begins.startswith(b"FEA1"):
        raise pa.ArrowInvalid("this is version 1 of Feather; write version 2")
    mapped = pa.memory_map(str(path))
    return (pa.ipc.open_file if begins == b"ARROW1" else pa.ipc.open_stream)(mapped)
