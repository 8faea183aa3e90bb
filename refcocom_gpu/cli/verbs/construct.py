"""`refcocom construct`: a config in; a refined dataset, an audit of the original one, and a judgement out."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refcocom_gpu.cli.config import ConstructConfig
from refcocom_gpu.cli.resolved import resolved
from refcocom_gpu.cli.verbs import PAGE, load, page_in, print_, progress, resumable, write_page
from refcocom_gpu.construct.rules import Rules
from refcocom_gpu.errors import RefCOCOMError, UsageError
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.utils.folders import check_writable
from refcocom_gpu.utils.options import part_of
from refcocom_gpu.utils.run_config import check_config

if TYPE_CHECKING:
    from refcocom_gpu.construct.filter import HarmFilter
    from refcocom_gpu.construct.instances import Proposer
    from refcocom_gpu.construct.judge import Judgement
    from refcocom_gpu.construct.run import Construction
    from refcocom_gpu.dataset.images import Images
    from refcocom_gpu.dataset.table import Dataset
    from refcocom_gpu.sweep.item import Item


def run(config: ConstructConfig) -> None:
    """Make a refined dataset.

    Raises:
        UsageError: For a wrong request, before any work.
        DataError: When the original set, a prediction file or the exact masks cannot be used.
    """
    from refcocom_gpu.construct.beside import work_folder
    from refcocom_gpu.construct.folder import JUDGE
    from refcocom_gpu.construct.judge import judge
    from refcocom_gpu.construct.run import construct
    from refcocom_gpu.construct.versions import of_audit
    from refcocom_gpu.construct.write import Output
    from refcocom_gpu.dataset.table import load_dataset
    from refcocom_gpu.engines import make_engine
    from refcocom_gpu.sweep.inputs import read_inputs

    if config.output_dir is None:
        raise UsageError("a construction is kept in a folder: pass output_dir=DIR")
    check_writable(Path(config.output_dir))
    check_config(config.output_dir, "construct")
    if config.shard_mb < 1:
        raise UsageError(f"shard_mb must be at least 1, not {config.shard_mb}")
    rules = part_of(config, Rules)
    items = read_inputs(config.predictions) if config.predictions is not None else []
    _check_number(len(items) + config.grabcut + len(_listed(config.sam)), rules)
    # The set in the folder may be replaced, and its page with it.
    page = page_in(config.output_dir, wanted=config.report, overwrite=True, name=f"audit/{PAGE}")
    harmful = _filter(config)
    dataset = load(config.dataset)
    truth = None
    if config.truth is not None:
        truth = load_dataset(
            config.truth,
            split=config.dataset.split,
            invalid_references=config.dataset.invalid_references,
        )
    proposers = _proposers(config, items, dataset)
    images = _images(config, dataset, proposers)
    engine = make_engine(config.engine.name, config.engine.workers, config.engine.address)
    with (
        resumable(work_folder(config.output_dir)),
        contextlib.closing(engine),
        progress(
            dataset.n_images, shown=not (config.quiet or config.json), unit="images"
        ) as advance,
    ):
        made = construct(
            dataset,
            Output(
                config.output_dir, config.pictures, config.shard_mb * 1_000_000, resolved(config)
            ),
            proposers,
            rules=rules,
            expression_filter=harmful,
            images=images,
            engine=engine,
            settled=None if advance is None else lambda _: advance(1),
        )
    judgement = None
    if truth is not None:
        judgement = judge(made.audit, truth)
        judgement.save(Path(config.output_dir) / JUDGE)
    if page is not None:
        shown = not (config.quiet or config.json)
        write_page(of_audit(dataset, made.folder), page, shown=shown, images=config.images)
    if config.json:
        about = dict(made.summary)
        if judgement is not None:
            about["judgement"] = judgement.summary()
        print_(json.dumps(about, indent=2, ensure_ascii=False))
    elif not config.quiet:
        print_(_table(made, judgement, rules))


def _filter(config: ConstructConfig) -> HarmFilter:
    from refcocom_gpu.construct.filter import HarmFilter, Words, read_words

    words = Words() if config.words is None else read_words(config.words)
    if config.classifier is None:
        return HarmFilter(words)
    from refcocom_gpu.utils.devices import resolve_device

    harmful = HarmFilter(
        words,
        config.classifier,
        config.classifier_revision,
        tuple(map(str, _listed(config.classifier_labels))),
        resolve_device(config.device),
    )
    harmful.check()
    return harmful


def _check_number(n_proposers: int, rules: Rules) -> None:
    """Refuse a construction that removes everything: each proposer gives an instance one candidate at most."""
    if 0 < n_proposers < rules.min_candidates:
        raise UsageError(
            f"{n_proposers} proposer{'s' if n_proposers > 1 else ''}, and min_candidates={rules.min_candidates}: every "
            f"instance would be removed. Give {rules.min_candidates} or more (predictions, sam, grabcut=true), or "
            "lower min_candidates"
        )


def _proposers(config: ConstructConfig, items: Sequence[Item], dataset: Dataset) -> list[Proposer]:
    from refcocom_gpu.construct.call import file_proposers
    from refcocom_gpu.construct.propose.grabcut import GrabCutProposer
    from refcocom_gpu.construct.propose.sam import SamProposer
    from refcocom_gpu.sweep.inputs import distinguish

    options = part_of(config, ReadOptions)
    proposers = file_proposers(items, dataset, options, config.missing)
    if config.grabcut:
        proposers.append(GrabCutProposer())
    models = _listed(config.sam)
    for name, model in zip(distinguish(models) if models else (), models, strict=True):
        proposers.append(SamProposer(name, model, config.sam_revision, config.device))
    return proposers


def _images(config: ConstructConfig, dataset: Dataset, proposers: list[Proposer]) -> Images | None:
    """Return the pictures if anything needs them, or if they are at hand and may be embedded."""
    from refcocom_gpu.construct.pictures import needed_by_whom
    from refcocom_gpu.dataset.images import Images

    is_needed = bool(needed_by_whom(config.pictures, proposers))
    if config.pictures == "none" and not is_needed:
        return None
    try:
        return Images(dataset, config.images)
    except RefCOCOMError as error:
        # A folder that is asked for must be there.
        if config.images is not None:
            raise
        if is_needed:
            # Where only the written set needs them, it can do without.
            hint = "" if any(p.needs_picture for p in proposers) else "; or pass pictures=none"
            raise type(error)(f"{error}{hint}") from None
        warnings.warn(
            f"no picture is embedded: {error}; pictures=none asks for none",
            UserWarning,
            stacklevel=1,
        )
        return None


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(v) for v in value] if isinstance(value, list | tuple) else [str(value)]


def _table(made: Construction, judgement: Judgement | None, rules: Rules) -> str:
    from refcocom_gpu.construct.keep import CAUSES, EXPRESSION_CAUSES

    summary = made.summary
    images = summary["images"]
    lines = [f"  {'':<14}{'original':>10}{'kept':>10}"]
    lines += [
        f"  {what:<14}{n['original']:>10,}{n['kept']:>10,}"
        for what, n in (*summary["counts"].items(), ("images", images))
    ]
    lines.append("")
    meanings = {**CAUSES, **EXPRESSION_CAUSES}
    for what, n in summary["counts"].items():
        for cause, number in n["removed"].items():
            if number and cause in meanings:
                lines.append(f"{number:,} {what} removed: {meanings[cause]} ({cause})")
    pictures = summary["pictures"]
    if pictures["absent"]:
        lines.append(
            f"Pictures are absent from {pictures['absent']:,} of {images['kept']:,} image records"
        )
    if judgement is not None:
        at = judgement.at(rules.confidence)
        lines += [
            "",
            f"With confidence {rules.confidence} or more, {at['share']:.1%} of the instances: IoU with the truth "
            f"{at['refined']:.4f}, original masks {at['original']:.4f}, "
            f"best proposer ({judgement.best}) {at['best']:.4f}",
        ]
    lines += ["", f"Wrote {made.folder}"]
    return "\n".join(lines)
