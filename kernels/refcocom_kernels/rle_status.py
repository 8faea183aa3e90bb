"""What can be wrong with one COCO RLE string: the codes that every backend reports."""

from __future__ import annotations

OK = 0
FOREIGN = 1
TRUNCATED = 2
NEGATIVE = 3
HUGE = 4
SHORT = 5
LONG = 6

MAX_CHARACTERS = 7
"""Five bits a character: 7 hold any run up to the pixel cap of 2**30, with its sign."""


def explain(status: int, detail: int, pixels: int) -> str:
    """One clause for a person.

    Args:
        status: One of the codes above, not `OK`.
        detail: What the parser reports beside it: a character or run position, or the total of the runs.
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
