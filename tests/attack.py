"""An attack on all that is kept and read: kills, flipped bits, full disks, pipes, devices and bombs; a table out.

    python tests/attack.py [kills] [flips] [disks] [traps] [--kills 100] [--flips 300] [--seed 0]

Each attempt runs in a fork of this process, with a limit of time and of memory. What is counted:

- wrong: a number that differs from the one without the attack, or a folder that does, after the command was run again
- hang: an attempt that does not end within its time
- traceback: an end by anything but success or an error of this package
- lost: work that was kept before a kill and is not kept after it

The exit code is 1 if any of these is not 0.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# Imported before the forks, so that an attempt begins at once.
import refcocom_gpu as rc
import refcocom_gpu.cli.verbs.cache
import refcocom_gpu.cli.verbs.compare
import refcocom_gpu.cli.verbs.construct
import refcocom_gpu.cli.verbs.score
import refcocom_gpu.cli.verbs.sweep
import refcocom_gpu.scores.leaderboard
from refcocom_gpu.cli.main import main
from refcocom_gpu.dataset.sample import make_predictions, make_records

SECONDS = 120
"""An attempt that takes longer hangs: the longest takes some seconds on a machine that does nothing else."""

MOST_STARTS = 10
"""For each kill, so many starts at most: some end before they are killed."""

ROOM = 2 * 2**30
"""Bytes that an attempt may map beyond what this process has; bombs inflate to more."""

RIGHT, REFUSED, WRONG, HANG, TRACEBACK, LOST = (
    *("right", "refused", "wrong", "hang", "traceback", "lost"),
)


class Attempt:
    """A function in a fork of this process, and how it ended.

    Args:
        work: Returns the text of an outcome, or raises. A `RefCOCOMError` is a refusal.
        room: Bytes that it may map beyond what this process has; None for no limit.
        largest_file: Bytes that a file may grow to: a disk that is full; None for no limit.
    """

    def __init__(
        self, work: Callable[[], str], *, room: int | None = ROOM, largest_file: int | None = None
    ) -> None:
        read, write = os.pipe()
        self._read = read
        self.pid = os.fork()
        if self.pid:
            os.close(write)
            return
        os.close(read)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        outcome = TRACEBACK
        try:
            if room is not None:
                mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf(
                    "SC_PAGE_SIZE"
                )
                resource.setrlimit(resource.RLIMIT_AS, (mapped + room, mapped + room))
            if largest_file is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
            outcome = work()
        except rc.RefCOCOMError:
            outcome = REFUSED
        except BaseException as error:
            outcome = f"{TRACEBACK}: {type(error).__name__}: {error}"
        os.write(write, outcome.encode()[:4000])
        os._exit(0)

    def outcome(self, seconds: float = SECONDS) -> str:
        """Wait for the end and return how it ended."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                return (
                    self._said() or f"{TRACEBACK}: the process died by signal {os.WTERMSIG(status)}"
                )
            time.sleep(0.002)
        self.kill()
        return HANG

    def kill(self) -> str:
        """Kill it, and return what it said if it was over before."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return self._said()

    def _said(self) -> str:
        with os.fdopen(self._read, "rb") as file:
            return file.read().decode()


def command(*words: object) -> Callable[[], str]:
    """The command with these words; success is right, the exit codes of named errors are refusals."""

    def run() -> str:
        code = main([str(word) for word in words])
        return {0: RIGHT, 2: REFUSED, 3: REFUSED}.get(code, f"{TRACEBACK}: exit code {code}")

    return run


def is_equal(expected: Any, find: Callable[[], Any]) -> Callable[[], str]:
    """Whether a function returns what it returned without the attack."""

    def run() -> str:
        found = find()
        return RIGHT if found == expected else f"{WRONG}: {found!r:.80} for {expected!r:.80}"

    return run


def contents(folder: Path) -> dict[str, bytes]:
    """All that a folder holds for its users but the keys, which name it; what helps a command to go on is hidden."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(p.startswith(".") for p in path.relative_to(folder).parts)
        and path.name not in {"construct.json", "config.yaml"}
    }


class Arena:
    """Files to attack: a dataset, prediction files of every kind, results, a sweep, a construction and a cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        os.environ["REFCOCOM_CACHE"] = str(self.cache)
        os.chdir(folder)
        self.set = folder / "set.jsonl"
        self.set.write_text("".join(json.dumps(_plain(record)) + "\n" for record in make_records()))
        self.rows = make_predictions(make_records(), "good", 0)
        (folder / "runs").mkdir()
        for k in range(6):
            rows = [*self.rows]
            rows[k] = {**rows[k], "segmentation": None}
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / "runs" / f"step-{k}.jsonl").write_text(text)
        done = Attempt(self._make).outcome(600)
        assert done == RIGHT, done
        self.miou = json.loads((folder / "result" / "summary.json").read_text())["miou"]

    def _make(self) -> str:
        dataset = rc.load_dataset(self.set)
        store = rc.MaskStore.build(dataset)
        with rc.PredictionWriter("preds.parquet", dataset) as writer:
            for index, row in enumerate(self.rows):
                writer.write(index, row["segmentation"])
        rc.score("preds.parquet", store).save("result")
        return command("sweep", *self.sweep("swept"))()

    def sweep(self, name: str) -> list[object]:
        return [
            "runs/*.jsonl",
            f"dataset.path={self.set}",
            f"output_dir={name}",
            "engine.workers=2",
        ]

    def construct(self, name: str) -> list[object]:
        return ["[sample,sample-coarse]", "dataset=sample", "pictures=none", f"output_dir={name}"]


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "image"}


# Kills --------------------------------------------------------------------------------------------


def kills(arena: Arena, n: int, draws: random.Random) -> Iterator[tuple[str, str]]:
    """SIGKILL at any moment of a sweep, a construction and a build of the cache, each then run to its end."""
    whole = Attempt(command("construct", *arena.construct("made"))).outcome(600)
    assert whole == RIGHT, whole
    plans = {
        "sweep killed": (command("sweep", *arena.sweep("killed")), "swept", "killed", n // 2),
        "construct killed": (
            command("construct", *arena.construct("killed-set")),
            *("made", "killed-set", n // 4),
        ),
    }
    for name, (work, intact, folder, times) in plans.items():
        start = time.monotonic()
        shutil.rmtree(folder, ignore_errors=True)
        assert Attempt(work).outcome() == RIGHT
        takes = time.monotonic() - start
        shutil.rmtree(folder)
        kept = 0
        for _ in range(MOST_STARTS * times):
            if times == 0:
                break
            attempt = Attempt(work)
            time.sleep(draws.uniform(0, takes))
            if attempt.kill() == RIGHT:
                # It was over: the next one begins anew.
                shutil.rmtree(folder)
                kept = 0
                continue
            times -= 1
            now = len(
                list(Path(folder).rglob("*.safetensors")) + list(Path(folder).rglob("*.msgpack"))
            )
            yield name, LOST if now < kept else RIGHT
            kept = now
        ended = Attempt(work).outcome()
        yield (
            name,
            ended
            if ended != RIGHT
            else is_equal(contents(Path(intact)), lambda folder=folder: contents(Path(folder)))(),
        )
    for _ in range(n - n // 2 - n // 4):
        shutil.rmtree(arena.cache, ignore_errors=True)
        attempt = Attempt(command("cache", "build", f"dataset.path={arena.set}"))
        time.sleep(draws.uniform(0, 0.6))
        attempt.kill()
        yield (
            "cache killed",
            Attempt(is_equal(arena.miou, lambda: _score("preds.parquet", arena))).outcome(),
        )


def _score(predictions: str, arena: Arena) -> float:
    return float(rc.score(predictions, rc.load_dataset(arena.set)).miou)


# Flipped bits -------------------------------------------------------------------------------------


def flips(arena: Arena, n: int, draws: random.Random) -> Iterator[tuple[str, str]]:
    """A bit of one kept file, then what reads it."""
    swept = contents(Path("swept"))

    def again() -> dict[str, bytes]:
        assert main(["sweep", *map(str, arena.sweep("swept")), "quiet=true"]) == 0
        return contents(Path("swept"))

    kept: dict[str, tuple[list[Path], Any, Callable[[], Any]]] = {
        "store and records": (
            sorted(arena.cache.rglob("*.safetensors")),
            arena.miou,
            lambda: _score("preds.parquet", arena),
        ),
        "result": (
            sorted(Path("result").iterdir()),
            arena.miou,
            lambda: rc.load_results("result").miou,
        ),
        "predictions we wrote": (
            [Path("preds.parquet")],
            arena.miou,
            lambda: _score("preds.parquet", arena),
        ),
        "sweep": (
            sorted(path for path in Path("swept").rglob("*") if path.is_file()),
            swept,
            again,
        ),
    }
    for turn in range(n):
        name = list(kept)[turn % len(kept)]
        files, expected, find = kept[name]
        path = draws.choice([file for file in files if file.stat().st_size])
        intact = path.read_bytes()
        stat = path.stat()
        damaged = bytearray(intact)
        at = draws.randrange(8 * len(damaged))
        damaged[at // 8] ^= 1 << at % 8
        path.write_bytes(damaged)
        # A disk that rots leaves the times of its files alone.
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        outcome = Attempt(is_equal(expected, find)).outcome()
        if outcome not in (RIGHT, REFUSED):
            outcome += f" ({path}, bit {at})"
        yield f"a bit of: {name}", outcome
        path.write_bytes(intact)


# Full disks ---------------------------------------------------------------------------------------


def full_disks(arena: Arena, draws: random.Random) -> Iterator[tuple[str, str]]:
    """No file may grow beyond a size; then the same work with room."""
    store_of = f"dataset.path={arena.set}"
    works = {
        "score": (command("score", "preds.parquet", store_of, "output_dir=full"), "full"),
        "sweep": (command("sweep", *arena.sweep("full")), "full"),
        "construct": (command("construct", *arena.construct("full")), "full"),
        "cache": (command("cache", "build", store_of), None),
        "writer": (lambda: _write(arena, "full.parquet"), None),
    }
    for name, (work, folder) in works.items():
        for size in (0, 100, 1_000, 4_096, 20_000, 100_000):
            for left in ("full", "full.parquet", "full.parquet.partial"):
                shutil.rmtree(left, ignore_errors=True) if Path(left).is_dir() else Path(
                    left
                ).unlink(missing_ok=True)
            if name == "cache":
                shutil.rmtree(arena.cache, ignore_errors=True)
            # The cache tells of what it cannot keep and goes on without it.
            outcome = Attempt(work, largest_file=size).outcome()
            yield f"full disk: {name}", outcome
            if folder == "full" and outcome == REFUSED:
                half = [p for p in Path("full").rglob("*.json") if not _is_json(p)]
                yield f"full disk: {name}", f"{WRONG}: half of {half}" if half else RIGHT
            yield (
                f"full disk: {name}, then room",
                Attempt(is_equal(arena.miou, lambda: _score("preds.parquet", arena))).outcome(),
            )
            if outcome != RIGHT and name != "cache":
                yield f"full disk: {name}, then room", Attempt(work).outcome()


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except ValueError:
        return False
    return True


def _write(arena: Arena, path: str) -> str:
    dataset = rc.load_dataset(arena.set)
    with rc.PredictionWriter(path, dataset, overwrite=True) as writer:
        for index, row in enumerate(arena.rows):
            writer.write(index, row["segmentation"])
    return is_equal(arena.miou, lambda: _score(path, arena))()


# Pipes, devices and bombs -------------------------------------------------------------------------


def traps(arena: Arena) -> Iterator[tuple[str, str]]:
    """Files that never end or inflate without bound, at every place that takes a path."""
    made = Path("traps")
    made.mkdir(exist_ok=True)
    for suffix in (
        "jsonl",
        "json",
        "jsonl.gz",
        "parquet",
        "npz",
        "safetensors",
        "pt",
        "zip",
        "tar",
        "arrow",
    ):
        os.mkfifo(made / f"pipe.{suffix}")
        (made / f"zero.{suffix}").symlink_to("/dev/zero")
        (made / f"full.{suffix}").symlink_to("/dev/full")
    (made / "pngs").mkdir()
    os.mkfifo(made / "pngs" / "20002_0.png")
    bombs(made, arena)
    dataset = f"dataset.path={arena.set}"
    for path in sorted(made.iterdir()):
        kind = "bomb" if "bomb" in path.name else "pipe or device"
        yield f"{kind}: score", _never_right(Attempt(command("score", path, dataset)).outcome())
        yield (
            f"{kind}: sweep",
            _never_right(
                Attempt(
                    command("sweep", path, dataset, f"output_dir={made / 'out'}", "quiet=true")
                ).outcome()
            ),
        )
        shutil.rmtree(made / "out", ignore_errors=True)
        if kind != "bomb":
            yield (
                f"{kind}: construct",
                _never_right(
                    Attempt(
                        command(
                            "construct",
                            f"[{path},sample]",
                            "dataset=sample",
                            f"output_dir={made / 'out'}",
                        )
                    ).outcome()
                ),
            )
            yield (
                f"{kind}: dataset",
                _never_right(Attempt(command("score", "sample", f"dataset.path={path}")).outcome()),
            )
    for closed in ("/dev/full",):
        yield "stdout is full", Attempt(lambda closed=closed: _to(closed, arena)).outcome()


def _never_right(outcome: str) -> str:
    return f"{WRONG}: it was scored" if outcome == RIGHT else outcome


def _to(path: str, arena: Arena) -> str:
    """Score with this as stdout, in a process of its own, whose end flushes."""
    import subprocess

    with open(path, "w") as file:  # noqa: PTH123
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "refcocom_gpu",
                "score",
                "preds.parquet",
                f"dataset.path={arena.set}",
            ],
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
        )
    if "Traceback" in done.stderr or not done.returncode:
        return f"{TRACEBACK}: {done.stderr[-300:]}"
    return REFUSED


def bombs(folder: Path, arena: Arena) -> None:
    """Small files that claim or become gigabytes."""
    key = "_".join(map(str, rc.load_dataset("sample").key_of(0)))
    zeros = bytes(2**24)
    for suffix, names in (("npz", [key]), ("zip", [key])):
        with zipfile.ZipFile(folder / f"bomb.{suffix}", "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    header = str(
                        {"descr": "|b1", "fortran_order": False, "shape": (60_000, 60_000)}
                    )
                    head = header.encode().ljust(117) + b"\n"
                    member.write(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
                    for _ in range(60_000 * 60_000 // len(zeros)):
                        member.write(zeros)
    row = json.dumps({**arena.rows[0], "segmentation": None}).encode()
    with gzip.open(folder / "bomb-line.jsonl.gz", "wb", 9) as file:
        file.write(row[:-1] + b', "x": "')
        for _ in range(256):
            file.write(b"x" * 2**24)
    with gzip.open(folder / "bomb-lines.jsonl.gz", "wb", 9) as file:
        line = (row + b"\n") * 10_000
        for _ in range(400):
            file.write(line)
    pq.write_table(
        pa.table(
            {
                "sample_id": [1],
                "sentence_idx": [0],
                "segmentation": [{"size": [1, 1], "counts": "x" * 2**28}],
            }
        ),
        folder / "bomb.parquet",
        compression="zstd",
    )
    head = json.dumps(
        {key: {"dtype": "BOOL", "shape": [60_000, 60_000], "data_offsets": [0, 3_600_000_000]}}
    ).encode()
    (folder / "bomb.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
    from PIL import Image

    (folder / "bomb-pngs").mkdir()
    Image.fromarray(np.zeros((20_000, 20_000), np.uint8)).save(folder / "bomb-pngs" / f"{key}.png")


# The table ----------------------------------------------------------------------------------------


def attack(
    n_kills: int, n_flips: int, seed: int, parts: Sequence[str] = ()
) -> tuple[dict[str, Counter[str]], list[str]]:
    """Run all parts, or some, and return how many attempts of each kind ended how, and what was found."""
    draws = random.Random(seed)
    table: dict[str, Counter[str]] = {}
    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        arena = Arena(Path(folder))
        attacks = {
            "kills": lambda: kills(arena, n_kills, draws),
            "flips": lambda: flips(arena, n_flips, draws),
            "disks": lambda: full_disks(arena, draws),
            "traps": lambda: traps(arena),
        }
        for part in parts or attacks:
            for name, outcome in attacks[part]():
                end = outcome.partition(":")[0].partition(" (")[0]
                table.setdefault(name, Counter())[end] += 1
                if end not in (RIGHT, REFUSED):
                    found.append(f"{name}: {outcome}")
                    sys.stderr.write(f"{found[-1]}\n")
        os.chdir("/")
    return table, found


def printed(table: dict[str, Counter[str]]) -> str:
    """The table in Markdown."""
    ends = (RIGHT, REFUSED, WRONG, HANG, TRACEBACK, LOST)
    lines = [f"| attack | attempts | {' | '.join(ends)} |", "|---|" + "---:|" * (len(ends) + 1)]
    for name, counts in table.items():
        numbers = [counts.total(), *(counts[end] for end in ends)]
        lines.append(f"| {name} | " + " | ".join(map(str, numbers)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--flips", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("parts", nargs="*", help="kills, flips, disks, traps; all by default")
    chosen = parser.parse_args()
    outcomes, faults = attack(chosen.kills, chosen.flips, chosen.seed, chosen.parts)
    sys.stdout.write(f"{printed(outcomes)}\n")
    sys.exit(bool(faults))
