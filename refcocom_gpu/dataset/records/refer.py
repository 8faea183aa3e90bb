"""A release of RefCOCO, RefCOCO+, RefCOCOg or gRefCOCO in, flat columns out; references beside `instances.json`.

The format (REFER, Kazemzadeh et al. 2014, Yu et al. 2016): `refs(….p)`, a pickled list of references, and COCO's
annotations. Unpickling runs whatever code a pickle names. A release names none, so every name is refused. In gRefCOCO
(Liu et al. 2023, henghuiding/ReLA, `gres_model/data/datasets/grefer.py`) the references are `grefs(….json)`; each lists
its annotations, and -1 stands for none: its expressions have no target. The mask of several is their union.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import msgspec

from refcocom_gpu.dataset.records.references import (
    Invalid,
    Reference,
    checked_box,
    in_split,
    mask_of,
    no_pixel,
    read_references,
    union_of,
)
from refcocom_gpu.dataset.records.tables import Columns
from refcocom_gpu.errors import DatasetError, RLEError
from refcocom_gpu.utils.files import regular
from refcocom_gpu.utils.text import first_line

INSTANCES = "instances.json"

NO_TARGET = -1
"""The annotation that gRefCOCO names where expressions have no target."""


class _Sentence(msgspec.Struct):
    sent: str | None = None
    raw: str | None = None
    sent_id: int | None = None


class _Ref(msgspec.Struct):
    ref_id: int
    ann_id: int | list[int]
    image_id: int
    split: str
    sentences: list[_Sentence]
    file_name: str = ""
    no_target: bool | None = None


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
        path: The references, a pickle or JSON; `instances.json` lies beside it.
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
    image = images.get(ref.image_id)
    if image is None:
        raise RLEError(f"{INSTANCES} has no image {ref.image_id}")
    targets = [_annotation(ann_id, ref, annotations) for ann_id in _targets(ref)]
    sentences = [s.sent if s.sent is not None else s.raw for s in ref.sentences]
    if None in sentences:
        raise RLEError(f"sentence {sentences.index(None)} has neither sent nor raw")
    masks = [
        mask_of(msgspec.json.decode(target.segmentation), image.height, image.width)
        for target in targets
    ]
    height, width, counts = union_of(masks) if masks else no_pixel(image.height, image.width)
    boxes = [checked_box(target.bbox) for target in targets]
    # Several targets have a category where they share it, and neither one box nor one annotation.
    shared = {target.category_id for target in targets}
    category = categories.get(shared.pop()) if len(shared) == 1 else None
    single = targets[0] if len(targets) == 1 else None
    return Reference(
        ref_id=ref.ref_id,
        image_id=ref.image_id,
        file_name=image.file_name or _picture(ref.file_name),
        category=category.name if category else "",
        supercategory=category.supercategory if category else "",
        bbox=boxes[0] if single else None,
        height=height,
        width=width,
        counts=counts,
        sentences=[text for text in sentences if text is not None],
        ann_id=single.id if single else None,
        sent_ids=[sentence.sent_id for sentence in ref.sentences],
        no_target=not targets,
    )


def _targets(ref: _Ref) -> list[int]:
    """Return the annotations of a reference, each once; none where its expressions have no target."""
    ids = list(dict.fromkeys(ref.ann_id if isinstance(ref.ann_id, list) else [ref.ann_id]))
    named = [ann_id for ann_id in ids if ann_id != NO_TARGET]
    if named and (len(named) < len(ids) or ref.no_target):
        raise RLEError(f"it has no target, but names the annotation {named[0]}")
    if not named and (ref.no_target is False or not (ids or ref.no_target)):
        raise RLEError("it names no annotation, but does not say that it has no target")
    return named


def _annotation(ann_id: int, ref: _Ref, annotations: dict[int, _Annotation]) -> _Annotation:
    annotation = annotations.get(ann_id)
    if annotation is None:
        raise RLEError(f"{INSTANCES} has no annotation {ann_id}")
    if annotation.image_id != ref.image_id:
        raise RLEError(f"annotation {ann_id} is of image {annotation.image_id}, not {ref.image_id}")
    return annotation


def _picture(name: str) -> str:
    """Return the file of the picture: a reference's name ends in a number of its own, which is left out.

    >>> _picture("COCO_train2014_000000000009_16.jpg"), _picture("9.jpg")
    ('COCO_train2014_000000000009.jpg', '9.jpg')
    """
    return re.sub(r"^(COCO_[a-z]+\d{4}_\d{12})_\d+(?=\.\w+$)", r"\1", name)


def _refs(path: Path) -> list[_Ref]:
    is_json = path.suffix == ".json"
    try:
        loaded = msgspec.json.decode(regular(path).read_bytes()) if is_json else _pickled(path)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # a damaged pickle raises nearly any exception
        kind = "JSON" if is_json else "a complete pickle"
        raise DatasetError(f"{path}: not {kind}: {first_line(error)}") from None
    try:
        return msgspec.convert(loaded, list[_Ref], strict=False)
    except msgspec.ValidationError as error:
        raise DatasetError(f"{path}: not a list of references: {first_line(error)}") from None


def _pickled(path: Path) -> Any:
    try:
        return _load(path, "utf-8")
    except UnicodeDecodeError:
        # Python 2 pickled text as bytes, not always in UTF-8; Latin-1 takes each byte as a character.
        return _load(path, "latin-1")


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
