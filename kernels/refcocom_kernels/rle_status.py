"""Status codes of a COCO RLE string, and the sentence for each: shared by the kernels and the reader."""

from __future__ import annotations

OK = 0
FOREIGN = 1
TRUNCATED = 2
NEGATIVE = 3
HUGE = 4
SHORT = 5
LONG = 6

MAX_CHARACTERS = 7
"""A character holds five bits, so 7 hold any run up to the limit of 2**30 pixels, and its sign."""


def explain(status: int, detail: int, pixels: int) -> str:
    """Say in one clause what is wrong with a string.

    Args:
        status: One of the codes above, not `OK`.
        detail: The position of a character or run, or the total of the runs, as the parser reports it.
        pixels: H·W of the mask.

    >>> explain(SHORT, 9, 100)
    'runs total 9 pixels, size needs 100'
    """
    return {
        FOREIGN: f"character {detail} of counts is outside the RLE alphabet ('0' to 'o')",
        TRUNCATED: "counts end in the middle of a number",
        NEGATIVE: f"run {detail} is negative",
        HUGE: f"run {detail} is longer than {MAX_CHARACTERS} characters can hold",
        SHORT: f"runs total {detail} pixels, size needs {pixels}",
        LONG: f"runs total {detail} pixels, size needs {pixels}",
    }[status]
