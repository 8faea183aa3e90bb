"""Settings shared by all tests."""

import functools
import gc
import http.server
import os
import pickle
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aot
import pytest
from filelock import FileLock
from hub import FakeHub
from hypothesis import settings

from refcocom_gpu.dataset import sample
from refcocom_gpu.engines import NAMES, Engine, make_engine
from refcocom_gpu.utils.cache import cache_dir

# Triton reads it once, when it is first imported, which torch may do too: kernels run on host memory, without a GPU.
os.environ["TRITON_INTERPRET"] = "1"

# The first call of a kernel compiles it, which says nothing about the property under test.
settings.register_profile("default", deadline=None)
# `make fuzz`: minutes of examples instead of seconds.
settings.register_profile("fuzz", deadline=None, max_examples=3_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache out of the tests, and the tests out of it."""
    with pytest.MonkeyPatch.context() as patch:
        # Compiled kernels stay where they are: compiling them for each run takes longer than the tests.
        patch.setenv(
            "NUMBA_CACHE_DIR", os.environ.get("NUMBA_CACHE_DIR", str(cache_dir() / "numba"))
        )
        patch.setenv("REFCOCOM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _sample_is_drawn_once() -> Iterator[None]:
    """Hundreds of tests load the sample, and drawing it takes 0.2 s: each gets a copy of the first drawing."""
    draw = sample.make_records

    @functools.cache
    def drawn(seed: int = 0, n_images: int = 36) -> bytes:
        return pickle.dumps(draw(seed, n_images))

    def make_records(seed: int = 0, n_images: int = 36) -> list[dict[str, Any]]:
        return pickle.loads(drawn(seed, n_images))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "make_records", make_records)
        yield


@pytest.fixture(scope="session")
def compiled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> aot.Compiled:
    """The compiled `CASES` of every module whose tests ask for this fixture, built in one process for all workers."""
    modules = {
        item.module.__name__: item.module
        for item in request.session.items
        if isinstance(item, pytest.Function) and "compiled" in item.fixturenames
    }
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    path = shared / "compiled.json"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            path.write_text(aot.build([c for m in modules.values() for c in m.CASES]), "utf-8")
    return aot.load(path.read_text("utf-8"))


class SharedRay:
    """A Ray of two workers on this machine: started when first asked for, the same for all tests until closed."""

    def __init__(self) -> None:
        self.engine: Engine | None = None

    def get(self) -> Engine:
        pytest.importorskip("ray")
        if self.engine is None:
            with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
                warnings.simplefilter("ignore")
                # Workers import the tasks that tests define.
                paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
                patch.setenv("PYTHONPATH", os.pathsep.join(paths))
                self.engine = make_engine("ray", 2)
        return self.engine

    def close(self) -> None:
        if self.engine is not None:
            with warnings.catch_warnings():
                # Ray leaves sockets and processes to the garbage collector.
                warnings.simplefilter("ignore")
                self.engine.close()
                self.engine = None
                gc.collect()
            assert not sys.modules["ray"].is_initialized()


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[SharedRay]:
    """A process is connected to one cluster at a time: a test that starts another closes this one first."""
    shared = SharedRay()
    yield shared
    shared.close()


@pytest.fixture
def ray_engine(shared_ray: SharedRay) -> Engine:
    return shared_ray.get()


@pytest.fixture(params=NAMES)
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine, of two workers."""
    if request.param == "ray":
        return request.getfixturevalue("ray_engine")
    return make_engine(request.param, 2 if request.param == "threads" else 0)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """The root of what a local Hub serves, and the environment that leads to it."""
    root = tmp_path / "hub"
    root.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(FakeHub, root))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield (
        root,
        {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path / "home"),
        },
    )
    server.shutdown()
    server.server_close()
