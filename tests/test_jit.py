"""Compiling and caching kernels: right answers from any cache, and from any mixture of threads and processes.

One small kernel stands for all where a cache is broken on purpose: compiling the real ones takes long.
"""

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from refcocom_kernels import cpu
from refcocom_kernels.cpu import pool

import refcocom_gpu as rc
from refcocom_gpu.utils.cache import cache_dir

KERNEL = """
import numpy as np
from refcocom_kernels.cpu.numba import jit

@jit.jit("in i8, out i8 -> void")
def double(values, out):
    for k in range(len(values)):
        out[k] = 2 * values[k]

out = np.zeros(5, np.int64)
double(np.arange(5), out)
print(out.tolist(), sum(double.compile().stats.cache_hits.values()))
"""
RIGHT = "[0, 2, 4, 6, 8]"


@pytest.fixture
def run(tmp_path):
    """Run the small kernel in a process with a cache of its own; returns hits and what was said."""
    script = tmp_path / "kernel_of_test.py"
    script.write_text(KERNEL)

    def call(**env: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, str(script)],
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "numba")} | env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        answer, _, hits = done.stdout.strip().rpartition(" ")
        assert answer == RIGHT
        return int(hits), done.stderr

    return call


def test_second_process_reads_the_cache(run, tmp_path):
    assert run() == (0, "")
    before = {path: path.read_bytes() for path in (tmp_path / "numba").rglob("*") if path.is_file()}
    names = sorted(path.name for path in before)
    assert [n.removeprefix("kernel_of_test.double-")[-4:] for n in names] == [
        ".nbc",
        ".nbi",
        "lock",
    ]
    assert run() == (1, "")
    assert all(path.read_bytes() == content for path, content in before.items())


READ = """
import sys
from importlib import import_module
from pathlib import Path
import numpy as np
from refcocom_kernels.cpu import numba
from refcocom_kernels.cpu.numba.jit import Kernel, jit

names = [path.stem for path in Path(numba.__path__[0]).glob("[a-z]*.py")]
modules = [import_module(f"{numba.__name__}.{name}") for name in names]
kernels = {id(k): k for module in modules for k in vars(module).values() if isinstance(k, Kernel)}
assert len(kernels) > 10 and not any(kernel._compiled for kernel in kernels.values())
hits = sum(sum(kernel.compile().stats.cache_hits.values()) for kernel in kernels.values())
print(len(kernels) - hits, "scipy.linalg" in sys.modules)
"""
COMPILE = """
@jit("in i8, out i8 -> void")
def last(values, out):
    out[0] = np.ones(3, np.int64).sum() + values[-1]

out = np.zeros(1, np.int64)
last(np.arange(5), out)
print(out, "scipy.linalg" in sys.modules)
"""


def test_a_kernel_is_read_alone(tmp_path):
    """Importing kernels builds none. Reading them imports nothing that only a compilation needs, which follows here."""
    script = tmp_path / "kernel_of_test.py"
    for code in (READ, READ + COMPILE):
        script.write_text(code)
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert done.stdout == "0 False\n[7] True\n"


def double(x):
    for k in range(len(x)):
        x[k] *= 2


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "gone"])
def test_an_unreadable_entry_is_compiled_again(tmp_path, monkeypatch, suffix, damage):
    from refcocom_kernels.cpu.numba.jit import jit

    def compiled():
        array = np.arange(3)
        kernel = jit("out i8 -> void")(double)
        kernel(array)
        assert array.tolist() == [0, 2, 4]
        return sum(kernel.compile().stats.cache_hits.values())

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert (compiled(), compiled()) == (0, 1)
    (path,) = tmp_path.rglob(f"*.double-*{suffix}")
    content = path.read_bytes()
    noise = np.random.default_rng(0).bytes(len(content))
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": content[:-3], "empty": b"", "noise": noise}[damage])
    assert (compiled(), compiled()) == (0, 1)


def test_cache_that_cannot_be_made(run, tmp_path):
    (tmp_path / "file").write_text("")
    for _ in range(2):
        hits, said = run(NUMBA_CACHE_DIR=str(tmp_path / "file" / "numba"))
        assert hits == 0
        assert "cannot be cached and are compiled anew in every process (NotADirectoryError" in said
        assert "REFCOCOM_CACHE" in said
        assert said.count("RuntimeWarning") == 1
    # Numba alone would fall back to __pycache__, whose entries do not notice a changed helper.
    assert not (tmp_path / "__pycache__").exists()


def test_cache_follows_the_package(run, tmp_path):
    """One variable moves everything that is cached, and `refcocom cache` finds it."""
    run(NUMBA_CACHE_DIR="", REFCOCOM_CACHE=str(tmp_path / "all"))
    (folder,) = (tmp_path / "all" / "numba").iterdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFCOCOM_CACHE", str(tmp_path / "all"))
        from refcocom_gpu.utils.cache import entries

        assert entries() == [folder]


def test_same_root_as_the_package(monkeypatch, tmp_path):
    from refcocom_kernels.cpu.numba import jit

    monkeypatch.delenv("NUMBA_CACHE_DIR")
    for name, value in [
        ("REFCOCOM_CACHE", "~/x"),
        ("REFCOCOM_CACHE", ""),
        ("XDG_CACHE_HOME", str(tmp_path)),
        ("HOME", str(tmp_path)),
    ]:
        monkeypatch.setenv(name, value)
        assert jit._cache_root() == cache_dir() / "numba"


def test_cache_is_named_by_every_source(tmp_path):
    """Numba bakes in constants and helpers of other files; a change to any of them must not be missed."""
    from refcocom_kernels.cpu.numba import jit

    sources = Path(jit.__file__).parents[2]
    copy = tmp_path / "refcocom_kernels"
    shutil.copytree(sources, copy, ignore=shutil.ignore_patterns("__pycache__"))
    digests = {jit._code_digest(copy)}
    files = sorted(copy.rglob("*.py"))
    for source in files:
        source.write_text(source.read_text("utf-8") + "\n", "utf-8")
        jit._code_digest.cache_clear()
        digests.add(jit._code_digest(copy))
    assert len(digests) == 1 + len(files) > 10


def test_processes_compile_once(tmp_path):
    """Eight ranks that start on a cold cache: one compiles, the others wait and read."""
    script = tmp_path / "kernel_of_test.py"
    script.write_text(KERNEL)
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    started = [
        subprocess.Popen([sys.executable, str(script)], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    said = [process.communicate(timeout=200)[0].strip() for process in started]
    assert sorted(said) == [f"{RIGHT} 0"] + [f"{RIGHT} 1"] * 7


def test_first_import_by_many_threads():
    code = """
import threading
import numpy as np
from refcocom_kernels import cpu
start, found = threading.Barrier(8), []
def work():
    start.wait()
    found.append(cpu.rle_parse(np.frombuffer(b"045", np.uint8), np.array([0, 3]), np.array([9])).ends.tolist())
threads = [threading.Thread(target=work) for _ in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
assert found == [[0, 4, 9]] * 8, found
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def store():
    return rc.MaskStore.build(rc.load_dataset("sample"), cache=False)


def counted(store, threads=2):
    """Every sample's own string against its mask, five times over so that the pool is used."""
    rows = np.tile(np.arange(len(store.areas)), 5)
    strings = store.dataset.counts.take(rows)
    counts, status, _ = cpu.rle_counts(
        strings.data,
        strings.offsets,
        rows,
        store.ends,
        store.run_offsets,
        store.pixels,
        threads=threads,
    )
    assert len(rows) > 2 * pool.MIN_ROWS
    return counts.tolist(), status.any()


def expected(store):
    return [[area, area] for area in np.tile(store.areas, 5).tolist()], False


def test_many_threads_share_the_pool(store):
    with ThreadPoolExecutor(64) as pool:
        for found in pool.map(lambda k: counted(store, threads=2 + k % 3), range(64)):
            assert found == expected(store)


@pytest.mark.parametrize("threads", [0, 1, 2, 5, 64])
def test_any_number_of_threads(store, threads):
    assert counted(store, threads) == expected(store)


def test_an_error_in_a_thread_is_raised():
    def kernel(first, last):
        if first:
            raise ZeroDivisionError("in a thread")

    with pytest.raises(ZeroDivisionError, match="in a thread"):
        pool.over_rows(kernel, 1000, 2)


@pytest.mark.parametrize("n_rows", [0, 1, 15, 16, 31, 32, 33, 1000])
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_ranges_cover_every_row_once(n_rows, threads):
    seen = np.zeros(n_rows, int)

    def kernel(first, last):
        seen[first:last] += 1

    pool.over_rows(kernel, n_rows, threads)
    assert (seen == 1).all()


def in_time(pid, seconds=60):
    """The exit status of a child, which is killed if it hangs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "hung"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("generations", [1, 2])
def test_forked_children_have_pools_of_their_own(store, generations):
    assert counted(store) == expected(store)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            right = counted(store) == expected(store)
            if generations == 2 and (grandchild := os.fork()):
                right = right and in_time(grandchild) == 0
            else:
                right = right and counted(store) == expected(store)
            code = 0 if right else 3
        finally:
            os._exit(code)
    assert in_time(pid) == 0
    assert counted(store) == expected(store)


class Counting:
    """A torch data set whose workers count."""

    def __init__(self, store):
        self.store = store

    def __len__(self):
        return 6

    def __getitem__(self, k):
        return counted(self.store) == expected(self.store)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_data_loader_workers(store, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    from torch.utils.data import DataLoader

    assert counted(store) == expected(store)
    loader = DataLoader(
        Counting(store), batch_size=1, num_workers=2, multiprocessing_context=method, timeout=100
    )
    assert [bool(right) for right in loader] == [True] * 6


def test_pools_are_made_once():
    before = threading.active_count()
    for _ in range(50):
        pool.over_rows(lambda first, last: None, 1000, 2)
    assert threading.active_count() <= before + 2
