"""Proposers and the way a set is written in; who needs its pictures, and which of them cannot be used, out.

A picture that nobody needs is not asked for. One that is needed and cannot be used is an error, or its instances are
removed where `missing_pictures=remove`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from refcocom_gpu.construct.instances import Proposer
from refcocom_gpu.construct.measurements import ImageResult
from refcocom_gpu.construct.rules import Rules
from refcocom_gpu.dataset.images import Images
from refcocom_gpu.errors import DatasetError, UsageError

PICTURES = ("auto", "embed", "path", "none")
"""How a written dataset holds its pictures: their bytes where they are at hand, all their bytes, the paths of all their
files, or not at all."""

SHOWN = 5
"""Number of pictures that an error names; each takes a line."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """The pictures of a construction, checked as far as their headers show.

    Attributes:
        images: To read them from; None where there is nothing to read.
        needed_by: Who needs every picture: names of proposers, and `pictures=…` of the written set.
        held_as: How the written set holds them: `embed`, `path` or `none`.
        problems: Row of `dataset.images` to why its picture cannot be used, of the images with samples.
    """

    images: Images | None
    needed_by: tuple[str, ...]
    held_as: str
    problems: Mapping[int, str]

    @property
    def measured(self) -> Images | None:
        """The pictures that decide what becomes of instances; None where nobody needs them."""
        return self.images if self.needed_by else None

    def can_be_held(self, row: int) -> bool:
        """Return whether the written set holds this picture."""
        return self.held_as != "none" and row not in self.problems

    def check_results(self, results: Sequence[ImageResult], rules: Rules) -> None:
        """Refuse what only the pixels show, before anything is written.

        Raises:
            DatasetError: As `check_pictures` does.
        """
        problems = {result.image: result.error for result in results if result.error}
        self.refuse(problems, rules)

    def refuse(self, problems: Mapping[int, str], rules: Rules) -> None:
        """Refuse pictures that are needed and cannot be used, all of them where `missing_pictures` says so.

        Raises:
            DatasetError: There are some, or there is no other.
        """
        if self.images is None or not self.needed_by:
            return
        rows = _rows(self.images)
        unusable = [row for row in rows if row in problems]
        if not unusable or (rules.missing_pictures == "remove" and len(unusable) < len(rows)):
            return
        needing = ", ".join(self.needed_by)
        shown = "\n  ".join(problems[row] for row in unusable[:SHOWN])
        more = f"\n  … and {len(unusable) - SHOWN:,} more" if len(unusable) > SHOWN else ""
        hint = "pass the folder that holds them as images=DIR"
        if all(needing.startswith("pictures=") for needing in self.needed_by):
            hint += ", or pictures=none to write the set without them"
        if len(unusable) < len(rows):
            hint += ", or missing_pictures=remove to remove the instances of these images"
        raise DatasetError(
            f"{len(unusable):,} of {len(rows):,} pictures cannot be used, and they are needed by {needing}; {hint}"
            f"\n  {shown}{more}"
        )


def check_pictures(
    images: Images | None, pictures: str, proposers: Sequence[Proposer], rules: Rules
) -> Pictures:
    """Find who needs the pictures, and refuse what can be refused before any work. No pixel is decoded.

    Args:
        images: The pictures; None where there are none.
        pictures: How the set is written, one of `PICTURES`.
        proposers: Who proposes masks.
        rules: Whether pictures may be missing.

    Raises:
        UsageError: `pictures` is unknown, asks for paths where the pictures are not files, or there are no pictures and
            somebody needs them.
        DatasetError: A needed picture cannot be used and `missing_pictures` is `error`, or none can be used.
    """
    if pictures not in PICTURES:
        raise UsageError(f"pictures must be {', '.join(PICTURES)}, not {pictures!r}")
    needed_by = needed_by_whom(pictures, proposers)
    if images is None:
        if needed_by:
            raise UsageError(
                f"{needed_by[0]} needs the pictures; pass the folder that holds them as images=DIR"
                + (", or pictures=none" if needed_by[0].startswith("pictures=") else "")
            )
        return Pictures(None, (), "none", {})
    held_as = "embed" if pictures == "auto" else pictures
    problems = {}
    if needed_by or held_as != "none":
        problems = {row: why for row in _rows(images) if (why := images.problem(row))}
    checked = Pictures(images, needed_by, held_as, problems)
    checked.refuse(problems, rules)
    usable = (row for row in _rows(images) if row not in problems)
    if pictures == "path" and any(images.path(row) is None for row in usable):
        raise UsageError(
            "pictures=path needs pictures that are files; pass the folder that holds them as images=DIR"
        )
    return checked


def needed_by_whom(pictures: str, proposers: Sequence[Proposer]) -> tuple[str, ...]:
    """Name everybody who needs every picture: proposers that look at them, and a set that must hold them.

    The contact sheet draws on grey where there is no picture, and no other step of a construction looks at one.
    """
    looking = tuple(f"proposer {p.name}" for p in proposers if p.needs_picture)
    return (*looking, *([f"pictures={pictures}"] if pictures in ("embed", "path") else []))


def _rows(images: Images) -> list[int]:
    """The images with samples; nobody looks at another."""
    rows: list[int] = np.unique(images.dataset.sample_image).tolist()
    return rows
