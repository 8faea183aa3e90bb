"""The measurements of each image, kept on disk so that an interrupted construction continues.

A part is one file, `parts/{key}.msgpack`, beside the folder of the set: a hash, then the measurements. The hash also
covers the identity, so a part that is damaged or belongs to something else counts as absent.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import xxhash

from refcocom_gpu.construct.beside import PARTS
from refcocom_gpu.construct.measurements import ImageResult
from refcocom_gpu.dataset.images import Images
from refcocom_gpu.dataset.locate import files_below
from refcocom_gpu.dataset.table import Dataset
from refcocom_gpu.errors import DataError
from refcocom_gpu.utils.files import write_files

HASH_BYTES = 16


class Parts:
    """The measurements that a construction keeps.

    Args:
        folder: From `beside.work_folder`.
        identity: Everything that decides the measurements of any image, as JSON values.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._folder = folder / PARTS
        self._identity = identity
        self._folder.mkdir(exist_ok=True)
        for left_by_a_killed_run in self._folder.glob("*.tmp"):
            left_by_a_killed_run.unlink(missing_ok=True)

    def get(self, image: int, picture: str) -> ImageResult | None:
        """Return the measurements of an image, or None where there are none.

        Args:
            image: Row of `dataset.images`.
            picture: Its state, from `picture_states`.
        """
        identity = self._identity_of(image, picture)
        with contextlib.suppress(OSError):
            part = (self._folder / _name(identity)).read_bytes()
            content = part[HASH_BYTES:]
            if part[:HASH_BYTES] == _hash(identity, content):
                return msgspec.msgpack.decode(content, type=ImageResult)
        return None

    def put(self, result: ImageResult, picture: str) -> None:
        """Keep the measurements of an image.

        Raises:
            UsageError: The folder cannot be written.
        """
        identity = self._identity_of(result.image, picture)
        content = msgspec.msgpack.encode(result)
        write_files(self._folder, {_name(identity): _hash(identity, content) + content})

    def _identity_of(self, image: int, picture: str) -> bytes:
        about = {"identity": self._identity, "image": image, "picture": picture}
        return json.dumps(about, sort_keys=True).encode()


def _name(identity: bytes) -> str:
    return f"{xxhash.xxh3_128_hexdigest(identity)}.msgpack"


def _hash(identity: bytes, content: bytes) -> bytes:
    return xxhash.xxh3_128_digest(identity + content)


def picture_states(dataset: Dataset, images: Images | None) -> list[str]:
    """A text for each image that changes when its picture does.

    It is the size and time of the picture's file. Where the source holds the pictures, it is the source's commit, or
    the sizes and times of its files.
    """
    if images is None:
        return [""] * dataset.n_images
    source = _source_state(dataset)
    return [_picture_state(images, image, source) for image in range(dataset.n_images)]


def _picture_state(images: Images, image: int, source: str) -> str:
    try:
        path = images.path(image)
        return source if path is None else _file_states([path])
    except (OSError, DataError):
        return "absent"


def _source_state(dataset: Dataset) -> str:
    path = Path(dataset.source).expanduser()
    if dataset.revision or not path.exists():
        return dataset.revision or dataset.source
    return _file_states(files_below(path) if path.is_dir() else [path])


def _file_states(paths: Sequence[Path]) -> str:
    """The name, size and modification time of each file."""
    states = ((path.name, path.stat()) for path in paths)
    return " ".join(f"{name} {state.st_size} {state.st_mtime_ns}" for name, state in states)
