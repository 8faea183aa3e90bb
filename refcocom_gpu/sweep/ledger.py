"""Counts of finished files in, the same counts out in a later sweep: a file is not scored again, whatever its name.

Counts are kept by the hash of all that decides them. `results/{key}.safetensors` appears whole or not at all and is
verified by its own hash when it is opened; a damaged one is ignored, and what it held is counted again. `.known.jsonl`
remembers the hashes of files by size and time of change: of predictions, and of the per-example files that the sweep
wrote. Each of its lines begins with a hash of the rest; files of damaged lines are hashed or written again. One sweep
at a time writes a folder.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from refcocom_gpu.counting.measures import METRICS
from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores.no_target import PRED_NO_TARGET
from refcocom_gpu.sweep.task import Known, key_of
from refcocom_gpu.utils.cache import Built, DamagedError, open_arrays, write_arrays
from refcocom_gpu.utils.changes import is_settled, token_of
from refcocom_gpu.utils.files import TEMPORARY, hash_file, replacing

RESULTS, KNOWN = "results", ".known.jsonl"


class Kept(NamedTuple):
    """The counts of one set of predictions.

    Attributes:
        counts: [N, 2] int64.
        absent: Indices without a prediction, int64.
        model: The model in the header of the file; None if there is none.
        warnings: What makes the predictions look misread.
        measured: Columns of metrics besides IoU, and of labels, by name, as of `scorer.Counted`.
    """

    counts: NDArray[np.int64]
    absent: NDArray[np.int64]
    model: str | None
    warnings: tuple[str, ...] = ()
    measured: Mapping[str, NDArray[Any]] = MappingProxyType({})


class Ledger:
    """The results in the folder of a sweep; use it within `locked`.

    Attributes:
        folder: Of the sweep.
        finished: Keys whose counts are kept.
        known: For each file, its token when it was hashed, and the hash. Files of predictions have absolute paths or
            addresses, those that the sweep wrote have paths below its folder.
        damaged: Files below the folder that were found damaged or deleted; what they held is made again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._results = folder / RESULTS
        self._results.mkdir(exist_ok=True)
        for left_by_a_killed_sweep in self._results.glob(f"*{TEMPORARY}"):
            left_by_a_killed_sweep.unlink(missing_ok=True)
        self.finished = {path.stem for path in self._results.glob("*.safetensors")}
        self.damaged: set[str] = set()
        self.known: dict[str, tuple[str, str]] = {}
        content = b""
        with contextlib.suppress(FileNotFoundError):
            content = (folder / KNOWN).read_bytes()
        lines = content.split(b"\n")
        # A kill may have cut the last line, which is no damage.
        cut = lines.pop()
        entries = [entry for line in lines if (entry := _entry(line)) is not None]
        self.known = {file: (token, digest) for file, token, digest in entries}
        if len(entries) < len(lines):
            self.damaged.add(KNOWN)
        self._n_lines = len(lines)
        if cut or KNOWN in self.damaged:
            self._write_known()

    def put(self, identity: Mapping[str, str], kept: Kept) -> None:
        """Keep counts.

        Raises:
            UsageError: When they cannot be written.
        """
        key = key_of(identity)
        arrays: Built = {
            "counts": kept.counts,
            "absent": kept.absent,
            "model": _to_bytes(kept.model or ""),
            "warnings": _to_bytes(json.dumps(kept.warnings)),
            **kept.measured,
        }
        try:
            write_arrays(self._path(key), arrays, dict(identity))
        except OSError as error:
            raise UsageError(
                f"cannot write to {self._results}: {error.strerror or error}"
            ) from None
        self.finished.add(key)

    def get(self, identity: Mapping[str, str]) -> Kept | None:
        """Return counts that were kept before, mapped; None if there are none or they are damaged."""
        key = key_of(identity)
        if key not in self.finished:
            return None
        try:
            arrays = open_arrays(self._path(key), dict(identity))
        except DamagedError:
            self.finished.discard(key)
            self.damaged.add(f"{RESULTS}/{key}.safetensors")
            return None
        columns = *(name for metric in METRICS.values() for name in metric.columns), PRED_NO_TARGET
        return Kept(
            arrays["counts"],
            arrays["absent"],
            arrays["model"].tobytes().decode() or None,
            tuple(json.loads(arrays["warnings"].tobytes())),
            {name: arrays[name] for name in columns if name in arrays},
        )

    def note(self, known: Iterable[Known]) -> None:
        """Remember hashes of files."""
        lines = []
        for file, token, digest in known:
            if self.known.get(file) != (token, digest):
                self.known[file] = (token, digest)
                lines.append(_line(file, token, digest))
        if lines:
            self._n_lines += len(lines)
            with contextlib.suppress(OSError), (self.folder / KNOWN).open("ab") as journal:
                journal.write(b"".join(lines))

    def kept_digest(self, file: str, *, verify: bool) -> str | None:
        """Return the hash of a file below the folder; None if no sweep wrote it or it is damaged.

        Args:
            file: Its path below the folder.
            verify: Compare its content also where its size and times of change are as before.
        """
        if file not in self.known:
            return None
        known_token, digest = self.known[file]
        path = self.folder / file
        try:
            token, settled = token_of(path), is_settled(path)
            if verify or not settled or token != known_token:
                if hash_file(path) != digest:
                    raise UsageError(f"{path} does not match its hash")
                if settled and token == token_of(path):
                    self.note([(file, token, digest)])
        except (OSError, UsageError):
            self.damaged.add(file)
            return None
        return digest

    def forget(self, files: Iterable[str]) -> None:
        """Forget hashes of files that are no longer there."""
        for file in files:
            del self.known[file]

    def compact(self) -> None:
        """Write `.known.jsonl` anew with one line per file, once most of its lines are outdated."""
        if self._n_lines > 2 * len(self.known):
            self._write_known()

    def _write_known(self) -> None:
        self._n_lines = len(self.known)
        lines = (_line(file, *known) for file, known in self.known.items())
        with contextlib.suppress(OSError), replacing(self.folder / KNOWN) as temporary:
            temporary.write_bytes(b"".join(lines))

    def _path(self, key: str) -> Path:
        return self._results / f"{key}.safetensors"


def _line(file: str, token: str, digest: str) -> bytes:
    entry = json.dumps([file, token, digest]).encode()
    return b"%s %s\n" % (xxhash.xxh3_64_hexdigest(entry).encode(), entry)


def _entry(line: bytes) -> Known | None:
    """Return what `_line` wrote without its end, None if it is damaged."""
    check, _, entry = line.partition(b" ")
    if check != xxhash.xxh3_64_hexdigest(entry).encode():
        return None
    file, token, digest = json.loads(entry)
    return file, token, digest


def _to_bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode("utf-8", "backslashreplace"), np.uint8)
