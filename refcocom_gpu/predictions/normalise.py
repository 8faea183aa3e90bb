"""What a caller hands over in; one array, tensor, RLE object or None for each prediction out. The rest is refused.

`score`, `PredictionWriter.write` and `RefCOCOMMetric.update` take the same things, because all of them ask here.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.pictures import picture_array

ACCEPTED = (
    "a prediction is an array or a dense tensor of bools, integers or floats, a PIL picture, a COCO RLE object "
    "with size and counts, or None for an empty mask"
)


class Rows(NamedTuple):
    """A batch of predictions with what names their examples.

    Attributes:
        keys: [B] int64 row numbers, or [B, F] int64 keys.
        values: B predictions, for `as_prediction`.
    """

    keys: NDArray[np.int64]
    values: list[Any]


def as_rows(keys: Any, values: Any, n_fields: int) -> Rows:
    """Read a batch in any form.

    Args:
        keys: An int or [B] ints, row numbers in the store; a tuple or [B, F] ints, keys of the dataset.
        values: One prediction, a [B, …, H, W] array or tensor, or B predictions in any container. With an int as key,
            several are masks for one expression.
        n_fields: F, the fields of a key.

    Raises:
        UsageError: When a key is something else, or the numbers of keys and predictions differ.

    >>> rows = as_rows((7, 0), np.ones((2, 3), bool), 2)
    >>> rows.keys, rows.values[0].shape
    (array([[7, 0]]), (2, 3))
    """
    if is_one(values):
        numbers = as_ints(keys)
        is_key = isinstance(keys, tuple) and numbers.shape == (n_fields,)
        numbers, listed = numbers[None] if is_key else np.atleast_1d(numbers), [values]
    else:
        given = as_ints(keys)
        numbers = np.atleast_1d(given)
        try:
            # Iterating over a [B, H, W] array or tensor yields views, not copies.
            listed = list(values)
        except TypeError:
            raise _refused(values) from None
        except RuntimeError as error:  # of a tensor that has no rows to give
            raise UsageError(
                f"{ACCEPTED}; this {type(values).__name__} cannot be read: {error}"
            ) from None
        if given.ndim == 0 and len(listed) != 1:
            # Several masks for one expression; `combine` says what becomes of them.
            listed = [values]
    if numbers.ndim > 2 or (numbers.ndim == 2 and numbers.shape[1] != n_fields and numbers.size):
        raise UsageError(f"a key has {n_fields} numbers, these are of shape {list(numbers.shape)}")
    if len(numbers) != len(listed):
        raise UsageError(f"{len(numbers)} indices came with {len(listed)} predictions")
    return Rows(numbers, listed)


def as_pairs(predictions: Mapping[Any, Any]) -> tuple[Any, list[Any]]:
    """Split a dict of predictions by row number or key into what `as_rows` takes."""
    return list(predictions), list(predictions.values())


def is_rle(value: Any) -> bool:
    """Return whether a value is a COCO RLE object, or was meant to be one."""
    return isinstance(value, Mapping) and ("counts" in value or "size" in value)


def as_prediction(value: Any, options: ReadOptions) -> Any:
    """Return one prediction as an array, a dense tensor, an RLE object, or None.

    Args:
        value: Anything.
        options: How pictures are read.

    Raises:
        UsageError: It is nothing that can be a prediction; the message names its type.
    """
    if value is None or is_rle(value):
        return value
    if is_tensor(value):
        return as_dense(value)
    if is_picture(value):
        try:
            return picture_array(value, options)
        except ValueError as error:
            raise UsageError(f"a picture of mode {value.mode}: {error}") from None
    if isinstance(value, np.ma.MaskedArray | np.matrix | str | bytes | Mapping):
        raise _refused(value)
    if not isinstance(value, np.ndarray):
        if not isinstance(value, list | tuple) and not hasattr(value, "__array__"):
            raise _refused(value)
        try:
            value = np.asarray(value)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{ACCEPTED}; {type(value).__name__} cannot be read: {error}"
            ) from None
    if value.dtype.kind not in "biuf":
        raise UsageError(f"{ACCEPTED}; this array holds {value.dtype}")
    return value


def as_dense(tensor: Any) -> Any:
    """Return a tensor without a graph, whose memory holds its values.

    Raises:
        UsageError: It is quantized, sparse, nested, complex or without memory; the message says which.
    """
    import torch

    name = None
    if tensor.is_nested:
        name = "nested"
    elif tensor.is_quantized:
        name = f"quantized ({tensor.dtype}); call dequantize()"
    elif tensor.layout != torch.strided:
        name = f"sparse ({tensor.layout}); call to_dense()"
    elif tensor.is_meta:
        name = "on the meta device, which holds no values"
    elif not (tensor.is_floating_point() or tensor.dtype in _integers()):
        name = f"of {tensor.dtype}"
    if name is not None:
        raise UsageError(f"{ACCEPTED}; this tensor is {name}")
    # Both take a microsecond, which a training loop would pay for each batch.
    if tensor.requires_grad:
        tensor = tensor.detach()
    return tensor.resolve_neg() if tensor.is_neg() else tensor


@functools.cache
def _integers() -> frozenset[Any]:
    """The types of tensors that hold bools or whole numbers."""
    import torch

    return frozenset(
        (
            *(torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
            *(torch.int8, torch.int16, torch.int32, torch.int64),
        )
    )


def as_numpy(value: Any) -> NDArray[Any]:
    """Return an array or a dense tensor as an array in host memory; floats that NumPy does not know become float32."""
    if not is_tensor(value):
        return np.asarray(value)
    tensor = as_dense(value).cpu()
    known = not tensor.is_floating_point() or tensor.element_size() > 2
    array: NDArray[Any] = (tensor if known else tensor.float()).numpy()
    return array


def as_ints(numbers: Any) -> NDArray[np.int64]:
    """Return the whole numbers of any container as int64.

    Raises:
        UsageError: For anything else: NumPy would cut 1.9 to 1 and take False for 0.
    """
    if hasattr(numbers, "detach"):
        numbers = numbers.detach().cpu().numpy()
    try:
        array = np.asarray(numbers)
    except ValueError:
        raise UsageError("indices and keys are whole numbers in rows of one length") from None
    if array.dtype.kind not in "iu" and array.size:
        raise UsageError(f"indices and keys are whole numbers, not {array.dtype}")
    # An unsigned number beyond int64 turns negative here, and no index is negative.
    return array.astype(np.int64)


def is_one(values: Any) -> bool:
    """Return whether this is one prediction rather than several."""
    if values is None or isinstance(values, Mapping) or is_picture(values):
        return True
    if is_tensor(values):
        return bool(as_dense(values).ndim == 2)
    return isinstance(values, np.ndarray) and values.ndim == 2


def is_tensor(value: Any) -> bool:
    """Return whether a value is a torch tensor."""
    # Whoever holds a tensor has imported torch; the same is true of a picture and Pillow.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_picture(value: Any) -> bool:
    """Return whether a value is a PIL picture."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(value, pillow.Image)


def _refused(value: Any) -> UsageError:
    return UsageError(f"{ACCEPTED}, not {type(value).__name__}")
