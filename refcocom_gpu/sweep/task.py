"""A store and one set of predictions in, its `FileResult` out: the task of a sweep, the same for every engine."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import refcocom_kernels
import xxhash
from numpy.typing import NDArray

from refcocom_gpu import errors
from refcocom_gpu._version import __version__
from refcocom_gpu.counting.measures import IOU
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import RefCOCOMError, UsageError
from refcocom_gpu.masks.rle import Column
from refcocom_gpu.predictions.header import model_of
from refcocom_gpu.predictions.options import ReadOptions, refuse_boxes
from refcocom_gpu.predictions.read import Source
from refcocom_gpu.scorer import Counted, count
from refcocom_gpu.scores.about import left_out
from refcocom_gpu.scores.sweep_folder import Product
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.sweep.contents import at_hand, is_url, remote_token
from refcocom_gpu.sweep.item import Item
from refcocom_gpu.utils.changes import token_of
from refcocom_gpu.utils.files import combine_hashes, hash_file, regular

Known = tuple[str, str, str]
"""A file, its token when it was hashed, and the hash."""


class LocalHash(NamedTuple):
    """The hash of a local file.

    Attributes:
        token: `token_of` the file when it was hashed.
        digest: 32 hex digits.
    """

    token: str
    digest: str


@dataclass(frozen=True, eq=False)
class Work:
    """The work on one set of predictions, as an engine gets it.

    Attributes:
        number: Of the item in the sweep.
        item: The set of predictions.
        hashes: For each file its hash, or None if it is not hashed yet.
    """

    number: int
    item: Item
    hashes: tuple[LocalHash | None, ...]


@dataclass(frozen=True, eq=False)
class FileResult:
    """The outcome of one set of predictions.

    Attributes:
        path: As the user gave it.
        model: From the manifest, else from the header of the file, else `Item.place`.
        columns: The other columns of the manifest.
        counts: [N, 2] int64 intersection and predicted area; None if there is an error.
        absent: Indices of examples without a prediction, scored as empty (`missing=zero`), int64.
        measured: Columns of metrics besides IoU, by name, as of `scorer.Counted`.
        error: Why there are no counts.
        warnings: What makes the predictions look misread.
        digest: 32 hex digits, the hash of what was read; None if nothing could be read.
        header_model: The model in the header of the file.
        known: Hashes of remote files, for the next sweep.
        masks: N masks that were counted; only from a worker that was to save them.
        masks_file: Where they are kept.
    """

    path: str
    model: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    counts: NDArray[Any] | None = None
    absent: NDArray[Any] | None = None
    measured: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    error: str | None = None
    warnings: tuple[str, ...] = ()
    digest: str | None = None
    header_model: str | None = None
    known: tuple[Known, ...] = ()
    masks: Column | None = None
    masks_file: Product | None = None


@dataclass(frozen=True)
class Options:
    """How predictions are counted.

    Attributes:
        reading: How they are read.
        missing: As for `score`.
        metrics: What is counted, from `chosen_metrics`.
        save_masks: Whether the masks that are counted are kept too. No count depends on it.
        device: Where a worker counts.
        code: `code_version()` of the process that keeps the results.
        finished: Keys whose counts are kept; an item with such a key is hashed but not scored.
        known: Remote files that were hashed before, each with its token and hash.
    """

    reading: ReadOptions = field(default_factory=lambda: ReadOptions(threads=1))
    missing: str = "error"
    metrics: tuple[str, ...] = (IOU,)
    save_masks: bool = False
    device: str = "cpu"
    code: str = ""
    finished: frozenset[str] = frozenset()
    known: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        refuse_boxes(self.reading, "a sweep")

    @property
    def deciding(self) -> dict[str, Any]:
        """The options that decide counts. Metrics are among them if any besides IoU are counted."""
        metrics = {} if self.metrics == (IOU,) else {"metrics": list(self.metrics)}
        return {"missing": self.missing, **self.reading.deciding(), **metrics}

    def identity(self, dataset: Dataset, digest: str, formats: str) -> dict[str, str]:
        """Return exactly what decides the counts of a set of predictions."""
        return {
            "predictions": digest,
            "formats": formats,
            "dataset": dataset.fingerprint,
            "key": dataset.key,
            "options": json.dumps(self.deciding),
            "code": self.code,
        }


def key_of(identity: Mapping[str, str]) -> str:
    """Return the name under which counts are kept, 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(json.dumps(identity, sort_keys=True).encode())


@functools.cache
def code_version() -> str:
    """Return the version and a hash of the sources, so that counts of other code are not used."""
    digest = xxhash.xxh3_64()
    for module in (errors, refcocom_kernels):
        root = Path(str(module.__file__)).parent
        for source in sorted(root.rglob("*.py")):
            digest.update(source.relative_to(root).as_posix().encode())
            digest.update(source.read_bytes())
    return f"{__version__}-{digest.hexdigest()}"


def score_file(store: MaskStore, work: Work, options: Options) -> FileResult:
    """Fetch, hash and count one set of predictions; if this fails, the result holds the error.

    Args:
        store: Ground truth.
        work: The set of predictions.
        options: How it is counted.

    Raises:
        UsageError: When the process that keeps the results runs other code.
    """
    if options.code not in ("", code_version()):
        raise UsageError(
            f"a worker runs refcocom-gpu {code_version()}, the sweep {options.code}: install the same on every node"
        )
    try:
        return _score(store, work, options)
    except (RefCOCOMError, OSError) as error:
        return failed(work.item, message_of(error))
    except Exception as error:
        # A bug of this package, met in one file of thousands; the others are scored all the same.
        return failed(work.item, f"unexpected {type(error).__name__}: {error}")


def failed(item: Item, error: str) -> FileResult:
    """Return the result of an item that has no counts."""
    return FileResult(item.path, item.model or item.place, item.columns, error=error)


def message_of(error: Exception) -> str:
    """Return the message of an error for the person who named the file."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be read: {error.strerror}"
    return str(error)


def _score(store: MaskStore, work: Work, options: Options) -> FileResult:
    item = work.item
    digest = _known_digest(item, options)
    if digest is not None and _is_finished(store, item, options, digest):
        return FileResult(item.path, item.model or item.place, item.columns, digest=digest)
    with ExitStack() as stack:
        remote_tokens = [remote_token(file) if is_url(file) else None for file in item.files]
        paths = [regular(stack.enter_context(at_hand(file))) for file in item.files]
        tokens = [token_of(path) for path in paths]
        digests = [
            hashed.digest if hashed is not None and hashed.token == token else hash_file(path)
            for path, token, hashed in zip(paths, tokens, work.hashes, strict=True)
        ]
        digest = combine_hashes(digests)
        known = tuple(
            (file, token, of_file)
            for file, token, of_file in zip(item.files, remote_tokens, digests, strict=True)
            if token is not None
        )
        header_model = next((model for path in paths if (model := model_of(path))), None)
        if _is_finished(store, item, options, digest):
            return _result(item, None, digest, header_model, known)
        try:
            counted = count(
                Source(item.path, paths),
                store.to(options.device),
                options.reading,
                missing=options.missing,
                metrics=options.metrics,
                save_masks=options.save_masks,
            )
        except RefCOCOMError as error:
            # The user knows the address of a file, not the temporary name under which it was fetched.
            text = str(error)
            for file, path in zip(item.files, paths, strict=True):
                text = text.replace(str(path), file) if is_url(file) else text
            return failed(item, text)
        if tokens != [token_of(path) for path in paths]:
            return failed(item, f"{item.path} changed while it was read; run the sweep again")
        return _result(item, counted, digest, header_model, known)


def _result(
    item: Item,
    counted: Counted | None,
    digest: str,
    header_model: str | None,
    known: tuple[Known, ...],
) -> FileResult:
    return FileResult(
        path=item.path,
        model=item.model or header_model or item.place,
        columns=item.columns,
        counts=None if counted is None else counted.counts,
        absent=None if counted is None else counted.absent,
        measured={} if counted is None else counted.measured or {},
        warnings=() if counted is None else (*counted.warnings, *left_out(counted._asdict())),
        digest=digest,
        header_model=header_model,
        known=known,
        masks=None if counted is None else counted.masks,
    )


def _is_finished(store: MaskStore, item: Item, options: Options, digest: str) -> bool:
    if not options.finished:
        return False
    return key_of(options.identity(store.dataset, digest, item.formats)) in options.finished


def _known_digest(item: Item, options: Options) -> str | None:
    """Return the digest of remote files, all unchanged since they were hashed; otherwise None."""
    digests = []
    for file in item.files:
        token, digest = options.known.get(file, (None, ""))
        if token is None or remote_token(file) != token:
            return None
        digests.append(digest)
    return combine_hashes(digests)
