"""`refcocom show WHAT KEY`: a config in; one example as a PNG out."""

from __future__ import annotations

from pathlib import Path

from refcocom_gpu.cli.config import ShowConfig
from refcocom_gpu.cli.verbs import print_, say
from refcocom_gpu.errors import UsageError


def run(config: ShowConfig) -> None:
    """Draw one example."""
    from refcocom_gpu.dataset.table import load_dataset
    from refcocom_gpu.report.show import png, show
    from refcocom_gpu.scores.sweep_results import find_result
    from refcocom_gpu.utils.files import write_files

    given = config.example if isinstance(config.example, list) else [config.example]
    if len(given) != 2 or None in given:
        raise UsageError(
            "show takes a result or a dataset, and the key of an example: refcocom show sample 20002_0"
        )
    what, key = given
    output = Path(config.output or f"{key}.png")
    if output.suffix.lower() != ".png":
        raise UsageError(f"output is a file NAME.png, not {output}")
    if output.exists() and not config.overwrite:
        raise UsageError(f"{output} exists; overwrite=true replaces it")
    result = find_result(what)
    truth = None if config.dataset is None else load_dataset(config.dataset)
    picture = show(
        load_dataset(what) if result is None else result, key, truth=truth, images=config.images
    )
    write_files(output.parent, {output.name: png(picture)})
    if problem := picture.info.get("problem"):
        say(f"warning: masks are drawn on grey: {problem}")
    if result is not None and result.masks is None:
        say(
            "warning: only the true mask is drawn: the result holds no masks; score with save_masks=true"
        )
    if not config.quiet:
        iou = f"  IoU {picture.info['iou']:.4f}" if "iou" in picture.info else ""
        print_(f"{picture.info['key']}  {picture.info['sentence']}{iou}\n\nWrote {output}")
