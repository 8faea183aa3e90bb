"""Counts kept by the hash of all that decides them: a finished file is not scored again, whatever its name.

`results/{key}.safetensors` appears whole or not at all and is verified by its own hash when it is opened; one that is
damaged counts as not there. `.known.jsonl` remembers the hashes of files by size and time of change; without it files
are hashed again, nothing else. One sweep writes a folder at a time.
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
    """Counts of one content.

    Attributes:
        counts: [N, 2] int64.
        absent: Indices without a prediction, int64.
        model: What the file's header says; None where it says nothing.
    """

    counts: NDArray[np.int64]
    absent: NDArray[np.int64]
    model: str | None


class Ledger:
    """The results of one sweep folder; use it within `locked`.

    Attributes:
        folder: Of the sweep.
        finished: Keys that are kept.
        known: File to what told its content and the hash of it.
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
            # A line cut by a kill is dropped, and so is anything that is not ours.
            with contextlib.suppress(ValueError, TypeError):
                file, token, digest = json.loads(line)
                self.known[str(file)] = (str(token), str(digest))
        self._noted = len(lines)

    def put(self, identity: Mapping[str, str], kept: Kept) -> None:
        """Keep counts.

        Raises:
            UsageError: When they cannot be written.
        """
        key = key_of(identity)
        model = np.frombuffer((kept.model or "").encode("utf-8", "backslashreplace"), np.uint8)
        arrays: Built = {"counts": kept.counts, "absent": kept.absent, "model": model}
        try:
            write_arrays(self._path(key), arrays, dict(identity))
        except OSError as error:
            raise UsageError(
                f"cannot write to {self._results}: {error.strerror or error}"
            ) from None
        self.finished.add(key)

    def get(self, identity: Mapping[str, str]) -> Kept | None:
        """Counts kept before, mapped; None where there are none, and where what is there is damaged."""
        key = key_of(identity)
        if key not in self.finished:
            return None
        try:
            arrays = open_arrays(self._path(key), dict(identity))
        except DamagedError:
            self.finished.discard(key)
            return None
        return Kept(arrays["counts"], arrays["absent"], arrays["model"].tobytes().decode() or None)

    def note(self, known: Iterable[Known]) -> None:
        """Remember hashes of files."""
        lines = []
        for file, token, digest in known:
            if self.known.get(file) != (token, digest):
                self.known[file] = (token, digest)
                lines.append(json.dumps([file, token, digest]) + "\n")
        if lines:
            self._noted += len(lines)
            with contextlib.suppress(OSError), self._opened("a") as file_:
                file_.write("".join(lines))

    def compact(self) -> None:
        """Write what is known once per file, when most lines are of former contents."""
        if self._noted <= 2 * len(self.known):
            return
        lines = (json.dumps([k, *v]) + "\n" for k, v in self.known.items())
        with contextlib.suppress(OSError), replacing(self.folder / KNOWN) as temporary:
            temporary.write_text("".join(lines), "utf-8")

    def _opened(self, mode: str):  # type: ignore[no-untyped-def]
        return (self.folder / KNOWN).open(mode, encoding="utf-8")

    def _path(self, key: str) -> Path:
        return self._results / f"{key}.safetensors"
