"""What the tables share: names on one line, prose of a width, and what is said of an incomplete result."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from refcocom_gpu.scores.about import missing
from refcocom_gpu.scores.conventions import FLOAT32

if TYPE_CHECKING:
    from refcocom_gpu.scores.result import Result

SHOWN_TEXT = 60
"""Characters of a sentence or name that are printed."""

WIDTH = 98
"""Columns of a line of prose."""


def one_line(text: str) -> str:
    """Return the beginning of a text on one line."""
    return textwrap.shorten(text, SHOWN_TEXT, placeholder=" …")


def incomplete(result: Result) -> str:
    """Say how many examples have no prediction, and what became of them; nothing where there are none."""
    text = missing(result.n_missing, result.convention)
    return f"   ({text})" if text else ""


def mark_of(caveat: str) -> str:
    """Return the sign before a number that is only approximate."""
    if not caveat:
        return ""
    return "~" if caveat == FLOAT32 else "≈"
