"""An original set and proposers in; a refined dataset, its card and its audit out. Interrupted, it continues."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from refcocom_gpu.construct.audit import Audit, counts_of, make_audit
from refcocom_gpu.construct.beside import adopt_earlier, work_folder
from refcocom_gpu.construct.card import about_filter, public_name
from refcocom_gpu.construct.filter import ExpressionFilter, HarmFilter
from refcocom_gpu.construct.folder import check_folder, write_folder
from refcocom_gpu.construct.image import Work, construct_image
from refcocom_gpu.construct.instances import Proposer
from refcocom_gpu.construct.keep import decide
from refcocom_gpu.construct.measurements import ImageResult
from refcocom_gpu.construct.parts import Parts, picture_states
from refcocom_gpu.construct.pictures import check_pictures
from refcocom_gpu.construct.rules import Rules
from refcocom_gpu.construct.write import Output
from refcocom_gpu.dataset.images import Images
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.engines import make_engine
from refcocom_gpu.engines.engine import Engine, Lost
from refcocom_gpu.errors import DataError, UsageError
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.sweep.task import code_version
from refcocom_gpu.utils.files import locked

Settled = Callable[[ImageResult], None]


@dataclass(frozen=True, eq=False)
class Construction:
    """The result of a construction.

    Attributes:
        folder: Folder of the dataset.
        summary: The content of `construct.json`: counts by cause, rules, proposers, fingerprints.
        audit: The tables of `audit/`.
        n_done: Number of images worked on; the others were kept from before.
    """

    folder: Path
    summary: dict[str, Any]
    audit: Audit
    n_done: int


def construct(
    dataset: Dataset,
    output: Output,
    proposers: Sequence[Proposer],
    *,
    rules: Rules | None = None,
    expression_filter: ExpressionFilter | None = None,
    images: Images | None = None,
    engine: Engine | None = None,
    settled: Settled | None = None,
) -> Construction:
    """Make a refined dataset of an original one.

    The folder holds the dataset in RefCOCO-M's published features (`data/`), its card (`README.md`), the audit
    (`audit/`) and a summary (`construct.json`). The same input gives the same bytes, whatever the engine. The
    measurements of each image are kept beside it, in a folder of the same name with `.work`, so that an interrupted
    construction continues, and other thresholds ask no proposer again.

    Args:
        dataset: The original set.
        output: The folder, and how the set is written there.
        proposers: Who proposes masks, at least one, each with another name.
        rules: The thresholds; the defaults of `Rules` where absent.
        expression_filter: Finds harm in expressions; without one, nothing is harmful.
        images: The pictures; needed where a proposer looks at them or the written set must hold them.
        engine: Where images are worked on; threads by default.
        settled: Called with the result of each image as soon as it is known, in any order.

    Returns:
        The summary, the audit and where they are.

    Raises:
        UsageError: The request is wrong, the folder cannot be written, or another construction is writing there.
        DataError: A proposer or the text classifier returns something unusable, or a needed picture cannot be used.
            Nothing is written then.
    """
    rules, engine = rules or Rules(), engine or make_engine("threads")
    expression_filter = expression_filter or HarmFilter()
    _check_proposers(proposers)
    pictures = check_pictures(images, output.pictures, proposers, rules)
    store = MaskStore.build(dataset)
    shared_store = store.detached() if engine.elsewhere else store
    work = Work(shared_store, pictures.measured, tuple(proposers), expression_filter, rules)
    check_folder(output, dataset)
    folder = Path(output.folder)
    with locked(work_folder(folder), "construction") as beside:
        adopt_earlier(folder)
        identity: dict[str, Any] = {
            "dataset": dataset.fingerprint,
            "proposers": {p.name: p.identity() for p in proposers},
            "filter": expression_filter.identity(),
            "agree": [rules.consensus, rules.islands, rules.holes],
            "code": code_version(),
        }
        results, n_done = _measure_images(work, Parts(beside, identity), engine, settled)
        pictures.check_results(results, rules)
        n_sentences = np.diff(dataset.first_example)
        decisions = [
            decide(result, [int(n_sentences[m.sample]) for m in result.instances], rules)
            for result in results
        ]
        audit = make_audit(dataset, results, decisions, store.areas.tolist())
        about = {
            "original": {
                "source": public_name(dataset.source),
                "revision": dataset.revision,
                "split": dataset.split,
                "fingerprint": dataset.fingerprint,
                "n_dropped": dataset.n_dropped,
            },
            "counts": counts_of(audit),
            "rules": rules.identity(),
            "proposers": identity["proposers"],
            "filter": about_filter(identity["filter"]),
        }
        summary = write_folder(output, dataset, decisions, audit, about, pictures)
    return Construction(folder, summary, audit, n_done)


def _check_proposers(proposers: Sequence[Proposer]) -> None:
    names = [proposer.name for proposer in proposers]
    if not names:
        raise UsageError("nobody proposes masks: give predictions, a SAM-family model, or GrabCut")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two proposers are named {repeated[0]!r}")


def _measure_images(
    work: Work, parts: Parts, engine: Engine, settled: Settled | None
) -> tuple[list[ImageResult], int]:
    """The measurements of every image, in the order of the dataset, and how many were not kept from before."""
    settled = settled or (lambda result: None)
    dataset = work.store.dataset
    states = picture_states(dataset, work.images)
    results: dict[int, ImageResult] = {}
    for image, state in enumerate(states):
        if (kept := parts.get(image, state)) is not None:
            results[image] = kept
            settled(kept)
    todo = [image for image in range(dataset.n_images) if image not in results]
    for result in _outcomes(engine, todo, work):
        parts.put(result, states[result.image])
        results[result.image] = result
        settled(result)
    return [results[image] for image in range(dataset.n_images)], len(todo)


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
