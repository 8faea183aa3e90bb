"""`refcocom export`: a config in; ground truth and saved masks as files of another tool, and where they are, out."""

from __future__ import annotations

import json
from pathlib import Path

from refcocom_gpu.cli.config import ExportConfig
from refcocom_gpu.cli.verbs import print_
from refcocom_gpu.errors import UsageError


def run(config: ExportConfig) -> None:
    """Write a result and its dataset, or a dataset alone.

    Raises:
        UsageError: For a wrong request.
        DataError: When the result or the dataset cannot be used.
    """
    from refcocom_gpu.report.export.call import FORMATS, export

    if config.what is None:
        raise UsageError(
            "nothing to export: refcocom export WHAT, a result or the name or path of a dataset"
        )
    if config.output_dir is None:
        raise UsageError("an export is a folder of files: pass output_dir=DIR")
    folder = export(
        config.what,
        Path(config.output_dir),
        config.format,
        truth=config.dataset,
        images=config.images,
        overwrite=config.overwrite,
    )
    written = [str(path) for name in FORMATS[config.format] if (path := folder / name).exists()]
    if config.json:
        print_(json.dumps({"format": config.format, "written": written}, indent=2))
    elif not config.quiet:
        print_("Wrote " + "\n      ".join(written))
