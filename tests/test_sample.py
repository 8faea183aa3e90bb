from __future__ import annotations

import hashlib
import io
import json
import re
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from refcocom_gpu.dataset import scenes
from refcocom_gpu.dataset.sample import draw_image, encode_png, make_predictions, make_records
from refcocom_gpu.errors import UsageError

# Bump deliberately: stored scores of the built-in sample change with it.
GOLDEN_RECORDS = "3356f6cd11a81602"
GOLDEN_PREDICTIONS = "725ea1910e2257a7"
GOLDEN_PICTURES = "9e4c61a54710611d"


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return make_records()


def digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def pixels(rle: dict[str, Any] | None, like: dict[str, Any]) -> NDArray[np.bool_]:
    """Decoded by pycocotools, so that an error of our own codec cannot hide itself."""
    if rle is None:
        return np.zeros(like["size"], np.bool_)
    return coco_mask.decode(rle).astype(np.bool_)


def samples_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for record in records for entry in record["samples"]]


def miou(records: list[dict[str, Any]], rows: list[dict[str, Any]]) -> float:
    targets = {entry["id"]: entry["mask"] for entry in samples_of(records)}
    ious = []
    for row in rows:
        target = targets[row["sample_id"]]
        g, p = pixels(target, target), pixels(row["segmentation"], target)
        ious.append((g & p).sum() / (g | p).sum())
    return float(np.mean(ious))


def named_colours(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Index into the colour words by hue alone, -1 where grey; [H, W]."""
    rgb = image.astype(np.float64)
    words = np.array(list(scenes.COLOURS.values()), np.float64)
    hue = rgb / rgb.sum(-1, keepdims=True)
    hues = words / words.sum(-1, keepdims=True)
    nearest = ((hue[:, :, None] - hues) ** 2).sum(-1).argmin(-1)
    grey = image.max(-1).astype(int) - image.min(-1) <= 8
    return np.where(grey, -1, nearest)


def test_the_same_seed_gives_the_same_and_another_gives_other(
    records: list[dict[str, Any]],
) -> None:
    assert make_records(seed=0) == records
    assert make_records(seed=1) != records
    assert make_records(n_images=5) == records[:5]


def test_nothing_changes_silently(records: list[dict[str, Any]]) -> None:
    predictions = [make_predictions(records, kind) for kind in ("good", "coarse")]
    pictures = hashlib.sha256(b"".join(draw_image(r).tobytes() for r in records[:6]))
    assert digest(records) == GOLDEN_RECORDS
    assert digest(predictions) == GOLDEN_PREDICTIONS
    assert pictures.hexdigest()[:16] == GOLDEN_PICTURES


def test_records_have_the_published_schema(records: list[dict[str, Any]]) -> None:
    assert len(records) == 36
    for record in records:
        assert set(record) == {"image_id", "file_name", "samples"}
        assert len(record["samples"]) >= 2
        for entry in record["samples"]:
            types = {name: type(value) for name, value in entry.items()}
            assert types == {
                "id": int, "image_id": int, "category": str, "supercategory": str, "label": str,
                "sentences": list, "bbox": list, "mask": dict,
            }  # fmt: skip
            assert entry["image_id"] == record["image_id"]
            assert entry["mask"]["size"] == record["samples"][0]["mask"]["size"]
            assert all(type(value) is float for value in entry["bbox"])
            assert isinstance(entry["mask"]["counts"], str)
            assert 2 <= len(entry["sentences"]) <= 4
    assert json.loads(json.dumps(records)) == records


def test_ids_are_unique_and_are_no_row_numbers(records: list[dict[str, Any]]) -> None:
    images = [record["image_id"] for record in records]
    ids = [entry["id"] for entry in samples_of(records)]
    assert len(set(images)) == len(images)
    assert len(set(ids)) == len(ids)
    assert min(images) > len(images)
    assert min(ids) > len(ids)
    assert any(b - a > 1 for a, b in pairwise(ids))
    assert not set(ids) & set(images)


def test_sizes_vary(records: list[dict[str, Any]]) -> None:
    sizes = {tuple(record["samples"][0]["mask"]["size"]) for record in records}
    assert len(sizes) > 20
    assert any(h > w for h, w in sizes)
    assert any(h < w for h, w in sizes)
    assert any(w % 8 for _, w in sizes)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_masks_are_not_empty_are_disjoint_and_fit_their_boxes(seed: int) -> None:
    for record in make_records(seed, 12):
        masks = [pixels(entry["mask"], entry["mask"]) for entry in record["samples"]]
        assert np.sum(masks, axis=0).max() == 1
        for entry, mask in zip(record["samples"], masks, strict=True):
            assert mask.sum() >= 40
            assert coco_mask.toBbox(entry["mask"]).tolist() == entry["bbox"]


@pytest.mark.parametrize("seed", range(4))
def test_a_sentence_never_refers_to_two_samples_of_an_image(seed: int) -> None:
    for record in make_records(seed):
        said = [s.removeprefix("the ") for e in record["samples"] for s in e["sentences"]]
        assert len(set(said)) == len(said)


def middle_of(shape: Any) -> NDArray[np.float64]:
    """x, y of the middle of what one sees."""
    yx = np.argwhere(shape.seen)
    return ((yx.min(0) + yx.max(0)) / 2)[::-1]


RANKS = {
    "leftmost": lambda s: middle_of(s)[0],
    "rightmost": lambda s: -middle_of(s)[0],
    "topmost": lambda s: middle_of(s)[1],
    "lowest": lambda s: -middle_of(s)[1],
    "smallest": lambda s: s.seen.sum(),
    "largest": lambda s: -int(s.seen.sum()),
}


def heads(sentence: str) -> list[str]:
    """The words before a position or relation: size words, colour, kind."""
    words = sentence.removeprefix("the ")
    return re.split(r" (?:on|at|to|above|below|behind|in) ", words)[0].split()


@pytest.mark.parametrize("seed", range(4))
def test_sentences_are_true_of_one_shape_in_the_scene(seed: int) -> None:
    """Against the whole scene, measured here from pixels; looser than the generator on purpose."""
    checked = 0
    for record in make_records(seed):
        scene = scenes.make_scene(seed, record["image_id"])
        by_look = {(s.colour, s.kind): s for s in scene}
        middle = {s: middle_of(s) for s in scene}
        for shape in scene:
            for sentence in shape.sentences:
                head = heads(sentence)
                alike = [
                    s
                    for s in scene
                    if (s.kind in head or "shape" in head)
                    and (s.colour in head or not set(head) & set(scenes.COLOURS))
                    and ("small" not in head or s.size == "small")
                    and ("large" not in head or s.size == "large")
                ]
                assert shape in alike
                if head[0] in RANKS:
                    assert len(alike) > 1
                    assert min(alike, key=RANKS[head[0]]) is shape
                    checked += 1
                    continue
                H, W = shape.seen.shape
                anchor = re.search(r" the (\w+) (\w+)$", sentence)
                other = by_look[anchor[1], anchor[2]] if anchor else shape
                x, y = middle[other] if anchor else ((W - 1) / 2, (H - 1) / 2)
                holds = [
                    s
                    for s in alike
                    if s is not other or not anchor
                    if not re.search(r"to the left|on the left", sentence) or middle[s][0] < x
                    if not re.search(r"to the right|on the right", sentence) or middle[s][0] > x
                    if not re.search(r"above|at the top", sentence) or middle[s][1] < y
                    if not re.search(r"below|at the bottom", sentence) or middle[s][1] > y
                    if " behind " not in sentence
                    or (s.place < other.place and (s.full & other.seen).any())
                    if " in front " not in sentence
                    or (s.place > other.place and (s.seen & other.full).any())
                ]
                assert holds == [shape], (record["image_id"], sentence)
                if anchor:
                    assert [(s.colour, s.kind) for s in scene].count((anchor[1], anchor[2])) == 1
                checked += 1
    assert checked > 200


@pytest.mark.parametrize("seed", [0, 3])
def test_pictures_agree_with_masks_to_the_pixel(seed: int) -> None:
    words = list(scenes.COLOURS)
    for record in make_records(seed, 12):
        image = draw_image(record, seed)
        assert image.dtype == np.uint8
        assert np.array_equal(image, draw_image(record["image_id"], seed))
        named = named_colours(image)
        for entry in record["samples"]:
            mask = pixels(entry["mask"], entry["mask"])
            assert image.shape == (*mask.shape, 3)
            assert (named[mask] == words.index(entry["label"].split()[0])).all()
        # The converse: every coloured pixel belongs to a shape of that colour.
        scene = scenes.make_scene(seed, record["image_id"])
        for index, word in enumerate(words):
            seen = [s.seen for s in scene if s.colour == word]
            nowhere = np.zeros_like(named, np.bool_)
            assert np.array_equal(named == index, np.any([nowhere, *seen], axis=0))


def test_png_holds_the_picture() -> None:
    image_module = pytest.importorskip("PIL.Image")
    image = draw_image(1001)
    with image_module.open(io.BytesIO(encode_png(image))) as read:
        assert np.array_equal(np.asarray(read), image)


def test_png_without_pillow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(UsageError, match=r"needs Pillow: pip install 'refcocom-gpu\[images\]'"):
        encode_png(np.zeros((2, 2, 3), np.uint8))


@pytest.mark.parametrize("image_id", [0, 1000, 1002])
def test_an_unknown_image_is_refused(image_id: int) -> None:
    with pytest.raises(UsageError, match=f"no image {image_id}"):
        draw_image(image_id)


@pytest.mark.parametrize("kind", ["good", "coarse"])
def test_predictions_cover_every_example_in_order(records: list[dict[str, Any]], kind: Any) -> None:
    rows = make_predictions(records, kind)
    examples = [
        (entry["id"], idx, sentence, entry["mask"]["size"])
        for entry in samples_of(records)
        for idx, sentence in enumerate(entry["sentences"])
    ]
    assert [(r["sample_id"], r["sentence_idx"], r["sentence"]) for r in rows] == [
        example[:3] for example in examples
    ]
    for row, example in zip(rows, examples, strict=True):
        assert set(row) == {"sample_id", "sentence_idx", "sentence", "segmentation"}
        assert row["segmentation"] is None or row["segmentation"]["size"] == example[3]
    empty = sum(row["segmentation"] is None for row in rows)
    assert empty == 0 if kind == "good" else 0 < empty < len(rows) / 10
    assert make_predictions(records, kind) == rows
    assert make_predictions(records, kind, seed=1) != rows
    assert make_predictions(records[7:9], kind) == [
        row for row in rows if row["sample_id"] in {e["id"] for e in samples_of(records[7:9])}
    ]


def test_predictions_differ_between_the_sentences_of_a_sample(
    records: list[dict[str, Any]],
) -> None:
    rows = make_predictions(records, "good")
    masks = {(row["sample_id"], row["segmentation"]["counts"]) for row in rows}
    assert len(masks) > 0.95 * len(rows)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("kind", "low", "high"), [("good", 0.85, 0.92), ("coarse", 0.5, 0.65)])
def test_predictions_are_as_good_as_they_say(
    records: list[dict[str, Any]], kind: Any, low: float, high: float, seed: int
) -> None:
    assert low <= miou(records, make_predictions(records, kind, seed)) <= high


def test_a_lone_sample_can_still_be_mistaken(records: list[dict[str, Any]]) -> None:
    lone = [{**record, "samples": record["samples"][:1]} for record in records]
    rows = make_predictions(lone, "coarse")
    assert len(rows) == sum(len(record["samples"][0]["sentences"]) for record in lone)


def test_an_unknown_kind_is_refused(records: list[dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match="'perfect'"):
        make_predictions(records, "perfect")  # type: ignore[arg-type]
