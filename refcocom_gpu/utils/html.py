"""Cells in, a small table for a notebook out: HTML that needs no other file and is legible on light and dark pages.

The standard library's ElementTree writes it and escapes every text on the way, so no cell can be taken for markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from refcocom_gpu.utils.text import as_text

_CELL = (
    "padding: 0.2em 0.8em; border-bottom: 1px solid currentColor; background: none; text-align: "
)


def table_html(
    title: str,
    rows: Iterable[Sequence[str]],
    *,
    head: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> str:
    """Return a table: its first column is aligned to the left, as names are, the others to the right.

    Args:
        title: Stands above it.
        rows: The cells.
        head: Above the columns; none for no head.
        notes: Lines below it.

    >>> table_html("2 < 3", [("<script>", "1")])
    '<div><table style="..."><caption style="...">2 &lt; 3</caption><tbody><tr><td style="...">&lt;script&gt;</td>...'
    """
    root = Element("div")
    table = SubElement(root, "table", style="border-collapse: collapse; color: inherit")
    _text(table, "caption", title, "caption-side: top; text-align: left; color: inherit")
    if head:
        _row(SubElement(table, "thead"), "th", head)
    body = SubElement(table, "tbody")
    for cells in rows:
        _row(body, "td", cells)
    for note in notes:
        _text(root, "div", note, "font-size: smaller")
    return as_text(tostring(root, encoding="unicode", method="html"))


def _row(parent: Element, tag: str, cells: Sequence[str]) -> None:
    row = SubElement(parent, "tr")
    for place, cell in enumerate(cells):
        _text(row, tag, cell, _CELL + ("right" if place else "left"))


def _text(parent: Element, tag: str, text: str, style: str) -> None:
    SubElement(parent, tag, style=style).text = text
