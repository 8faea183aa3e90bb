"""What was found out about each image, kept by the hash of all that decides it: a killed construction goes on.

`.parts/{key}.safetensors` appears whole or not at all and is verified by its own hash when it is opened; one that is
damaged counts as not there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import xxhash

from refcocom_gpu.construct.image import ImageResult
from refcocom_gpu.errors import UsageError
from refcocom_gpu.utils.cache import DamagedError, open_arrays, write_arrays

PARTS = ".parts"


class Parts:
    """The results that a folder keeps.

    Args:
        folder: Of the construction.
        identity: All that decides what is found out of any image, JSON values.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._folder = folder / PARTS
        self._identity = json.dumps(identity, sort_keys=True)
        self._folder.mkdir(exist_ok=True)
        for left_by_a_killed_run in self._folder.glob("*.tmp"):
            left_by_a_killed_run.unlink(missing_ok=True)

    def get(self, image: int, picture: str) -> ImageResult | None:
        """What was found out about an image whose picture is as it was; None where nothing was, or it is damaged."""
        about = self._about(image, picture)
        with contextlib.suppress(DamagedError, msgspec.MsgspecError):
            arrays = open_arrays(self._path(about), about)
            return msgspec.msgpack.decode(arrays["result"].tobytes(), type=ImageResult)
        return None

    def put(self, result: ImageResult, picture: str) -> None:
        """Keep what was found out.

        Raises:
            UsageError: When it cannot be written.
        """
        about = self._about(result.image, picture)
        content = np.frombuffer(msgspec.msgpack.encode(result), np.uint8)
        try:
            write_arrays(self._path(about), {"result": content}, about)
        except OSError as error:
            raise UsageError(f"cannot write to {self._folder}: {error.strerror or error}") from None

    def _about(self, image: int, picture: str) -> dict[str, str]:
        return {"identity": self._identity, "image": str(image), "picture": picture}

    def _path(self, about: Mapping[str, str]) -> Path:
        key = xxhash.xxh3_128_hexdigest(json.dumps(about, sort_keys=True).encode())
        return self._folder / f"{key}.safetensors"
