"""A pickle of results (detectron2, MMDetection) in, plain objects and NumPy arrays out; nothing in it is executed.

A pickle names functions and calls them. Here every name is looked up in a short list, and what it stands for is written
below: no function of NumPy or of the standard library is called with what the file says, apart from `OrderedDict`,
`set` and `frozenset`. NumPy's own functions are not safe to call so, because a crafted dtype can declare an object
array to be numbers, which makes NumPy take bytes of the file for addresses.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import DataError
from refcocom_gpu.utils.files import regular
from refcocom_gpu.utils.text import first_line

KINDS = "biufcSU"
"""Kinds of values that an array may hold: numbers and text. Objects are none of them."""

READ = "a pickle is read only if it holds plain containers, numbers, text, bytes and NumPy arrays of numbers or text"


def load(source: str | Path | bytes) -> Any:
    """Return what a pickle holds, if it is plain.

    Written by MMDetection 2 (`tools/test.py --out`): a list with one entry per image, `(boxes, masks)`, each a list per
    class: [K, 5] arrays of x, y, x, y, score, and K RLE objects. Detectron2's evaluators collect one dict per image
    with `instances`, a list of {category_id, score, segmentation}. `combine_masks` makes one prediction of the masks of
    one expression. MMDetection 3 (`DumpDetResults`) keeps scores as torch tensors, and detectron2 saves with
    `torch.save`: these are refused; store `tensor.numpy()`, or take `coco_instances_results.json`
    (open-mmlab/mmdetection, `mmdet/evaluation/metrics/dump_det_results.py`; facebookresearch/detectron2,
    `detectron2/evaluation/coco_evaluation.py`).

    Args:
        source: Path of the file, or its bytes. Pickles of Python 2 are refused where they hold text that is not ASCII.

    Returns:
        dicts, lists, tuples, sets, numbers, text, bytes, None and arrays.

    Raises:
        DataError: It names anything else, is damaged, or cannot be read; the message says the name.

    >>> load(pickle.dumps([{"score": np.float32(0.5), "masks": np.eye(2, dtype=bool)}]))[0]["masks"]
    array([[ True, False],
           [False,  True]])
    >>> load(pickle.dumps(print))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    refcocom_gpu.errors.DataError: the pickle: names builtins.print, which is refused: ...
    """
    where = "the pickle" if isinstance(source, bytes) else str(source)
    try:
        content = source if isinstance(source, bytes) else regular(Path(source)).read_bytes()
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror or error}") from None
    if content.startswith(b"PK\x03\x04"):
        raise DataError(f"{where}: a zip archive, as torch.save writes, not a plain pickle")
    file = io.BytesIO(content)
    try:
        # Building the arrays is part of reading: their shapes and types are checked there.
        result = _Plain().of(_Unpickler(file).load())
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    # What a damaged or hostile stream raises depends on where it breaks.
    except Exception as error:
        raise DataError(f"{where}: not a plain pickle: {first_line(error)}") from None
    if file.read(1):
        raise DataError(
            f"{where}: more follows behind the first pickle, as in files of an old torch.save"
        )
    return result


class _Unpickler(pickle.Unpickler):
    """Looks every name up in a list of its own.

    The functions in it are new for each file, because a file can set attributes on what it names.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        # Only an argument of `_reconstruct`; it cannot be called.
        ndarray = object()
        known: dict[str, Any] = {
            "collections.OrderedDict": OrderedDict,
            "numpy.ndarray": ndarray,
            "numpy.dtype": lambda code, *_: _Dtype(code),
            "_codecs.encode": lambda *given: _latin1(*given),
        }
        for module in ("builtins", "__builtin__"):
            known |= {f"{module}.set": set, f"{module}.frozenset": frozenset}
            known[f"{module}.bytes"] = lambda: b""
        # NumPy 2 renamed `core`; files of both are read by both.
        for package in ("numpy.core", "numpy._core"):
            known[f"{package}.multiarray._reconstruct"] = lambda *_: _Array()
            known[f"{package}.multiarray.scalar"] = lambda *given: _scalar(*given)
            known[f"{package}.numeric._frombuffer"] = lambda *given: _from_buffer(*given)
        self._known = known

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for, or refuse it."""
        full = f"{module}.{name}"
        if full not in self._known:
            hint = ""
            if module.split(".")[0] == "torch":
                hint = "; store tensor.numpy() in place of tensors"
            raise DataError(f"names {full}, which is refused: {READ}{hint}")
        return self._known[full]

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse data that lies elsewhere."""
        kind = pid[0] if isinstance(pid, tuple) and pid and isinstance(pid[0], str) else "data"
        raise DataError(
            f"refers to {kind} outside of the pickle, as files of torch.save do: {READ}"
        )


class _Dtype:
    """Stands for a dtype while a pickle is read."""

    __slots__ = ("dtype",)

    def __init__(self, code: Any) -> None:
        if not isinstance(code, str):
            raise DataError(f"holds a dtype that is no text: {READ}")
        try:
            dtype = np.dtype(code)
        except TypeError:
            dtype = np.dtype(object)
        # Values of no bytes would let a few bytes ask for an array of any length.
        if dtype.kind not in KINDS or dtype.itemsize == 0:
            raise DataError(f"holds an array of dtype {code[:40]!r}: {READ}")
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        """Take the byte order; nothing else of the state is needed for numbers and text."""
        order = state[1]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise DataError(f"holds a structured dtype: {READ}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for an array while a pickle is read."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state
        self.array = _from_buffer(content, dtype, shape, "F" if is_fortran else "C")


class _Plain:
    """Puts the arrays in the place of what stands for them; each object once, however often it is referred to."""

    def __init__(self) -> None:
        self.done: dict[int, Any] = {}
        self.kept: list[Any] = []

    def of(self, value: Any) -> Any:
        """Return a value in which each array is one."""
        if isinstance(value, _Array):
            if value.array is None:
                raise DataError("holds an array without values")
            return value.array
        if isinstance(value, _Dtype):
            return value.dtype
        if id(value) in self.done:
            return self.done[id(value)]
        if isinstance(value, list):
            self._remember(value, value)
            value[:] = [self.of(entry) for entry in value]
        elif isinstance(value, dict):
            self._remember(value, value)
            self._check_keys(value)
            for key in value:
                value[key] = self.of(value[key])
        elif isinstance(value, set | frozenset):
            self._check_keys(value)
        elif type(value) is tuple:
            return self._remember(value, tuple([self.of(entry) for entry in value]))
        elif callable(value) or type(value) is object:
            raise DataError(f"holds a function or a type: {READ}")
        return value

    def _check_keys(self, keys: Any) -> None:
        """Refuse keys and elements of sets in whose place nothing else can be put."""
        for key in keys:
            if isinstance(key, tuple | frozenset):
                self._check_keys(key)
            elif not isinstance(key, str | bytes | int | float | np.generic | None):
                raise DataError(f"holds a key that is no number or text: {READ}")

    def _remember(self, value: Any, plain: Any) -> Any:
        # An identity is unique only while its object lives.
        self.kept.append(value)
        self.done[id(value)] = plain
        return plain


def _latin1(text: Any, encoding: Any = "latin1") -> bytes:
    """Return bytes, which pickles of protocol 2 write as text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise DataError(f"calls _codecs.encode with {str(encoding)[:40]!r}: {READ}")
    return text.encode("latin1")


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes | bytearray):
        raise DataError(f"holds an array that is no row of numbers or text: {READ}")
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise DataError("holds an array whose shape is no tuple of sizes")
    if order not in ("C", "F") or math.prod(shape) * dtype.dtype.itemsize != len(content):
        raise DataError(f"holds an array of shape {shape} whose values do not fill it")
    # An array without values has nothing to be read from.
    if not content:
        return np.zeros(shape, dtype.dtype, order)
    flat = np.frombuffer(bytearray(content), dtype.dtype)
    return flat.reshape(shape, order=order)


def _scalar(dtype: Any, content: Any) -> Any:
    return _from_buffer(content, dtype, (1,), "C")[0]
