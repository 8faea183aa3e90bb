"""`rc.report`: a result, a comparison, a leaderboard or two versions of a set in, one HTML file out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from refcocom_gpu.errors import UsageError
from refcocom_gpu.report.before_after import Versions, before_after_page
from refcocom_gpu.report.comparison import comparison_page
from refcocom_gpu.report.examples import EMBED
from refcocom_gpu.report.score import score_page
from refcocom_gpu.report.sweep import sweep_page
from refcocom_gpu.report.truth import Truth
from refcocom_gpu.scores.comparison import ResultComparison
from refcocom_gpu.scores.leaderboard.rows import Leaderboard
from refcocom_gpu.scores.result import Result
from refcocom_gpu.scores.sweep_leaderboard import load_leaderboard
from refcocom_gpu.scores.sweep_results import SweepResults
from refcocom_gpu.utils.files import write_files
from refcocom_gpu.utils.optional import require


def report(
    what: Result | ResultComparison | Leaderboard | SweepResults | Versions,
    page: str | Path,
    *,
    truth: Truth | None = None,
    images: str | Path | None = None,
    pictures: str = EMBED,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write a page that opens from disk: one self-contained HTML file.

    Args:
        what: A result; a comparison; the leaderboard of a sweep, or the results that were read back from its folder; or
            what `before_after` returns.
        page: The file, `NAME.html`.
        truth: The dataset of the results or its store, whose masks are drawn; by default the one they name is loaded.
        images: A folder that holds the pictures by `file_name`, where the dataset does not hold them.
        pictures: `embed` draws some examples into the page, `link` all into a folder beside it, `none` none.
        overwrite: Replace a page.
        progress: Called with the number of pictures that are drawn since.

    Returns:
        The file.

    Raises:
        UsageError: The file exists, cannot be written or is no page; what is asked for needs a library that is not
            installed; or the dataset is another one.

    >>> import tempfile
    >>> import refcocom_gpu as rc
    >>> page = rc.report(rc.score("sample", "sample"), tempfile.mkdtemp() + "/score.html", pictures="none")
    >>> page.read_text("utf-8").count("<h1")
    1
    """
    path = Path(page)
    check_page(path, overwrite=overwrite)
    shared: dict[str, Any] = {"images": images, "pictures": pictures, "progress": progress}
    if isinstance(what, Versions):
        content = before_after_page(what, path, **shared)
    elif isinstance(what, ResultComparison):
        content = comparison_page(what, path, truth=truth, **shared)
    elif isinstance(what, Result):
        content = score_page(what, path, truth=truth, **shared)
    elif isinstance(what, Leaderboard | SweepResults):
        board = load_leaderboard(what.folder) if isinstance(what, SweepResults) else what
        content = sweep_page(board, path)
    else:
        raise UsageError(f"there is no page of a {type(what).__name__}")
    write_files(path.parent, {path.name: content})
    return path


def check_page(page: Path, *, overwrite: bool) -> None:
    """Refuse a page that cannot be written, before any work.

    Raises:
        UsageError: It is not named `.html`, or it exists and `overwrite` is False, or a library is not installed.
    """
    for module, name in (
        ("jinja2", "Jinja2"),
        ("matplotlib", "Matplotlib"),
        ("PIL.Image", "Pillow"),
    ):
        require(module, f"pages need {name}", "report")
    if page.suffix.lower() not in {".html", ".htm"}:
        raise UsageError(f"a page is a file NAME.html, not {page}")
    if page.is_dir():
        raise UsageError(f"{page} is a folder")
    if page.exists() and not overwrite:
        raise UsageError(f"{page} exists; overwrite=true replaces it")
