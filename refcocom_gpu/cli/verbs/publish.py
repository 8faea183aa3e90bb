"""`refcocom publish RESULTS…`: a config in; files to publish, and where they are, out. Nothing is uploaded."""

from __future__ import annotations

import json

from refcocom_gpu.cli.config import PublishConfig
from refcocom_gpu.cli.verbs import print_
from refcocom_gpu.errors import UsageError


def run(config: PublishConfig) -> None:
    """Write the section of a model card, the file for the Hub and the tables of some results.

    Raises:
        UsageError: For a wrong request.
        DataError: When the results cannot be used, or not together.
    """
    from refcocom_gpu.scores.publication import publish

    if config.results is None:
        raise UsageError(
            "nothing to publish: refcocom publish RESULTS… (refcocom publish --help lists the keys)"
        )
    if config.output_dir is None:
        raise UsageError("publish writes a folder of files: pass output_dir=DIR")
    written = publish(
        config.results,
        config.output_dir,
        names=[config.names] if isinstance(config.names, str) else config.names,
        dataset_id=config.dataset_id,
        overwrite=config.overwrite,
    )
    names = [str(path) for path in written]
    if config.json:
        print_(json.dumps({"written": names}, indent=2))
    elif not config.quiet:
        print_("Wrote " + "\n      ".join(names))
