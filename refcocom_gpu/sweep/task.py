"""A store and one set of predictions in, its `FileResult` out: the one task of a sweep, the same for every engine."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import refcocom_kernels
import xxhash
from numpy.typing import NDArray

import refcocom_gpu
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import RefCOCOMError, UsageError
from refcocom_gpu.predictions.header import model_of
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.scorer import count, is_built_in
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.sweep.contents import (
    at_hand,
    combined,
    digest_of,
    is_url,
    remote_token,
    token_of,
)
from refcocom_gpu.sweep.item import Item

Known = tuple[str, str, str]
"""A file, what told its content when it was hashed, and the hash."""


@dataclass(frozen=True, eq=False)
class FileResult:
    """What became of one set of predictions.

    Attributes:
        path: As the user named it.
        model: From the manifest, else from the file's header, else what tells its path from the others'.
        columns: The manifest's other columns.
        counts: [N, 2] int64 intersection and predicted area; None where there is an error.
        absent: Indices of examples without a prediction, scored as empty (`missing=zero`), int64.
        error: Why there are no counts.
        digest: 32 hex digits, the hash of what was read; None where nothing could be.
        header_model: The model that the file names.
        known: What need not be hashed again, of remote files.
    """

    path: str
    model: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    counts: NDArray[Any] | None = None
    absent: NDArray[Any] | None = None
    error: str | None = None
    digest: str | None = None
    header_model: str | None = None
    known: tuple[Known, ...] = ()


@dataclass(frozen=True)
class Options:
    """How predictions are counted.

    Attributes:
        missing: As for `score`.
        values: As for `score`.
        letterbox: As for `score`.
        resize: As for `score`.
        polygons: As for `score`.
        batch_size: As for `score`.
        threads: CPU threads of one task.
        device: Where a worker counts.
        code: `code_version()` of whoever keeps the results.
        finished: Keys whose counts are kept: such an item is hashed, not scored.
        known: Remote files whose content was hashed before.
    """

    missing: str = "error"
    values: str = "logits"
    letterbox: int | None = None
    resize: str = "direct"
    polygons: str | None = None
    batch_size: int = 256
    threads: int = 1
    device: str = "cpu"
    code: str = ""
    finished: frozenset[str] = frozenset()
    known: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def reading(self) -> ReadOptions:
        """What the files cannot say of themselves."""
        return ReadOptions(self.values, self.letterbox, self.resize, self.polygons, self.batch_size)

    def identity(self, dataset: Dataset, digest: str, formats: str) -> dict[str, str]:
        """All that decides the counts of a set of predictions, and nothing else."""
        counted = {
            name: value
            for name, value in asdict(self).items()
            if name in ("missing", "values", "letterbox", "resize", "polygons")
        }
        return {
            "predictions": digest,
            "formats": formats,
            "dataset": dataset.fingerprint,
            "key": dataset.key,
            "options": json.dumps(counted, sort_keys=True),
            "code": self.code,
        }


def key_of(identity: Mapping[str, str]) -> str:
    """The name under which counts are kept, 32 hex digits."""
    return xxhash.xxh3_128_hexdigest(json.dumps(identity, sort_keys=True).encode())


@functools.cache
def code_version() -> str:
    """The package's version and a hash of its sources and the kernels': counts of other code are not taken for ours."""
    digest = xxhash.xxh3_64()
    for package in (refcocom_gpu, refcocom_kernels):
        root = Path(str(package.__file__)).parent
        for source in sorted(root.rglob("*.py")):
            digest.update(source.relative_to(root).as_posix().encode())
            digest.update(source.read_bytes())
    return f"{refcocom_gpu.__version__}-{digest.hexdigest()}"


def score_file(store: MaskStore, item: Item, options: Options) -> FileResult:
    """Fetch, hash and count one set of predictions; whatever is wrong with it becomes its error.

    Args:
        store: Ground truth.
        item: What is scored.
        options: How.

    Raises:
        UsageError: When this process runs other code than the one that keeps the results.
    """
    if options.code not in ("", code_version()):
        raise UsageError(
            f"a worker runs refcocom-gpu {code_version()}, the sweep {options.code}: install the same on every node"
        )
    try:
        return _score(store, item, options)
    except (RefCOCOMError, OSError) as error:
        return failed(item, said(error))
    except Exception as error:
        # A mistake of ours in one file of thousands; the others are scored all the same.
        return failed(item, f"unexpected {type(error).__name__}: {error}")


def failed(item: Item, error: str) -> FileResult:
    """The result of an item that has no counts."""
    return FileResult(item.path, item.model or item.place, item.columns, error=error)


def said(error: Exception) -> str:
    """An error as one says it to whoever named the file."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be read: {error.strerror}"
    return str(error)


def _score(store: MaskStore, item: Item, options: Options) -> FileResult:
    known: list[Known] = []
    digest = _known_digest(item, options)
    if digest is not None and _is_finished(store, item, options, digest):
        return FileResult(item.path, item.model or item.place, item.columns, digest=digest)
    if len(item.files) == 1 and is_built_in(item.files[0]):
        counted = count(
            item.files[0],
            store.to(options.device),
            options.reading,
            missing=options.missing,
            threads=options.threads,
        )
        return _result(item, counted.counts, counted.absent, built_in_digest(item), None, known)
    with ExitStack() as stack:
        tokens = [remote_token(file) if is_url(file) else None for file in item.files]
        paths = [stack.enter_context(at_hand(file)) for file in item.files]
        before = [token_of(path, settled=False) for path in paths]
        digests = [digest_of([path]) for path in paths]
        digest = combined(digests)
        known += [
            (file, token, of_file)
            for file, token, of_file in zip(item.files, tokens, digests, strict=True)
            if token is not None
        ]
        said_model = next((model for path in paths if (model := model_of(path))), None)
        if _is_finished(store, item, options, digest):
            return _result(item, None, None, digest, said_model, known)
        try:
            counted = count(
                paths,
                store.to(options.device),
                options.reading,
                missing=options.missing,
                threads=options.threads,
            )
        except RefCOCOMError as error:
            # Of what was fetched the user knows the address, not the temporary name.
            text = str(error)
            for file, path in zip(item.files, paths, strict=True):
                text = text.replace(str(path), file) if is_url(file) else text
            return failed(item, text)
        if before != [token_of(path, settled=False) for path in paths]:
            return failed(item, f"{item.path} changed while it was read; run the sweep again")
        return _result(item, counted.counts, counted.absent, digest, said_model, known)


def _result(
    item: Item,
    counts: NDArray[Any] | None,
    absent: NDArray[Any] | None,
    digest: str,
    said_model: str | None,
    known: list[Known],
) -> FileResult:
    return FileResult(
        path=item.path,
        model=item.model or said_model or item.place,
        columns=item.columns,
        counts=counts,
        absent=absent,
        digest=digest,
        header_model=said_model,
        known=tuple(known),
    )


def built_in_digest(item: Item) -> str:
    """The built-in predictions are decided by their name and the code."""
    return xxhash.xxh3_128_hexdigest(f"built in: {item.files[0]}".encode())


def _is_finished(store: MaskStore, item: Item, options: Options, digest: str) -> bool:
    if not options.finished:
        return False
    return key_of(options.identity(store.dataset, digest, item.formats)) in options.finished


def _known_digest(item: Item, options: Options) -> str | None:
    """The digest of remote files that are as they were when they were hashed; None where one is not, or is local."""
    digests = []
    for file in item.files:
        token, digest = options.known.get(file, (None, ""))
        if token is None or remote_token(file) != token:
            return None
        digests.append(digest)
    return combined(digests)
