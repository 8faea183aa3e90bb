"""Cache files: what is opened is what was written, or it is built again; whatever happens to a builder or a folder."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from refcocom_gpu.utils import cache
from refcocom_gpu.utils.cache import DamagedError, Pieces, cached, held, open_arrays, write_arrays

IDENTITY = {"fingerprint": "f" * 32, "layout": "1", "holds": "test"}


def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "ends": random.integers(0, 1000, 37).astype(np.int32),
        "areas": random.integers(0, 1000, 5),
        "words": random.integers(0, 2**63, 11).astype(np.uint64),
        "empty": np.zeros(0, np.int64),
    }


def assert_equal(loaded: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert loaded.keys() == expected.keys()
    for name, array in expected.items():
        assert loaded[name].dtype == array.dtype
        assert np.array_equal(loaded[name], array), name


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "store" / "runs.safetensors"
    path.parent.mkdir()
    write_arrays(path, arrays(), IDENTITY)
    return path


class Builds(list):
    """A `build` that counts."""

    def __call__(self):
        self.append(1)
        return arrays()


def test_opens_what_was_written(path):
    loaded = open_arrays(path, IDENTITY)
    assert_equal(loaded, arrays())
    assert all(array.flags.aligned and not array.flags.writeable for array in loaded.values())
    assert [p.name for p in path.parent.iterdir()] == ["runs.safetensors"]


def test_is_safetensors(path):
    assert_equal(load_file(path), arrays())


def test_same_arrays_same_bytes(path):
    before = path.read_bytes()
    write_arrays(path, dict(reversed(arrays().items())), IDENTITY)
    assert path.read_bytes() == before


def in_pieces(array: np.ndarray, step: int) -> Pieces:
    def make():
        for start in range(0, len(array), step):
            yield array[start : start + step].copy()

    return Pieces(len(array), array.dtype, make)


@pytest.mark.parametrize("step", [1, 7, 100])
def test_pieces_make_the_same_file(tmp_path, step):
    words = np.arange(50, dtype=np.uint64)
    whole, pieces = tmp_path / "whole.safetensors", tmp_path / "pieces.safetensors"
    write_arrays(whole, {**arrays(), "words": words}, IDENTITY)
    write_arrays(pieces, {**arrays(), "words": in_pieces(words, step)}, IDENTITY)
    assert whole.read_bytes() == pieces.read_bytes()
    loaded = cached(
        tmp_path / "new.safetensors", IDENTITY, lambda: {"words": in_pieces(words, step)}
    )
    assert_equal(loaded, {"words": words})
    assert not loaded["words"].flags.writeable
    assert_equal(held({"words": in_pieces(words, step)}), {"words": words})
    assert len(held({"words": in_pieces(words[:0], step)})["words"]) == 0


def test_pieces_that_fail_leave_nothing(tmp_path):
    def make():
        yield np.zeros(3, np.uint64)
        raise RuntimeError("no more")

    path = tmp_path / "a.safetensors"
    with pytest.raises(RuntimeError, match="no more"):
        cached(path, IDENTITY, lambda: {"words": Pieces(6, np.dtype(np.uint64), make)})
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".lock"] == []


def test_built_once_then_mapped(tmp_path):
    build = Builds()
    path = tmp_path / "a" / "b" / "runs.safetensors"
    for _ in range(3):
        assert_equal(cached(path, IDENTITY, build), arrays())
    assert len(build) == 1


def check_rebuilt(path: Path) -> None:
    """Whatever lies at `path` is refused, built again once, and then opened."""
    with pytest.raises(DamagedError):
        open_arrays(path, IDENTITY)
    build = Builds()
    assert_equal(cached(path, IDENTITY, build), arrays())
    assert_equal(cached(path, IDENTITY, build), arrays())
    assert len(build) == 1


def test_every_byte_counts(path):
    """One bit of each byte of the file: header length, hash, header, padding, data."""
    whole = path.read_bytes()
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        with pytest.raises(DamagedError):
            open_arrays(path, IDENTITY)
    path.write_bytes(changed)
    check_rebuilt(path)


@given(st.data())
def test_any_edit_is_found(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("edit") / "runs.safetensors"
    write_arrays(path, arrays(), IDENTITY)
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    new = data.draw(st.binary(max_size=40))
    edited = whole[:start] + new + whole[stop:]
    path.write_bytes(edited)
    if edited == whole:
        assert_equal(open_arrays(path, IDENTITY), arrays())
    else:
        check_rebuilt(path)


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xff" * 8)
@example((2**63).to_bytes(8, "little") + b"{}")
@example(b"[" * 100_000)
@example(cache._BEFORE_HASH.rjust(37, b"\0") + b"0" * 32 + b"}}")
def test_foreign_files(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("foreign") / "runs.safetensors"
    path.write_bytes(content)
    check_rebuilt(path)


@pytest.mark.parametrize("key", IDENTITY)
def test_another_identity(path, key):
    other = {**IDENTITY, key: "else"}
    with pytest.raises(DamagedError, match="something else"):
        open_arrays(path, other)
    build = Builds()
    cached(path, other, build)
    assert len(build) == 1


def test_a_safetensors_file_of_another_program(path):
    from safetensors.numpy import save_file

    save_file(arrays(), path, metadata={**IDENTITY, "xxh3_128": "0" * 32})
    check_rebuilt(path)


def test_a_folder_in_its_place(tmp_path):
    path = tmp_path / "runs.safetensors"
    (path / "somebody's").mkdir(parents=True)
    with pytest.warns(RuntimeWarning, match=r"cannot keep .*runs.safetensors \(Is a directory\)"):
        assert_equal(cached(path, IDENTITY, Builds()), arrays())
    assert (path / "somebody's").is_dir()
    assert not list(tmp_path.glob("*.tmp"))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    build = Builds()
    with pytest.warns(RuntimeWarning, match="Not a directory.*REFCOCOM_CACHE"):
        loaded = cached(tmp_path / "file" / "store" / "runs.safetensors", IDENTITY, build)
    assert_equal(loaded, arrays())
    assert len(build) == 1
    assert not any(array.flags.writeable for array in loaded.values())


def test_a_full_disk(tmp_path, monkeypatch):
    """The write fails half way: the arrays are kept in memory, nothing is left, the next build works."""
    build = Builds()
    replace = Path.replace

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    path = tmp_path / "runs.safetensors"
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        assert_equal(cached(path, IDENTITY, build), arrays())
    assert len(build) == 1
    assert {p.name for p in tmp_path.iterdir()} <= {"runs.lock"}
    monkeypatch.setattr(Path, "replace", replace)
    cached(path, IDENTITY, build)
    assert path.is_file()


def test_an_error_of_the_build_is_its_own(tmp_path):
    def build():
        raise ValueError("bad masks")

    with pytest.raises(ValueError, match="bad masks"):
        cached(tmp_path / "runs.safetensors", IDENTITY, build)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cached(tmp_path / "runs.safetensors", IDENTITY, Builds())


def test_threads_build_once(tmp_path):
    build, loaded = Builds(), []
    start = threading.Barrier(16)

    def work():
        start.wait()
        loaded.append(cached(tmp_path / "runs.safetensors", IDENTITY, build))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(build) == 1
    assert len(loaded) == 16
    for one in loaded:
        assert_equal(one, arrays())


def _build_marked(path, start, results):
    def build():
        with (path.parent / "built").open("a") as marker:
            marker.write(f"{os.getpid()}\n")
        return arrays()

    start.wait()
    results.put({name: array.tolist() for name, array in cached(path, IDENTITY, build).items()})


def test_processes_build_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(8), context.Queue()
    path = tmp_path / "runs.safetensors"
    workers = [context.Process(target=_build_marked, args=(path, start, results)) for _ in range(8)]
    for worker in workers:
        worker.start()
    expected = {name: array.tolist() for name, array in arrays().items()}
    assert [results.get(timeout=120) for _ in workers] == [expected] * 8
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len((tmp_path / "built").read_text().split()) == 1


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
from refcocom_gpu.utils.cache import cached

def stop(self, target):
    print("written", flush=True)
    time.sleep(600)

def build():
    if sys.argv[2] == "building":
        stop(None, None)
    return {"words": np.arange(1000, dtype=np.uint64)}

Path.replace = stop
cached(Path(sys.argv[1]), {}, build)
"""


@pytest.mark.parametrize("moment", ["building", "renaming"])
def test_a_killed_builder(tmp_path, moment):
    path = tmp_path / "runs.safetensors"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(path), moment]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"written\n"
        left = list(tmp_path.glob("*.tmp"))
        assert len(left) == (moment == "renaming")
        process.send_signal(signal.SIGKILL)
    assert not path.exists()
    (tmp_path / "bits.1.tmp").write_bytes(b"of another file")
    build = Builds()
    assert_equal(cached(path, IDENTITY, build), arrays())
    assert len(build) == 1
    assert [p.name for p in tmp_path.glob("*.tmp")] == ["bits.1.tmp"]


def test_where_the_cache_is(monkeypatch, tmp_path):
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("REFCOCOM_CACHE", "~/é cache")
    assert cache.cache_dir() == home / "é cache"
    monkeypatch.delenv("REFCOCOM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_dir() == tmp_path / "refcocom_gpu"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache.cache_dir() == home / ".cache" / "refcocom_gpu"


def test_a_user_without_a_home_folder(monkeypatch):
    """A container's user without an entry in passwd: nothing is kept, and nothing called `~` is made."""
    for name in ("REFCOCOM_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.warns(RuntimeWarning, match="Not a directory"):
        cached(cache.cache_dir() / "stores" / "runs.safetensors", IDENTITY, Builds())
    assert not Path("~").exists()


def test_clear_deletes_only_what_is_ours(monkeypatch, tmp_path):
    """A mistyped REFCOCOM_CACHE must not cost somebody a folder that happens to be called `stores`."""
    monkeypatch.setenv("REFCOCOM_CACHE", str(tmp_path))
    ours = [tmp_path / "stores" / f"{'0f' * 16}-v1", tmp_path / "numba" / ("0f" * 8)]
    theirs = [
        tmp_path / "stores" / "berlin.txt",
        tmp_path / "stores" / "berlin" / "stock.csv",
        tmp_path / "numba" / "notes.md",
        tmp_path / "thesis" / "draft.tex",
    ]
    for file in [folder / "runs.safetensors" for folder in ours] + theirs:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "precious").write_text("x")
    link = tmp_path / "stores" / f"{'ab' * 16}-v1"
    link.symlink_to(target)
    assert cache.entries() == sorted(ours)
    cache.clear()
    assert cache.entries() == []
    assert all(file.is_file() for file in [*theirs, target / "precious"])
    assert not any(folder.exists() for folder in ours)


def test_clear_leaves_no_empty_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("REFCOCOM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "stores" / f"{'0f' * 16}-v1").mkdir(parents=True)
    cache.clear()
    assert list(tmp_path.iterdir()) == []
    cache.clear()
