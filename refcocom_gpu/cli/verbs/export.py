"""`refcocom export`: a config in; ground truth and saved masks as files of another tool, and where they are, out."""

from __future__ import annotations

import json
import os
from pathlib import Path

from refcocom_gpu.cli.config import ExportConfig
from refcocom_gpu.cli.verbs import load, print_
from refcocom_gpu.errors import UsageError


def run(config: ExportConfig) -> None:
    """Write a result and its dataset, or a dataset alone.

    Raises:
        UsageError: For a wrong request, before a dataset is loaded.
        DataError: When the result or the dataset cannot be used.
    """
    from refcocom_gpu.report.export.call import FORMATS, check_format, export
    from refcocom_gpu.scores.folder import check_output
    from refcocom_gpu.scores.saved_masks import NO_MASKS
    from refcocom_gpu.scores.sweep_results import find_result

    if config.output_dir is None:
        raise UsageError("an export is a folder of files: pass output_dir=DIR")
    check_format(config.format)
    output = Path(config.output_dir)
    check_output(output, overwrite=config.overwrite, names=FORMATS[config.format])
    result = None
    if config.result is not None:
        result = find_result(config.result)
        if result is None:
            what = "holds no result" if os.path.exists(config.result) else "is not there"  # noqa: PTH110
            raise UsageError(
                f"{config.result} {what}; name what score wrote with save_masks=true, or a row of a sweep"
            )
        if result.held_masks is None:
            raise UsageError(NO_MASKS)
    dataset = load(config.dataset)
    export(
        dataset if result is None else result,
        output,
        config.format,
        dataset=None if result is None else dataset,
        pictures=config.pictures,
        overwrite=config.overwrite,
    )
    written = [str(path) for name in FORMATS[config.format] if (path := output / name).exists()]
    if config.json:
        print_(json.dumps({"format": config.format, "written": written}, indent=2))
    elif not config.quiet:
        print_("Wrote " + "\n      ".join(written))
