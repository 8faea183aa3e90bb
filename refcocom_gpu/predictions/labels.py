"""What a model says of whether an expression has a target at all in, a code for each prediction out: `no_target`.

A label is true or false, or 0 or 1. A score is a number that `no_target_threshold` cuts: above it, the model says that
there is no target. With a threshold every number is a score, and bools stay labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

FIELD = "no_target"
"""The field, column or argument that holds labels."""

UNLABELLED, TARGET, NO_TARGET, UNREADABLE = range(4)
"""Codes: nothing is said; there is a target; there is none; what is said is neither a label nor a declared score."""


def label_code(value: Any, threshold: float | None = None) -> int:
    """Return the code of one label or score.

    Args:
        value: Of a row; None says nothing.
        threshold: Of scores; None where there are only labels.

    >>> label_code(True), label_code(0), label_code(None), label_code(0.7), label_code(0.7, threshold=0.5)
    (2, 1, 0, 3, 2)
    """
    if value is None:
        return UNLABELLED
    if isinstance(value, bool | np.bool_):
        return NO_TARGET if value else TARGET
    if not isinstance(value, int | float | np.integer | np.floating):
        return UNREADABLE
    try:
        score = float(value)
    except OverflowError:  # of an integer of hundreds of digits
        return UNREADABLE
    if threshold is None:
        return {0.0: TARGET, 1.0: NO_TARGET}.get(score, UNREADABLE)
    if not math.isfinite(score):
        return UNREADABLE
    return NO_TARGET if score > threshold else TARGET


def label_codes(values: Sequence[Any], threshold: float | None = None) -> NDArray[np.int64]:
    """Return [B] codes of the labels or scores of B predictions; see `label_code`."""
    return np.fromiter((label_code(value, threshold) for value in values), np.int64, len(values))


def tensor_codes(values: Tensor, threshold: float | None = None) -> Tensor:
    """Return [B] int64 codes of [B] labels or scores without waiting for their device; see `label_code`."""
    import torch

    if values.dtype == torch.bool:
        return values.long() + TARGET
    # As on the host: a threshold that float32 cannot hold must not be rounded.
    scores = values.double()
    if threshold is None:
        return torch.where((scores == 0) | (scores == 1), scores + TARGET, UNREADABLE).long()
    codes = (scores > threshold).long() + TARGET
    return codes.masked_fill(~scores.isfinite(), UNREADABLE)


def listed_labels(values: Any, n: int) -> list[Any]:
    """Return the labels of a batch, in any container, as a list.

    Args:
        values: [B] or [B, 1] bools, integers or floats, or None among them in a list; one alone for one prediction.
        n: B.

    Raises:
        UsageError: Their number is another one, or they have another form.

    >>> listed_labels(np.array([True, False]), 2), listed_labels(None, 2), listed_labels(0.5, 1)
    ([True, False], [None, None], [0.5])
    """
    if values is None:
        return [None] * n
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    elif hasattr(values, "__array__"):
        values = np.asarray(values)
    if hasattr(values, "tolist"):
        check_shape(tuple(values.shape), n)
        flat: list[Any] = values.reshape(-1).tolist()
        return flat
    if isinstance(values, bool | int | float):
        values = [values]
    if not isinstance(values, list | tuple):
        raise UsageError(f"{FIELD} is [B] labels or scores, not {type(values).__name__}")
    check_shape((len(values),), n)
    return [value.item() if hasattr(value, "item") else value for value in values]


def check_shape(shape: tuple[int, ...], n: int) -> None:
    """Refuse labels that are not one for each of `n` predictions.

    Raises:
        UsageError: They are not.
    """
    if shape not in ((n,), (n, 1)) and not (n == 1 and shape == ()):
        raise UsageError(f"{FIELD} has shape {list(shape)}; {n} predictions have [{n}] labels")


def why_unreadable(value: Any, threshold: float | None) -> str:
    """Say what is wrong with a label, and how a score is declared.

    Args:
        value: As of `label_code`; `...` where it is not at hand.
        threshold: As of `label_code`.
    """
    is_ = f"{FIELD} is" if value is ... else f"{FIELD} is {value!r:.60},"
    if threshold is not None:
        return f"{is_} neither a label (true or false) nor a finite score"
    declare = f"{FIELD}_threshold=… says above which score there is no target"
    return f"{is_} neither true, false, 0 nor 1; {declare}"
