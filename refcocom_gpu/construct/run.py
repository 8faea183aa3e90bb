"""An original set and proposers in, a refined dataset with its card and its audit out; stopped, it goes on."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from refcocom_gpu._version import __version__
from refcocom_gpu.construct.audit import Audit, counts_of, make_audit
from refcocom_gpu.construct.filter import ExpressionFilter, HarmFilter
from refcocom_gpu.construct.image import ImageResult, Work, construct_image
from refcocom_gpu.construct.instances import Proposer
from refcocom_gpu.construct.keep import CAUSES, EXPRESSION_CAUSES, Decision, decide
from refcocom_gpu.construct.parts import PARTS, Parts
from refcocom_gpu.construct.rules import Rules
from refcocom_gpu.construct.sheet import contact_sheet
from refcocom_gpu.construct.write import check_pictures, write_dataset
from refcocom_gpu.dataset.images import Images
from refcocom_gpu.dataset.locate import files_below
from refcocom_gpu.dataset.table import Dataset, load_dataset
from refcocom_gpu.engines import make_engine
from refcocom_gpu.engines.engine import Engine, Lost
from refcocom_gpu.errors import DataError, UsageError
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.sweep.task import code_version
from refcocom_gpu.utils.files import hash_files, locked, parquet_bytes, write_files

STAGE, SUMMARY = ".new", "construct.json"
"""Where everything is written before it is moved into place; what is moved last and says that all is there."""

MADE = ("data", "audit", "README.md", SUMMARY)
"""What a construction puts into its folder, and replaces there."""

JUDGE = "judge"
"""Where a judgement of it is kept; it goes when another set takes the place of the one that was judged."""

Settled = Callable[[ImageResult], None]


@dataclass(frozen=True, eq=False)
class Construction:
    """What was made.

    Attributes:
        folder: Of the dataset.
        summary: What `construct.json` holds: counts by cause, rules, proposers, fingerprints.
        audit: The tables of `audit/`.
        n_done: Images worked on; the others were known already.
    """

    folder: Path
    summary: dict[str, Any]
    audit: Audit
    n_done: int


def construct(
    dataset: Dataset,
    output_dir: str | Path,
    proposers: Sequence[Proposer],
    *,
    rules: Rules | None = None,
    expression_filter: ExpressionFilter | None = None,
    images: Images | None = None,
    pictures: str = "embed",
    shard_bytes: int = 500_000_000,
    engine: Engine | None = None,
    settled: Settled | None = None,
) -> Construction:
    """Make a refined dataset of an original one.

    The folder holds the dataset in RefCOCO-M's published features (`data/`), its card (`README.md`), the audit
    (`audit/`) and a summary (`construct.json`). The same input gives the same bytes, whatever the engine. What was
    found out about an image is kept in `.parts/`, so that a construction that was stopped goes on, and other thresholds
    ask no proposer again.

    Args:
        dataset: The original set.
        output_dir: Made where absent.
        proposers: Who proposes masks, at least one, of different names.
        rules: What decides; see `Rules`.
        expression_filter: What looks for harm in expressions; nothing does by default.
        images: The pictures; needed where a proposer looks at them or the dataset is to hold them.
        pictures: `embed`, `path` (files of a folder, as they lie here) or `none`.
        shard_bytes: Size of a Parquet shard.
        engine: Where images are worked on; threads by default.
        settled: Called with what was found about each image as soon as it is known, in any order.

    Returns:
        What was made.

    Raises:
        UsageError: For a request that is wrong, a folder that cannot be written or that another construction is
            writing.
        DataError: When a proposer or the text classifier gives what cannot be used at all. Nothing is written then.
    """
    rules, engine = rules or Rules(), engine or make_engine("threads")
    expression_filter = expression_filter or HarmFilter()
    _check(proposers, images)
    check_pictures(pictures, images)
    store = MaskStore.build(dataset)
    work = Work(
        store.detached() if engine.elsewhere else store,
        images,
        tuple(proposers),
        expression_filter,
        rules,
    )
    _check_folder(Path(output_dir), dataset)
    with locked(output_dir, "construction") as folder:
        identity = {
            "dataset": dataset.fingerprint,
            "proposers": {p.name: p.identity() for p in proposers},
            "filter": expression_filter.identity(),
            "agree": [rules.consensus, rules.islands, rules.holes],
            "code": code_version(),
        }
        results, n_done = _find_out(work, Parts(folder, identity), engine, settled)
        per_sample = np.diff(dataset.first_example)
        decisions = [
            decide(r, [int(per_sample[m.sample]) for m in r.instances], rules) for r in results
        ]
        audit = make_audit(dataset, results, decisions, store.areas.tolist())
        about = {
            "original": {
                "source": dataset.source,
                "revision": dataset.revision,
                "split": dataset.split,
                "fingerprint": dataset.fingerprint,
            },
            "counts": counts_of(audit),
            "rules": rules.identity(),
            "proposers": identity["proposers"],
            "filter": _about_filter(expression_filter.identity()),
        }
        summary = _write(folder, dataset, decisions, audit, about, images, pictures, shard_bytes)
    return Construction(folder, summary, audit, n_done)


def _check(proposers: Sequence[Proposer], images: Images | None) -> None:
    names = [proposer.name for proposer in proposers]
    if not names:
        raise UsageError("nobody proposes masks: give predictions, a SAM-family model, or GrabCut")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two proposers are named {repeated[0]!r}")
    if images is None and (looking := [p.name for p in proposers if p.needs_picture]):
        raise UsageError(
            f"proposer {looking[0]} needs the pictures; pass the folder that holds them as images=DIR"
        )


def _check_folder(folder: Path, dataset: Dataset) -> None:
    """Refuse a folder of something else, which would be replaced."""
    if folder.resolve() == Path(dataset.source).expanduser().resolve():
        raise UsageError(f"{folder} holds the original set; choose another output_dir")
    there = [name for name in MADE if (folder / name).exists()]
    if there and not (folder / PARTS).is_dir():
        raise UsageError(
            f"{folder} holds {', '.join(there)} that no construction wrote; choose another output_dir"
        )


def _find_out(
    work: Work, parts: Parts, engine: Engine, settled: Settled | None
) -> tuple[list[ImageResult], int]:
    """What is found out about every image, in their order, and how many were not known already."""
    n_images = work.store.dataset.n_images
    source = _source_token(work.store.dataset)
    tokens = [_picture_token(work.images, image, source) for image in range(n_images)]
    results: dict[int, ImageResult] = {}
    for image, token in enumerate(tokens):
        if (known := parts.get(image, token)) is not None:
            results[image] = known
            if settled is not None:
                settled(known)
    todo = [image for image in range(n_images) if image not in results]
    for result in _outcomes(engine, todo, work):
        parts.put(result, tokens[result.image])
        results[result.image] = result
        if settled is not None:
            settled(result)
    return [results[image] for image in range(n_images)], len(todo)


def _outcomes(
    engine: Engine, images: Sequence[int], work: Work
) -> Generator[ImageResult, None, None]:
    with closing(engine.map(construct_image, images, work)) as outcomes:
        for outcome in outcomes:
            if isinstance(outcome, Lost):
                image_id = int(work.store.dataset.image_ids[outcome.item])
                raise DataError(
                    f"image {image_id}: its worker died each time it was tried: {outcome.reason}"
                )
            yield outcome


def _picture_token(images: Images | None, image: int, source: str) -> str:
    """What tells that a picture is as it was: size and time of its file, else of the source that holds it."""
    if images is None:
        return ""
    try:
        path = images.path(image)
        return source if path is None else _looks([path])
    except (OSError, DataError):
        return "absent"


def _source_token(dataset: Dataset) -> str:
    """The same of a whole source: its commit, or the size and time of its files."""
    path = Path(dataset.source).expanduser()
    if dataset.revision or not path.exists():
        return dataset.revision or dataset.source
    return _looks(files_below(path) if path.is_dir() else [path])


def _looks(paths: Sequence[Path]) -> str:
    looks = ((path.name, path.stat()) for path in paths)
    return " ".join(f"{name} {status.st_size} {status.st_mtime_ns}" for name, status in looks)


def _about_filter(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of the filter: of the words only how many and their hash, for a list of slurs is not published."""
    about = {name: value for name, value in identity.items() if name != "words"}
    if words := identity.get("words"):
        about["n_words"] = len(words)
        about["words_hash"] = xxhash.xxh3_128_hexdigest("\n".join(words).encode())
    return about


def _write(
    folder: Path,
    dataset: Dataset,
    decisions: Sequence[Sequence[Decision]],
    audit: Audit,
    about: dict[str, Any],
    images: Images | None,
    pictures: str,
    shard_bytes: int,
) -> dict[str, Any]:
    """Everything beside what is there, then into place."""
    stage = folder / STAGE
    shutil.rmtree(stage, ignore_errors=True)
    try:
        (stage / "data").mkdir(parents=True)
        shards = write_dataset(
            stage / "data",
            dataset.split,
            dataset,
            decisions,
            images,
            pictures=pictures,
            shard_bytes=shard_bytes,
        )
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from None
    kept = sum(any(not d.cause for d in of_image) for of_image in decisions)
    summary = {
        "schema": "refcocom-construct",
        "version": 1,
        "made_with": __version__,
        **about,
        "images": {"original": dataset.n_images, "kept": kept},
        "split": dataset.split,
        "fingerprint": _fingerprint(stage, dataset, kept),
        "content": hash_files(shards),
    }
    write_files(
        stage / "audit",
        {
            **{f"{name}.parquet": parquet_bytes(table) for name, table in audit._asdict().items()},
            "contact_sheet.png": contact_sheet(dataset, audit.instances, images),
        },
    )
    write_files(
        stage,
        {
            "README.md": _card(summary).encode(),
            SUMMARY: (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode(),
        },
    )
    _move(stage, folder)
    return summary


def _fingerprint(stage: Path, dataset: Dataset, kept: int) -> str | None:
    """Of the written set, read back by our own loader with its checks; None where nothing is left to score."""
    if not kept:
        return None
    with warnings.catch_warnings():
        # It is not RefCOCO-M, and does not say so before its summary is there.
        warnings.simplefilter("ignore", UserWarning)
        return load_dataset(stage / "data", split=dataset.split, key=dataset.key).fingerprint


def _card(summary: Mapping[str, Any]) -> str:
    try:
        import jinja2
    except ImportError:
        raise UsageError("the card needs Jinja2: pip install 'refcocom-gpu[construct]'") from None
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    template = environment.from_string(Path(__file__).with_name("card.md.j2").read_text("utf-8"))
    return template.render(
        name=f"{Path(summary['original']['source']).stem}-M",
        causes=CAUSES,
        expression_causes={**EXPRESSION_CAUSES, "instance": "its instance was removed"},
        **{
            **summary,
            "filter": {"classifier": None, "n_words": 0, "words_hash": "", **summary["filter"]},
        },
    )


def _move(stage: Path, folder: Path) -> None:
    """What was staged, into place; the summary goes first of the old and comes last of the new."""
    (folder / SUMMARY).unlink(missing_ok=True)
    for name in (JUDGE, *MADE):
        target = folder / name
        if target.is_dir():
            shutil.rmtree(target)
        if name in MADE:
            (stage / name).replace(target)
    stage.rmdir()
