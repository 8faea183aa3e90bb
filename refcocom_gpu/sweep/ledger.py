"""Counts of finished files in, the same counts out in a later sweep: a file is not scored again, whatever its name.

Counts are kept by the hash of all that decides them. `results/{key}.safetensors` appears whole or not at all and is
verified by its own hash when it is opened; a damaged one is ignored. `.known.jsonl` remembers the hashes of files by
size and time of change; without it, files are hashed again. One sweep at a time writes a folder.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from refcocom_gpu.errors import UsageError
from refcocom_gpu.sweep.task import Known, key_of
from refcocom_gpu.utils.cache import Built, DamagedError, open_arrays, write_arrays
from refcocom_gpu.utils.files import TEMPORARY, replacing

RESULTS, KNOWN = "results", ".known.jsonl"


class Kept(NamedTuple):
    """The counts of one set of predictions.

    Attributes:
        counts: [N, 2] int64.
        absent: Indices without a prediction, int64.
        model: The model in the header of the file; None if there is none.
        warnings: What makes the predictions look misread.
    """

    counts: NDArray[np.int64]
    absent: NDArray[np.int64]
    model: str | None
    warnings: tuple[str, ...] = ()


class Ledger:
    """The results in the folder of a sweep; use it within `locked`.

    Attributes:
        folder: Of the sweep.
        finished: Keys whose counts are kept.
        known: For each file, its token when it was hashed, and the hash.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._results = folder / RESULTS
        self._results.mkdir(exist_ok=True)
        for left_by_a_killed_sweep in self._results.glob(f"*{TEMPORARY}"):
            left_by_a_killed_sweep.unlink(missing_ok=True)
        self.finished = {path.stem for path in self._results.glob("*.safetensors")}
        self.known: dict[str, tuple[str, str]] = {}
        lines: list[str] = []
        with contextlib.suppress(FileNotFoundError):
            lines = (folder / KNOWN).read_text("utf-8", "surrogateescape").splitlines()
        for line in lines:
            # A line that a kill cut, or that is no entry, is dropped.
            with contextlib.suppress(ValueError, TypeError):
                file, token, digest = json.loads(line)
                self.known[str(file)] = (str(token), str(digest))
        self._n_lines = len(lines)

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
            return None
        return Kept(
            arrays["counts"],
            arrays["absent"],
            arrays["model"].tobytes().decode() or None,
            tuple(json.loads(arrays["warnings"].tobytes())),
        )

    def note(self, known: Iterable[Known]) -> None:
        """Remember hashes of files."""
        lines = []
        for file, token, digest in known:
            if self.known.get(file) != (token, digest):
                self.known[file] = (token, digest)
                lines.append(json.dumps([file, token, digest]) + "\n")
        if lines:
            self._n_lines += len(lines)
            path = self.folder / KNOWN
            with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as journal:
                journal.write("".join(lines))

    def compact(self) -> None:
        """Write `.known.jsonl` anew with one line per file, once most of its lines are outdated."""
        if self._n_lines <= 2 * len(self.known):
            return
        lines = (json.dumps([k, *v]) + "\n" for k, v in self.known.items())
        with contextlib.suppress(OSError), replacing(self.folder / KNOWN) as temporary:
            temporary.write_text("".join(lines), "utf-8")

    def _path(self, key: str) -> Path:
        return self._results / f"{key}.safetensors"


def _to_bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode("utf-8", "backslashreplace"), np.uint8)
