"""A loaded dataset in, its pictures out, each decoded on request.

Loading a dataset reads no image byte, so this module opens the same source again. `datasets` keeps pictures in Arrow
files, which are mapped: any picture can be read at once, and memory holds only those in use.
"""

from __future__ import annotations

import glob
import operator
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from refcocom_gpu.dataset.headers import is_turned, opened
from refcocom_gpu.dataset.hub import open_hub
from refcocom_gpu.dataset.locate import locate, parquet_files
from refcocom_gpu.dataset.records import is_mirror
from refcocom_gpu.dataset.sources import open_arrow_folder
from refcocom_gpu.errors import DatasetError, UsageError
from refcocom_gpu.utils.arrow import to_numpy
from refcocom_gpu.utils.files import regular
from refcocom_gpu.utils.optional import require
from refcocom_gpu.utils.text import base_name, first_line

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

PICTURE = "image"
"""The published feature that holds the picture."""

FIELDS = ("image_id", "image_meta", PICTURE)
"""The fields of a record that are read; the id is in one of the first two."""


class Pictured(Protocol):
    """What the pictures of a dataset need to know of it; `table.Dataset` is built on this module."""

    @property
    def source(self) -> str:
        """The requested source."""

    @property
    def revision(self) -> str | None:
        """The commit of a Hub dataset."""

    @property
    def split(self) -> str:
        """Split name."""

    @property
    def images(self) -> pa.Table:
        """A row per image, with its `file_name`."""

    @property
    def n_images(self) -> int:
        """Number of images."""

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """`images.image_id`."""

    @property
    def sample_image(self) -> NDArray[np.int64]:
        """[M] the image of each sample."""

    @property
    def heights(self) -> NDArray[np.int64]:
        """[M] heights of the masks."""

    @property
    def widths(self) -> NDArray[np.int64]:
        """[M] widths of the masks."""


class Images:
    """The pictures of a dataset, by row of `dataset.images`.

    A sequence: each `images[row]` decodes a picture anew. It may be pickled and forked; another
    process maps the same files.

    Pictures are as a viewer shows them, because that is what annotators see: an orientation in their
    EXIF data is applied. Only if the size of the masks shows that they describe the stored pixels,
    it is not. It is never passed on, so that no later step applies it again.

    A `file_name` with folders, separated by either slash, is looked for as it is, and then by its base
    name, unless files of other folders have the same one.

    Args:
        dataset: From `load_dataset`.
        folder: A folder that holds the pictures as files by `file_name`, instead of those in the source.

    Raises:
        UsageError: The source holds no pictures and no folder is given, the folder does not exist,
            or Pillow is not installed.
        DatasetError: The source cannot be read, or its images have changed since `dataset` was loaded.

    Example:
        >>> from refcocom_gpu.dataset.table import load_dataset
        >>> images = Images(load_dataset("sample"))
        >>> len(images), images[0].mode, images[0].size
        (36, 'RGB', (246, 221))
    """

    def __init__(self, dataset: Pictured, folder: str | Path | None = None) -> None:
        require("PIL.Image", "reading pictures needs Pillow", "images")
        self.dataset = dataset
        self.folder = None if folder is None else Path(folder).expanduser()
        self._table: Any = None
        if self.folder is not None:
            if not self.folder.is_dir():
                raise UsageError(
                    f"{folder} is not a folder; pass one that holds the pictures by file_name"
                )
        elif locate(dataset.source, dataset.revision).kind != "sample":
            self._table = _open(dataset)
        # The samples of an image are consecutive; their masks have its size.
        self._first_sample = np.searchsorted(dataset.sample_image, np.arange(dataset.n_images + 1))

    def __len__(self) -> int:
        return self.dataset.n_images

    def __getitem__(self, row: int) -> Picture:
        """Decode a picture.

        Args:
            row: A row of `dataset.images`; a negative one counts from the end.

        Returns:
            A new RGB picture, H × W.

        Raises:
            IndexError: There is no such row.
            DatasetError: The picture is absent, does not decode, or has another size than its masks.
        """
        row = range(len(self))[operator.index(row)]
        stored, where = self._file(row)
        if stored is None:
            return _draw(int(self.dataset.image_ids[row]))
        from PIL import ImageOps

        with opened(stored, where) as file:
            turned = is_turned(file, self._sizes(row), where)
            picture = (ImageOps.exif_transpose(file) if turned else file).convert("RGB")
        # Metadata goes: a later step that applied the orientation would turn the picture away from its masks.
        picture.info.clear()
        return picture

    def problem(self, row: int) -> str:
        """Return why a picture cannot be used, empty if nothing is wrong with its header; no pixel is decoded.

        Args:
            row: A row of `dataset.images`.

        Raises:
            IndexError: There is no such row.
        """
        try:
            stored, where = self._file(row)
            if stored is not None:
                with opened(stored, where) as file:
                    is_turned(file, self._sizes(row), where)
        except DatasetError as error:
            return str(error)
        return ""

    def encoded(self, row: int) -> bytes:
        """Return the stored file of a picture, not decoded; for the built-in sample, a PNG.

        Args:
            row: A row of `dataset.images`.

        Raises:
            IndexError: There is no such row.
            DatasetError: The picture is absent.
        """
        stored, where = self._file(row)
        if stored is None:
            from refcocom_gpu.dataset.sample import draw_image, encode_png

            return encode_png(draw_image(int(self.dataset.image_ids[row])))
        if isinstance(stored, bytes):
            return stored
        try:
            return regular(stored).read_bytes()
        except OSError as error:
            raise DatasetError(f"{where}: {stored} cannot be read: {error.strerror}") from None

    def path(self, row: int) -> Path | None:
        """Return the path of a picture; None where the source holds its bytes, or it is drawn.

        Args:
            row: A row of `dataset.images`.

        Raises:
            IndexError: There is no such row.
            DatasetError: The source names no picture.
        """
        stored, _ = self._file(row)
        return stored if isinstance(stored, Path) else None

    def _file(self, row: int) -> tuple[Path | bytes | None, str]:
        """Return the path or the bytes of a picture, None if it is drawn, and its name in an error message."""
        row = range(len(self))[operator.index(row)]
        image_id = int(self.dataset.image_ids[row])
        where = f"{self.dataset.source}: image {image_id}"
        if self.folder is not None:
            name = self.dataset.images["file_name"][row].as_py()
            if not name:
                raise DatasetError(f"{where}: file_name is absent")
            path = self._path_of(name)
            return path, f"{path}: image {image_id}"
        if self._table is not None:
            return _stored(self._table[row][PICTURE][0].as_py(), where), where
        return None, where

    def _path_of(self, name: str) -> Path:
        """The file of a `file_name`; where there is none, the path at which it was looked for first."""
        assert self.folder is not None
        names = [name, name.replace("\\", "/")]
        if self._base_names[base_name(name)] == 1:
            names.append(base_name(name))
        paths = [self.folder / each for each in names]
        return next((path for path in paths if path.is_file()), paths[0])

    @cached_property
    def _base_names(self) -> Counter[str]:
        """How many files have each base name; one that several have does not tell them apart."""
        names = set(self.dataset.images["file_name"].to_pylist())
        return Counter(base_name(name) for name in names if name)

    def _sizes(self, row: int) -> set[tuple[int, int]]:
        """The H and W of the masks of an image: one size, unless the records contradict themselves."""
        samples = slice(*self._first_sample[row : row + 2])
        sizes = zip(self.dataset.heights[samples], self.dataset.widths[samples], strict=True)
        return {(int(height), int(width)) for height, width in sizes}


def _open(dataset: Pictured) -> Any:
    """Open the source again, as a mapped `datasets.Dataset` whose rows are as stored."""
    kind, path, _ = locate(dataset.source, dataset.revision)
    table: Any = None
    if kind == "hub":
        columns = ("image_id", PICTURE)
        table, _ = open_hub(dataset.source, dataset.split, dataset.revision, columns)
    elif kind == "arrow":
        table = open_arrow_folder(path.absolute(), dataset.split)
    elif kind == "parquet":
        table = parquet_files(path, dataset.split)
    if isinstance(table, list):
        table = _from_parquet(table)
    if table is None or PICTURE not in table.column_names:
        raise UsageError(
            f"{dataset.source} holds no pictures; pass the folder that holds them by file_name"
        )
    # In the format `arrow`, because the feature itself would decode a picture and apply its EXIF orientation.
    table = table.select_columns([name for name in FIELDS if name in table.column_names])
    table = table.with_format("arrow")
    _check_ids(table, dataset)
    return table


def _from_parquet(files: list[Path]) -> Any:
    """Convert Parquet files to the Arrow files of `datasets`, because a row of a Parquet file cannot be read alone."""
    import datasets

    try:
        names = [n for n in FIELDS if n in pq.read_schema(files[0]).names]
        # Rows of instances, not images: one picture would stand in several rows.
        if PICTURE not in names or is_mirror(pq.read_schema(files[0]).names):
            return None
        # Absolute and escaped, because `datasets` would take a name for a URL or a pattern.
        data_files = [glob.escape(str(path.absolute())) for path in files]
        return datasets.load_dataset("parquet", data_files=data_files, split="train", columns=names)
    except (OSError, ValueError, pa.ArrowException, datasets.exceptions.DatasetsError) as error:
        raise DatasetError(
            f"{files[0].parent}: pictures cannot be read: {first_line(error.__cause__ or error)}"
        ) from error


def _check_ids(table: Any, dataset: Pictured) -> None:
    """Refuse a source whose rows are no longer the images that were loaded."""
    name = "image_id" if "image_id" in table.column_names else "image_meta"
    column = table.select_columns([name])[:][name]
    if name == "image_meta":
        column = pc.struct_field(column, "image_id")
    ids = to_numpy(column.cast(pa.int64()))
    if len(ids) != dataset.n_images:
        raise DatasetError(
            f"{dataset.source} now holds {len(ids):,} images where {dataset.n_images:,} were loaded"
        )
    differ = ids != dataset.image_ids
    if differ.any():
        row = int(differ.argmax())
        raise DatasetError(
            f"{dataset.source}: image record {row} is now image_id {ids[row]}, "
            f"where {dataset.image_ids[row]} was loaded ({int(differ.sum()):,} differ)"
        )


def _stored(value: Any, where: str) -> Path | bytes:
    """Return the path or the bytes of a picture from a value of the feature: a struct, bytes or a path."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if not value:
        raise DatasetError(f"{where}: the picture is null")
    return value if isinstance(value, bytes) else Path(value)


def _draw(image_id: int) -> Picture:
    from PIL import Image

    from refcocom_gpu.dataset.sample import draw_image

    return Image.fromarray(draw_image(image_id))
