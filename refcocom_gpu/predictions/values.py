"""Predictions of one shape in; what they mean, what is wrong with each, and what only the whole set can tell, out.

These are the rules for masks, logits and probabilities, the same for files, memory, the writer and the training metric:

- A bool or integer array is a mask. It holds 0 and at most one other value, none negative, and has its image's size.
- `label=K` makes a mask of any integer array: the pixels of that value.
- Floats are logits, or what `values` declares. They may have any size. Without a declaration a set of them must hold a
  clearly negative value, unless they are exactly 0 and 1 at the size of the image.
- `values=probabilities` divides 8- and 16-bit integers by their maximum. Then {0, k} is a mask in a set of masks and is
  refused beside maps of probabilities, if k is at most half of the maximum: a map that peaks there is empty.

The functions take NumPy arrays and torch tensors, and none makes the host wait for a device.

Letters: `K` predictions of `h` × `w` cells, `H W` the size of their images, `N` predictions of a set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import codes

from refcocom_gpu.errors import Problems
from refcocom_gpu.predictions.options import ReadOptions

Vector = Any
"""[K] numbers, an array or a tensor; a plain number stands for K equal ones."""

# What is wrong with a prediction ------------------------------------------------------------------

NON_FINITE, WRONG_SIZE, UNKNOWN, SEVERAL, NEGATIVE, NOT_PROBABILITIES, NO_LABELS, NO_VALUES = range(
    1, 9
)
FAULTS = {
    NON_FINITE: "non-finite",
    WRONG_SIZE: "wrong size",
    UNKNOWN: "unknown key",
    SEVERAL: "several values",
    NEGATIVE: "negative values",
    NOT_PROBABILITIES: "not probabilities",
    NO_LABELS: "no labels",
    NO_VALUES: "no values",
}
"""Name of each fault in an error."""

_CODE_BITS, _DETAIL_BITS = 8, 27
_MOST = 2**_DETAIL_BITS - 1

# What a prediction tells about its set ------------------------------------------------------------

UNDECIDED, LOGITS, MAP, QUIET, SIZED, LABELLED, UNLABELLED = range(1, 8)
"""Undeclared floats that may be probabilities; floats that are logits; integers that are probabilities; {0, k} that
would be empty as such; {0, maximum} of another size than the image; integers that hold the label, or do not. 0 where
there is nothing to tell."""

EVIDENCE = 0xFF
"""The bits of a trait that hold one of these."""

SHOWN = 8
"""Most values that a message lists."""


class Read(NamedTuple):
    """A stack of predictions as they are counted.

    Attributes:
        values: [K, h, w] bool masks, or floats.
        are_masks: True, False, or [K] bool: whether the values are 0 and 1 and stand for a mask.
        faults: [K] int64, 0 where nothing is wrong.
        evidence: [K] int64.
    """

    values: Any
    are_masks: Any
    faults: Vector
    evidence: Vector


def is_float(values: Any) -> bool:
    """Return whether an array or tensor holds logits or probabilities."""
    if isinstance(values, np.ndarray):
        return bool(values.dtype.kind == "f")
    return bool(values.dtype.is_floating_point)


def is_bool(values: Any) -> bool:
    """Return whether an array or tensor holds bools."""
    if isinstance(values, np.ndarray):
        return bool(values.dtype.kind == "b")
    return str(values.dtype) == "torch.bool"


def is_plain(values: Any, options: ReadOptions) -> bool:
    """Return whether values are masks whatever they hold: bools, or integers without a declaration."""
    if options.label is not None or is_float(values):
        return False
    return is_bool(values) or options.values != "probabilities"


def read_stack(values: Any, fits: Vector, options: ReadOptions) -> Read:
    """Apply the rules to predictions of one shape; those for floats need their kinds too, see `judge_floats`.

    Args:
        values: [K, h, w] bool, integers or floats.
        fits: [K] bool, whether a prediction has the size of its image.
        options: What they mean.
    """
    if is_float(values):
        return Read(values, False, NO_LABELS if options.label is not None else 0, 0)
    if is_bool(values):
        return Read(values, True, NO_LABELS if options.label is not None else 0, 0)
    # The name of NumPy's type says nothing of its byte order, its text does.
    maximum = _MAXIMA.get(getattr(values.dtype, "name", str(values.dtype).removeprefix("torch.")))
    is_unsigned = str(values.dtype).startswith("torch.u")
    if not isinstance(values, np.ndarray):
        values = _widened(values)
    if options.label is not None:
        masks = _equal(values, options.label)
        holds_it = masks.reshape(len(masks), -1).any(1)
        return Read(masks, True, 0, holds_it * LABELLED + ~holds_it * UNLABELLED)
    high, negative, several = _look(values)
    # In a wider type, the upper half of 64 bits turns negative.
    negative = negative & (not is_unsigned)
    if options.values != "probabilities" or maximum is None:
        faults = negative * NEGATIVE + (several & ~negative) * _packed(SEVERAL, high, 0)
        return Read(values != 0, True, faults, 0)
    is_quiet = ~several & (high > 0) & (2 * high <= maximum)
    is_hard = ~several & (2 * high > maximum)
    maps = _as_float32(values) / maximum
    masks = _as_float32(values != 0)
    values = _where(is_quiet[:, None, None], masks, maps)
    if options.resize_masks is None:
        evidence = several * MAP + is_quiet * QUIET + (is_hard & ~fits) * SIZED
        return Read(values, is_quiet, 0, evidence)
    return Read(values, is_quiet | is_hard, 0, several * MAP + is_quiet * QUIET)


_MAXIMA = {"uint8": 2**8 - 1, "uint16": 2**16 - 1}
"""The integers that may hold probabilities, and what stands for 1."""


def _look(values: Any) -> tuple[Vector, Vector, Vector]:
    """Return the largest value [K], whether any is negative, and whether there are several beside 0."""
    flat = values.reshape(len(values), -1)
    if isinstance(flat, np.ndarray):
        low, high = flat.min(1), flat.max(1)
        chosen = np.where(high > 0, high, low)
        high = high.astype(np.int64)
    else:
        low, high = flat.aminmax(dim=1)
        chosen = _where(high > 0, high, low)
        high = high.long()
    return high, low < 0, ((flat != 0) & (flat != chosen[:, None])).any(1)


def _where(condition: Any, yes: Any, no: Any) -> Any:
    if isinstance(condition, np.ndarray):
        return np.where(condition, yes, no)
    import torch

    return torch.where(condition, yes, no)


def _as_float32(values: Any) -> Any:
    return values.astype(np.float32) if isinstance(values, np.ndarray) else values.float()


def _widened(values: Any) -> Any:
    """Return a tensor of a type that torch computes with; it only stores most unsigned ones."""
    import torch

    wider = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}
    return values.to(wider[values.dtype]) if values.dtype in wider else values


def _equal(values: Any, label: int) -> Any:
    if not isinstance(values, np.ndarray):
        import torch

        # torch would wrap a label that the type does not hold.
        info = torch.iinfo(values.dtype)
        if not info.min <= label <= info.max:
            return torch.zeros_like(values, dtype=torch.bool)
    return values == label


def judge_floats(kinds: Vector, fits: Vector, options: ReadOptions) -> tuple[Vector, Vector]:
    """Apply the rules for floats.

    Args:
        kinds: [K] what the values look like, as `refcocom_kernels.codes` says.
        fits: [K] bool, whether a prediction has the size of its image.
        options: What they mean.

    Returns:
        [K] faults and [K] evidence, int64.

    >>> kinds, fits = np.array([codes.SIGNED, codes.SOFT, codes.BINARY]), np.ones(3, bool)
    >>> judge_floats(kinds, fits, ReadOptions())
    (array([0, 0, 0]), array([2, 1, 0]))
    """
    faults = (kinds == codes.NON_FINITE) * NON_FINITE
    if options.values == "probabilities":
        beyond = (kinds == codes.SIGNED) | (kinds == codes.LARGE)
        return faults + beyond * NOT_PROBABILITIES, 0 * faults
    if options.values == "logits":
        return faults, 0 * faults
    may_be_probabilities = (kinds == codes.LARGE) | (kinds == codes.SOFT)
    may_be_probabilities = may_be_probabilities | ((kinds == codes.BINARY) & ~fits)
    return faults, may_be_probabilities * UNDECIDED + (kinds == codes.SIGNED) * LOGITS


def first_fault(faults: Vector, others: Vector) -> Vector:
    """Return [K] what is wrong with each prediction: the first of two faults, because a row holds one."""
    return faults + others * (faults == 0)


def wrong_size(fits: Vector, h: int, w: int) -> Vector:
    """Return [K] faults of masks of `h` × `w` pixels that do not have the size of their images."""
    return ~fits * _packed(WRONG_SIZE, h, w)


def _packed(code: int, first: Any, second: Any) -> Any:
    """Put a fault and two numbers about it into one."""
    if not isinstance(first, int):
        first = first.clip(0, _MOST)
    return code + (first << _CODE_BITS) + (second << (_CODE_BITS + _DETAIL_BITS))


def fault_name(fault: int) -> str:
    """Return the name of a fault in an error."""
    return FAULTS[fault & (2**_CODE_BITS - 1)]


def explain_fault(
    fault: int, height: int, width: int, options: ReadOptions, values: Any = None
) -> str:
    """Return what is wrong with a prediction, and what to do.

    Args:
        fault: As `read_stack`, `judge_floats` and `wrong_size` give it.
        height: H of the image.
        width: W of the image.
        options: How the prediction was read.
        values: The prediction, if it is in host memory.

    >>> explain_fault(NEGATIVE, 480, 640, ReadOptions())  # doctest: +ELLIPSIS
    'a mask holds 0 and one value above it, this one holds negative values; pass mask > 0 if ...'
    """
    code = fault & (2**_CODE_BITS - 1)
    first = fault >> _CODE_BITS & _MOST
    if code == NON_FINITE:
        return "logits hold NaN, infinity or more than a float32 holds"
    if code == WRONG_SIZE:
        second = fault >> (_CODE_BITS + _DETAIL_BITS) & _MOST
        hint = "pass resize_masks=nearest, or logits, which may have any size"
        if (first, second) == (width, height):
            hint = "height and width are swapped"
        return f"mask is {first}×{second} (height×width), the image is {height}×{width}; {hint}"
    if code == SEVERAL:
        held = f"several up to {first:,}"
        if values is not None:
            distinct = np.unique(values)
            distinct = distinct[distinct != 0]
            held = f"{len(distinct):,} ({distinct[0]:,} to {distinct[-1]:,})"
            if len(distinct) <= SHOWN:
                held = ", ".join(map(str, distinct.tolist()))
        scale = "values=probabilities if they are probabilities (8- or 16-bit, 0 to the maximum), "
        if options.values == "probabilities":
            scale = ""
        return (
            f"a mask holds one value beside 0, this one holds {held}; "
            f"pass {scale}label=K if they are labels"
        )
    if code == NEGATIVE:
        return (
            "a mask holds 0 and one value above it, this one holds negative values; "
            "pass mask > 0 if they are signs of logits, label=K if they are labels"
        )
    if code == NOT_PROBABILITIES:
        return (
            f"probabilities lie in 0…1, these reach clearly beyond it{_span(values)}; "
            "divide them by their maximum, or pass values=logits if they are logits"
        )
    if code == NO_VALUES:
        return (
            "is a mask; thresholds and interpolation need logits or probabilities "
            "(integers with values=probabilities)"
        )
    return f"label={options.label} is looked for in integers, this prediction is {_dtype(values)}"


def _span(values: Any) -> str:
    if values is None:
        return ""
    values = values if isinstance(values, np.ndarray) else values.float().numpy()
    return f" ({values.min():.6g} to {values.max():.6g})"


def _dtype(values: Any) -> str:
    return "of another type" if values is None else str(values.dtype)


class Verdict(NamedTuple):
    """What is wrong with a set of predictions that no single one shows.

    Attributes:
        name: Of the fault in an error.
        message: What was found and what to do.
        rows: The predictions it is about; None if it is about the set.
    """

    name: str
    message: str
    rows: NDArray[np.int64] | None = None

    def add_to(self, problems: Problems, source: str, where: Callable[[int], str]) -> None:
        """Record it.

        Args:
            problems: Where.
            source: Name of the set.
            where: Place of the prediction for an example.
        """
        if self.rows is None:
            problems.add(self.name, source, self.message)
            return
        for row in self.rows.tolist():
            problems.add(self.name, where(row), self.message)


def judge_set(traits: NDArray[np.int64], options: ReadOptions) -> Iterator[Verdict]:
    """Yield what is wrong with a whole set.

    Args:
        traits: [N] of all predictions; only their evidence counts.
        options: How they were read.

    >>> [verdict.name for verdict in judge_set(np.array([UNDECIDED, 0]), ReadOptions())]
    ['undeclared values']
    >>> list(judge_set(np.array([UNDECIDED, LOGITS]), ReadOptions()))
    []
    """
    evidence = traits & EVIDENCE
    if (evidence == UNLABELLED).any() and not (evidence == LABELLED).any():
        yield Verdict(FAULTS[NO_LABELS], f"no prediction holds label={options.label}")
    undecided = int(np.count_nonzero(evidence == UNDECIDED))
    about = f"{undecided:,} prediction{'s' if undecided > 1 else ''} of floats"
    if undecided and options.values == "probabilities":
        yield Verdict(
            "undeclared values",
            f"{about} were written before values=probabilities was declared, and taken for logits; "
            "begin the file again with overwrite=True",
        )
    elif undecided and options.values is None and not (evidence == LOGITS).any():
        yield Verdict(
            "undeclared values",
            f"{about}, and none is clearly negative, as logits would be; pass values=probabilities (set above 0.5), "
            "or values=logits (set above 0)",
        )
    if (evidence == MAP).any():
        yield Verdict(
            "ambiguous values",
            "holds 0 and one value of at most half of the maximum: as a mask it is set there, as probabilities, "
            "which others of the set are, it is empty; write masks as 0 and the maximum",
            np.flatnonzero(evidence == QUIET),
        )
    elif (sized := np.flatnonzero(evidence == SIZED)).size:
        yield Verdict(
            "wrong size",
            "holds 0 and the maximum alone, as all of the set do: these are masks, and not of the size of "
            "their images; pass resize_masks=nearest",
            sized,
        )
