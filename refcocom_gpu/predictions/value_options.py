"""Options that only `score` has: thresholds at which values are counted, and how they are resized."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from refcocom_gpu.errors import UsageError
from refcocom_gpu.predictions.options import BILINEAR, INTERPOLATIONS, VALUES, ReadOptions
from refcocom_gpu.utils.options import option

THRESHOLDS = {
    "logits": [k / 4 for k in range(-16, 17)],
    "probabilities": [k / 40 for k in range(1, 40)],
}
"""The thresholds that are counted if none are given, by what the values are: −4…4 in steps of 0.25, and 0.025…0.975 in
steps of 0.025. Both hold the threshold in use, 0 and 0.5; the sigmoid of ±4 is 0.018 and 0.982."""

MAX_THRESHOLDS = 256
"""Most thresholds: each adds two columns of 64 bits to the table of a result."""


@dataclass
class ValueOptions(ReadOptions):
    """What is counted of logits and probabilities, beside how predictions are read.

    Attributes:
        thresholds: Numbers in the unit of the values at which the metric `thresholds` counts, in float32, as the values
            are compared; the one in use is always added. None for `THRESHOLDS`.
        interpolation: How values are resized to the image: `bilinear`, `nearest` or `bicubic`; see `interpolation`. Of
            a list, the first makes the score, and the others are counted beside it.

    Raises:
        UsageError: For a value that is unknown or out of range, and for a combination that has no meaning.
    """

    thresholds: Any = option(  # noqa: RUF009 (it makes a field)
        None,
        "with metrics=[iou,thresholds]: thresholds of logits or probabilities, [A,B]; null for -4…4 by 0.25, or "
        "0.025…0.975 by 0.025",
        listed=True,
    )
    interpolation: Any = option(  # noqa: RUF009 (it makes a field)
        BILINEAR,
        "how logits or probabilities are resized: bilinear, nearest or bicubic; of [A,B] A makes the score, and B is "
        "shown beside it",
        listed=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.thresholds is not None:
            self.thresholds = _thresholds(self.thresholds, self.values or "logits")
        given = self.interpolation
        names = [given] if isinstance(given, str) else list(given)
        for name in names:
            if name not in INTERPOLATIONS:
                raise UsageError(
                    f"interpolation must be {' or '.join(INTERPOLATIONS)}, not {name!r}"
                )
        if not names or len(set(names)) < len(names):
            raise UsageError(f"interpolation names each way once, not {given!r}")
        self.interpolation = names[0] if len(names) == 1 else names
        if names != [BILINEAR] and self.resize == "sam":
            raise UsageError(
                "resize=sam is two bilinear steps; interpolation goes with resize=direct"
            )

    @property
    def interpolations(self) -> tuple[str, ...]:
        """All ways; the first makes the score."""
        given = self.interpolation
        return (given,) if isinstance(given, str) else tuple(given)

    @property
    def levels(self) -> tuple[float, ...]:
        """The thresholds that are counted, ascending, with the one in use."""
        given = THRESHOLDS[self.values or "logits"] if self.thresholds is None else self.thresholds
        return tuple(sorted({*given, self.threshold}))


def _thresholds(given: Any, values: str) -> list[float]:
    """Return thresholds as ascending numbers."""
    several = isinstance(given, Iterable) and not isinstance(given, str)
    numbers = {_number(one, values) for one in (given if several else [given])}
    if not 0 < len(numbers) <= MAX_THRESHOLDS:
        raise UsageError(f"thresholds must be 1 to {MAX_THRESHOLDS} numbers, not {len(numbers)}")
    # The threshold in use, 0 or 0.5, is exact in float32.
    counted = {*numbers, VALUES[values]}
    if len({_as_float32(number) for number in counted}) < len(counted):
        raise UsageError(
            "thresholds must differ in float32, in which values are compared, also from the one in use"
        )
    return sorted(numbers)


def _number(given: Any, values: str) -> float:
    try:
        number = math.nan if isinstance(given, bool) else float(given)
        is_finite = math.isfinite(_as_float32(number))
    except (TypeError, ValueError, OverflowError):
        is_finite = False
    if not is_finite:
        raise UsageError(f"thresholds are finite numbers of float32, not {given!r}")
    if values == "probabilities" and not 0 <= number <= 1:
        raise UsageError(f"thresholds of probabilities lie in 0…1, not {given!r}")
    return number + 0.0  # not −0


def _as_float32(number: float) -> float:
    # Without NumPy, which `--help` does not import; a number beyond float32 is an OverflowError.
    rounded: float = struct.unpack("f", struct.pack("f", number))[0]
    return rounded
