"""`refcocom report RESULTS…`: a config in; one HTML file out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from refcocom_gpu.cli.config import ReportConfig
from refcocom_gpu.cli.verbs import PAGE, print_, write_page
from refcocom_gpu.errors import UsageError

if TYPE_CHECKING:
    from refcocom_gpu.scores.result import Result


def run(config: ReportConfig) -> None:
    """Write the page of one result, two, a sweep, or a dataset before and after."""
    from refcocom_gpu.dataset.table import load_dataset
    from refcocom_gpu.report.call import check_page
    from refcocom_gpu.report.examples import check_pictures

    given = config.results if isinstance(config.results, list) else [config.results]
    if None in given:
        raise UsageError(
            "nothing to report: refcocom report RESULTS… (refcocom report --help lists the keys)"
        )
    if len(given) > 2:
        raise UsageError(
            f"report takes one result, two, or the folder of a sweep, not {len(given)}; sweep ranks many"
        )
    check_pictures(config.pictures)
    page = Path(config.page) if config.page is not None else _folder(given) / PAGE
    check_page(page, overwrite=config.overwrite)
    truth = None if config.dataset is None else load_dataset(config.dataset)
    what = _what(given, config)
    shown = not config.quiet
    write_page(what, page, shown=shown, truth=truth, images=config.images, pictures=config.pictures)
    if not config.quiet:
        print_(f"Wrote {page}")


def _folder(given: list[str]) -> Path:
    """Return where a page stands by default: with the one thing that it shows, if that is a folder, or here."""
    return Path(given[0]) if len(given) == 1 and Path(given[0]).is_dir() else Path()


def _what(given: list[str], config: ReportConfig) -> Any:
    from refcocom_gpu.construct.versions import before_after
    from refcocom_gpu.scores.comparison import compare, name_of
    from refcocom_gpu.scores.sweep_results import SweepResults, holds_sweep

    if config.original is not None:
        if len(given) != 1 or config.predictions is not None:
            raise UsageError("with original, report takes one refined dataset and no predictions")
        return before_after(config.original, given[0])
    if len(given) == 1 and holds_sweep(given[0]):
        return SweepResults(given[0])
    results = [_result(path) for path in given]
    if config.predictions is not None:
        if len(results) != 1:
            raise UsageError("predictions are those of one result")
        results[0] = results[0].with_masks(config.predictions)
    if len(results) == 1:
        return results[0]
    a, b = results
    return compare(a, b, names=(name_of(given[0], a), name_of(given[1], b)))


def _result(path: str) -> Result:
    from refcocom_gpu.scores.sweep_results import find_result

    if (result := find_result(path)) is None:
        raise UsageError(f"{path} holds no result; score writes one to output_dir")
    return result
