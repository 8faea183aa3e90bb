"""README and the pages of docs/ as the tests read them: text, sections, fenced blocks, headings."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


class Block(NamedTuple):
    """A fenced block."""

    language: str
    text: str


def text_of(page: str) -> str:
    """The text of a page, named from the root of the repository."""
    return (ROOT / page).read_text("utf-8")


def section(page: str, heading: str) -> str:
    """What stands between a heading of the second level and the next one."""
    _, found, rest = text_of(page).partition(f"\n## {heading}\n")
    assert found, f"{page} has no heading {heading!r}"
    return rest.partition("\n## ")[0]


def blocks(page: str, language: str | None = None) -> list[Block]:
    """The fenced blocks of a page, or those of one language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text_of(page), re.M | re.S)
    return [Block(*pair) for pair in found if language in (None, pair[0])]


def prose(page: str) -> str:
    """The text of a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S)


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.M):
        plain = unicodedata.normalize("NFKD", re.sub(r"[`*]", "", heading)).lower()
        # A repeated heading gets a number that differs between the two: no link may lead there.
        found ^= {re.sub(r"[^\w -]", "", plain).strip().replace(" ", "-")}
    return found
