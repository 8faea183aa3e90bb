"""Settings shared by all tests."""

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub import FakeHub
from hypothesis import settings

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


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """The root of what a local Hub serves, and the environment that leads to it."""
    root = tmp_path / "hub"
    root.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(FakeHub, root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield (
        root,
        {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path / "home"),
        },
    )
    server.shutdown()
    server.server_close()
