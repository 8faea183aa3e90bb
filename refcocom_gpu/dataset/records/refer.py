"""A release of RefCOCO, RefCOCO+ or RefCOCOg in, flat columns out; it holds `refs(….p)` beside `instances.json`.

The format (REFER, Kazemzadeh et al. 2014, Yu et al. 2016): a pickled list of references, and COCO's annotations.
Unpickling runs whatever code a pickle names. A release names none, so every name is refused.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import msgspec

from refcocom_gpu.dataset.records.references import (
    Invalid,
    Reference,
    checked_box,
    in_split,
    mask_of,
    read_references,
)
from refcocom_gpu.dataset.records.tables import Columns
from refcocom_gpu.errors import DatasetError, RLEError
from refcocom_gpu.utils.files import regular
from refcocom_gpu.utils.text import first_line

INSTANCES = "instances.json"


class _Sentence(msgspec.Struct):
    sent: str | None = None
    raw: str | None = None
    sent_id: int | None = None


class _Ref(msgspec.Struct):
    ref_id: int
    ann_id: int
    image_id: int
    split: str
    sentences: list[_Sentence]
    file_name: str = ""


class _Image(msgspec.Struct):
    id: int
    height: int
    width: int
    file_name: str = ""


class _Annotation(msgspec.Struct):
    id: int
    image_id: int
    category_id: int
    # Decoded only when needed: a split uses few of COCO's annotations.
    segmentation: msgspec.Raw
    bbox: list[float] | None = None


class _Category(msgspec.Struct):
    id: int
    name: str
    supercategory: str = ""


class _Instances(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


class _Unpickler(pickle.Unpickler):
    """Builds lists, dicts, text and numbers, and refuses everything that a pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        raise DatasetError(
            f"the pickle asks to run {module}.{name}; a release needs no code, so it is not opened"
        )

    def persistent_load(self, pid: Any) -> Any:
        raise DatasetError(f"the pickle refers to an object outside itself: {pid!r:.60}")


def from_refer(path: Path, split: str) -> tuple[Columns, Invalid]:
    """Read a split of a release.

    Args:
        path: The pickle; `instances.json` lies beside it.
        split: `train`, `validation` (or `val`), `test`, `testA`, `testB`.

    Returns:
        The flat columns, where a sample's id is its `ref_id`, and the references that cannot be scored.

    Raises:
        UsageError: There is no such split.
        DatasetError: A file is absent, is damaged or asks to run code, or a reference lacks its annotation.
    """
    refs = _refs(path)
    known = _instances(path.with_name(INSTANCES))
    images = {image.id: image for image in known.images}
    annotations = {annotation.id: annotation for annotation in known.annotations}
    categories = {category.id: category for category in known.categories}
    wanted = in_split((ref.split for ref in refs), split, str(path))
    rows = (
        (f"reference {number} (ref_id {ref.ref_id})", ref)
        for number, ref in enumerate(refs)
        if ref.split in wanted
    )
    return read_references(
        rows, lambda ref: _reference(ref, images, annotations, categories), str(path)
    )


def _reference(
    ref: _Ref,
    images: dict[int, _Image],
    annotations: dict[int, _Annotation],
    categories: dict[int, _Category],
) -> Reference:
    annotation, image = annotations.get(ref.ann_id), images.get(ref.image_id)
    if annotation is None:
        raise RLEError(f"{INSTANCES} has no annotation {ref.ann_id}")
    if image is None:
        raise RLEError(f"{INSTANCES} has no image {ref.image_id}")
    if annotation.image_id != ref.image_id:
        raise RLEError(
            f"annotation {ref.ann_id} is of image {annotation.image_id}, not {ref.image_id}"
        )
    sentences = [s.sent if s.sent is not None else s.raw for s in ref.sentences]
    if None in sentences:
        raise RLEError(f"sentence {sentences.index(None)} has neither sent nor raw")
    category = categories.get(annotation.category_id)
    height, width, counts = mask_of(
        msgspec.json.decode(annotation.segmentation), image.height, image.width
    )
    return Reference(
        ref_id=ref.ref_id,
        image_id=ref.image_id,
        file_name=image.file_name or ref.file_name,
        category=category.name if category else "",
        supercategory=category.supercategory if category else "",
        bbox=checked_box(annotation.bbox),
        height=height,
        width=width,
        counts=counts,
        sentences=[text for text in sentences if text is not None],
        ann_id=ref.ann_id,
        sent_ids=[sentence.sent_id for sentence in ref.sentences],
    )


def _refs(path: Path) -> list[_Ref]:
    try:
        try:
            loaded = _load(path, "utf-8")
        except UnicodeDecodeError:
            # Python 2 pickled text as bytes, not always in UTF-8; Latin-1 takes each byte as a character.
            loaded = _load(path, "latin-1")
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # a damaged pickle raises nearly any exception
        raise DatasetError(f"{path}: not a complete pickle: {first_line(error)}") from None
    try:
        return msgspec.convert(loaded, list[_Ref], strict=False)
    except msgspec.ValidationError as error:
        raise DatasetError(f"{path}: not a list of references: {first_line(error)}") from None


def _load(path: Path, encoding: str) -> Any:
    with regular(path).open("rb") as file:
        return _Unpickler(file, encoding=encoding).load()


def _instances(path: Path) -> _Instances:
    try:
        return msgspec.json.decode(regular(path).read_bytes(), type=_Instances, strict=False)
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read: {error.strerror}; a release has it beside its refs(….p)"
        ) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not COCO's annotations: {first_line(error)}") from None
