"""Raw answers of models: each form against a mask made without the adapter, and what cannot be read."""

import base64
import contextlib
import io
import itertools
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import coco_encode, sample_case, write_jsonl
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

import refcocom_gpu as rc
from refcocom_gpu.adapters import florence, gemini, moondream, points, qwen, svg
from refcocom_gpu.adapters.fill import fill
from refcocom_gpu.adapters.responses import parse_response
from refcocom_gpu.adapters.sources import SOURCES, options_of
from refcocom_gpu.masks import rle

CASE = sample_case()
STORE, DATASET = CASE.store, CASE.dataset
H, W = 60, 90
DATA_URL = "data:image/png;base64,"


def size_of(k):
    sample = DATASET.example_sample[k]
    return int(DATASET.heights[sample]), int(DATASET.widths[sample])


def key_of(k):
    return dict(zip(DATASET.example_key_fields, DATASET.key_of(k), strict=True))


def drawn(polygons, height=H, width=W):
    """By pycocotools alone; polygons in pixels."""
    flat = [np.asarray(p, float).ravel().tolist() for p in polygons]
    return coco.decode(coco.merge(coco.frPyObjects(flat, height, width))).astype(bool)


def png(array, mode=None, kind="PNG"):
    file = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def soft(height, width, seed=0):
    """A map of probabilities, 8-bit."""
    noise = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 4)
    low, high = blurred.min(), blurred.max()
    return np.rint((blurred - low) / (high - low) * 255).astype(np.uint8)


def fenced(value, before="Here are the masks:", after="Anything else?"):
    return f"{before}\n```json\n{json.dumps(value)}\n```\n{after}"


def only(candidates):
    (candidate,) = candidates
    assert candidate.mask.dtype == bool
    return candidate.mask


# The text of a response


@pytest.mark.parametrize(
    "text",
    [
        '[{"a": [1, 2]}]',
        '```json\n[{"a": [1, 2]}]\n```',
        'As [1] says:\n\n```\n[{"a": [1, 2]}]\n```\nSee [2].',
        'It is the left one [1]: [{"a": [1, 2]}] (see {label}).',
        '```json\r\n[{"a": [1, 2]}]',
        '<think>Maybe [{"a": [3, 4]}]?</think>[{"a": [1, 2]}]',
    ],
)
def test_json_is_found_in_what_stands_around_it(text):
    assert parse_response(text) == [{"a": [1, 2]}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no JSON"),
        ("I see no cat [1-2", "no JSON|cut off"),
        ('```json\n[{"a": [[1, 2], [3, 4], [5, 6]], "mask": "data:im', "cut off"),
        ("[[1, 2], [3, 4], [5, 6], [7", "cut off"),
        ("[[1, 2], [3, 4], [5 6]]", "malformed"),
        ("{'polygons': [[[1, 2, 3, 4, 5, 6]]]}", "malformed"),
        ('{"a": 1} or {"a": 2}', "2 JSON values"),
        ('{"a": 1, "a": 2}', "'a' more than once"),
        ('{"a": NaN}', "NaN"),
        ('{"a": %s}' % ("9" * 5000), "thousands of digits"),
        ("[" * 100_000, "nested|cut off"),
    ],
)  # fmt: skip
def test_what_is_not_one_json_value_is_a_named_error(text, says):
    with pytest.raises(rc.AnswerError, match=says):
        parse_response(text)


# Gemini


def gemini_entry(box, mask, **more):
    return {"box_2d": box, "mask": mask, "label": "cup", **more}


@pytest.mark.parametrize("prefix", [DATA_URL, ""])
def test_gemini_map_is_resized_into_its_box_and_set_above_127(prefix):
    box = [101, 57, 893, 741]
    values = soft(32, 48)
    y0, y1 = math.floor(101 * H / 1000), math.floor(893 * H / 1000)
    x0, x1 = math.floor(57 * W / 1000), math.floor(741 * W / 1000)
    expected = np.zeros((H, W), bool)
    resized = Image.fromarray(values).resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR)
    expected[y0:y1, x0:x1] = np.asarray(resized) > 127
    text = fenced([gemini_entry(box, prefix + png(values))])
    assert 100 < expected.sum() < (y1 - y0) * (x1 - x0)
    np.testing.assert_array_equal(rc.adapters.to_mask(text, H, W, source="gemini"), expected)


@pytest.mark.parametrize(("value", "is_set"), [(127, False), (128, True)])
def test_gemini_sets_what_is_above_127(value, is_set):
    entry = gemini_entry([0, 0, 1000, 1000], png(np.full((8, 8), value, np.uint8)))
    assert (only(gemini.masks_of([entry], H, W)) == is_set).all()


def test_gemini_box_ends_where_a_whole_pixel_does():
    # 29 / 1000 * 1000 is 28.999999999999996.
    entry = gemini_entry([29, 0, 1000, 1000], png(np.full((8, 8), 255, np.uint8)))
    mask = only(gemini.masks_of(entry, 1000, 10))
    assert not mask[:29].any()
    assert mask[29:].all()


def test_gemini_maps_of_other_depths():
    ramp = np.tile(np.arange(0, 256, 4, np.uint8), (20, 1))
    wide = (ramp.astype(np.uint16)) * 257
    box = [0, 0, 1000, 1000]
    eight = only(gemini.masks_of(gemini_entry(box, png(ramp)), 20, 64))
    np.testing.assert_array_equal(eight, ramp > 127)
    np.testing.assert_array_equal(
        only(gemini.masks_of(gemini_entry(box, png(wide)), 20, 64)), eight
    )
    binary = only(gemini.masks_of(gemini_entry(box, png(ramp > 127)), 20, 64))
    np.testing.assert_array_equal(binary, eight)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (gemini_entry([0, 0, 1000, 1000], "<start_of_mask><seg_4><seg_20>"), "tokens"),
        (gemini_entry([0, 0, 1000, 1000], "<seg_4>"), "tokens"),
        (gemini_entry([0, 0, 1000, 1000], "gimme_mask_for_this"), "no PNG in base64"),
        (gemini_entry([0, 0, 1000, 1000], DATA_URL + "AAAA"), "no PNG in base64"),
        (gemini_entry([0, 0, 1000, 1000], png(np.zeros((9, 9), np.uint8), kind="JPEG")), "no PNG"),
        (gemini_entry([0, 0, 1000, 1000], png(np.eye(9, dtype=np.uint8), "CMYK", "TIFF")), "no PNG"),
        (gemini_entry([0, 0, 1000, 1000], png(soft(9, 9))[:60]), "cannot be read"),
        (gemini_entry([0, 0, 0, 1000], png(soft(9, 9))), "box_2d"),
        (gemini_entry([500, 0, 501, 1000], png(soft(9, 9))), "covers no pixel"),
        (gemini_entry([0, 0, 1200, 1000], png(soft(9, 9))), "box_2d"),
        ({"mask": png(soft(9, 9))}, "box_2d is None"),
        ({"box_2d": [0, 0, 9, 9], "label": "cup"}, "no mask"),
        ("cup", "not a list of objects"),
    ],
)  # fmt: skip
def test_gemini_answers_without_a_mask_are_named_errors(entry, says):
    with pytest.raises(rc.AnswerError, match=says):
        gemini.masks_of([entry], H, W)


FOUR = [[100, 300], [100, 800], [500, 700], [400, 320]]
"""Points in thousandths; taken as [y, x] they fill the box below."""

BOX = [100, 300, 500, 800]


def test_gemini_points_need_their_order():
    with pytest.raises(rc.UsageError, match="points=yx or points=xy"):
        gemini.masks_of([gemini_entry(BOX, FOUR)], H, W)
    with pytest.raises(rc.UsageError, match="points must be yx or xy"):
        gemini.masks_of([], H, W, points="rows")


@pytest.mark.parametrize("order", ["yx", "xy"])
def test_gemini_points_are_the_polygon_at_the_image_size(order):
    step = -1 if order == "yx" else 1
    mask = (np.array(FOUR)[:, ::-step] if order == "xy" else np.array(FOUR)).tolist()
    mask = [pair[::-1] for pair in FOUR] if order == "xy" else mask
    found = only(gemini.masks_of([gemini_entry(BOX, mask)], H, W, points=order))
    expected = drawn([[(x * W / 1000, y * H / 1000) for y, x in FOUR]])
    assert expected.sum() > 500
    np.testing.assert_array_equal(found, expected)


def test_gemini_points_outside_their_box_are_refused():
    with pytest.raises(rc.AnswerError, match="with points=yx they lie inside"):
        gemini.masks_of([gemini_entry(BOX, FOUR)], H, W, points="xy")
    outside = [*FOUR[:3], [400, 297]]
    with pytest.raises(rc.AnswerError, match="outside box_2d") as caught:
        gemini.masks_of([gemini_entry(BOX, outside)], H, W, points="yx")
    assert "lie inside" not in str(caught.value)
    rounded = [*FOUR[:3], [400, 299]]
    assert len(gemini.masks_of([gemini_entry(BOX, rounded)], H, W, points="yx")) == 1


# SVG paths and Moondream

BLOB = (
    "M 0.5 0.02 C 0.9 0.02 0.98 0.2 0.98 0.5 C 0.98 0.85 0.7 0.99 0.5 0.98 L 0.2 0.9 "
    "C -0.05 0.7 0.02 0.5 0.1 0.3 Z"
)
PIECES = [
    [(0.5, 0.02), (0.9, 0.02), (0.98, 0.2), (0.98, 0.5)],
    [(0.98, 0.5), (0.98, 0.85), (0.7, 0.99), (0.5, 0.98)],
    [(0.5, 0.98), (0.2, 0.9)],
    [(0.2, 0.9), (-0.05, 0.7), (0.02, 0.5), (0.1, 0.3)],
]
"""The same curves as control points."""


def casteljau(control, t):
    """A point of a Bézier curve by its definition."""
    p = [np.array(point, float) for point in control]
    while len(p) > 1:
        p = [(1 - t) * a + t * b for a, b in itertools.pairwise(p)]
    return p[0]


def opencv_mask(contours, height, width, scale=16):
    """Fill by OpenCV at 16 times the size, then average: pixels covered by more than half."""
    canvas = np.zeros((height * scale, width * scale), np.uint8)
    # A pixel of OpenCV has its centre at a whole number, and 8 bits of a coordinate are its fraction.
    fixed = [np.rint((np.array(c) * scale - 0.5) * 256).astype(np.int32) for c in contours]
    cv2.fillPoly(canvas, fixed, 1, shift=8)
    return canvas.reshape(height, scale, width, scale).mean((1, 3)) > 0.5


@pytest.mark.parametrize(
    "box", [(0.1, 0.2, 0.7, 0.9), (0.0002, 0.0039, 0.7838, 0.9971), (0.4, 0.4, 0.5, 0.6)]
)
def test_moondream_equals_an_independent_rasteriser(box):
    height, width = 240, 320
    x0, y0, x1, y1 = box
    dense = [casteljau(c, t) for c in PIECES for t in np.linspace(0, 1, 200)]
    placed = (np.array([x0, y0]) + np.array(dense) * (x1 - x0, y1 - y0)) * (width, height)
    expected = opencv_mask([placed], height, width)
    output = {"path": BLOB, "bbox": dict(zip(moondream.CORNERS, box, strict=True))}
    found = only(moondream.masks_of(output, height, width))
    assert abs(int(found.sum()) - int(expected.sum())) <= 0.01 * expected.sum()
    assert (found ^ expected).sum() <= 0.01 * expected.sum()
    segments = {"segments": [{"svg_path": BLOB, "bbox": output["bbox"]}]}
    np.testing.assert_array_equal(only(moondream.masks_of(segments, height, width)), found)


def test_moondream_paths_as_its_tracer_writes_them():
    """No spaces, no leading zeros, a comma before a command, and holes that turn the other way."""
    box = {"x_min": 0.0, "y_min": 0.0, "x_max": 1.0, "y_max": 1.0}
    ring = "M0,0L1.000,0L1,1.000L0,1z,M.25,.25L.25,.75,.75,.75.75.25z"
    found = only(moondream.masks_of({"path": ring, "bbox": box}, 40, 80))
    expected = np.ones((40, 80), bool)
    expected[10:30, 20:60] = False
    np.testing.assert_array_equal(found, expected)


UNIT_BOX = {"x_min": 0.1, "y_min": 0.1, "x_max": 0.9, "y_max": 0.9}


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ({"path": "", "bbox": UNIT_BOX}, "no path"),
        ({"path": BLOB, "bbox": UNIT_BOX, "parse_error": "Unexpected SVG token"}, "parse_error"),
        ({"path": BLOB}, "bbox is None"),
        ({"path": BLOB, "bbox": [0, 0, 1, 1]}, "bbox"),
        ({"path": BLOB, "bbox": {**UNIT_BOX, "x_max": 0.1}}, "no box"),
        ({"path": BLOB, "bbox": {**UNIT_BOX, "x_max": 320, "y_max": 240}}, "0…1 of the image"),
        ({"path": "M 0 0 L 960 0 L 960 960 Z", "bbox": UNIT_BOX}, "0…1 of its box"),
        ({"path": "M 0 0 L 1", "bbox": UNIT_BOX}, "cut off"),
        ({"path": "M 0 0 L 1 1 Z", "bbox": UNIT_BOX}, "encloses nothing"),
        ({"error": "busy"}, "no path"),
    ],
)  # fmt: skip
def test_moondream_answers_without_a_mask_are_named_errors(output, says):
    with pytest.raises(rc.AnswerError, match=says):
        moondream.masks_of(output, H, W)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("M 10 10 L 50 10 50 40 10 40 Z", "m 10 10 l 40 0 0 30 -40 0 z"),
        ("M 10 10 L 50 10 50 40 10 40 Z", "M10,10H50V40H10z"),
        ("M 10 10 L 50 10 50 40 10 40 Z", "m10 10h40v30h-40"),
        ("M 10 30 C 10 10 30 10 30 30 C 30 50 50 50 50 30 Z", "M10 30C10 10 30 10 30 30S50 50 50 30Z"),
        ("M 10 30 Q 20 10 30 30 Q 40 50 50 30 Z", "M10 30Q20 10 30 30T50 30Z"),
        ("M 10 30 Q 20 10 30 30 Q 40 50 50 30 Z", "m10 30q10-20 20 0t20 0z"),
        ("M 10 30 Q 25 9 40 30 Z", "M10 30 C 20 16 30 16 40 30 z"),
        ("M 20 30 A 15 15 0 1 1 50 30 A 15 15 0 1 1 20 30 Z", "m20 30a15 15 0 1130 0 15 15 0 11-30 0z"),
        ("M 5 5 L 15 5 15 15 Z M 5 5 L 5 20 20 20 Z", "M 5 5 L 15 5 15 15 Z L 5 20 20 20 Z"),
        ("M 10 10 L 50 10 50 40 10 40 Z", "M 1e1 .1e2 L 5.0E+1 +10 50 40. 10 40"),
    ],
)  # fmt: skip
def test_paths_that_are_drawn_the_same(one, other):
    found, expected = (only(svg.masks_of(path, H, W)) for path in (one, other))
    assert found.sum() > 100
    np.testing.assert_array_equal(found, expected)


def test_arcs_are_those_of_an_ellipse():
    y, x = (np.mgrid[: 8 * H, : 8 * W] + 0.5) / 8
    c, s = math.cos(math.pi / 6), math.sin(math.pi / 6)
    start, end = (f"{46.8 + sign * 24 * c} {32 + sign * 24 * s}" for sign in (-1, 1))
    turned = svg.masks_of(f"M {start} A 24 12 30 0 0 {end} A 24 12 30 0 0 {start} Z", H, W)
    u, v = x - 46.8, y - 32
    inside = ((u * c + v * s) / 24) ** 2 + ((v * c - u * s) / 12) ** 2 < 1
    expected = inside.reshape(H, 8, W, 8).mean((1, 3)) > 0.5
    assert (only(turned) ^ expected).sum() <= 0.005 * expected.sum()
    # Of the four arcs through two points, the flags choose.
    areas = [
        only(svg.masks_of(f"M 30 30 A 16 16 0 {flags} 54 30 Z", H, W)).sum() for flags in ("0 0", "0 1", "1 0", "1 1")
    ]  # fmt: skip
    angle = 2 * math.asin(12 / 16)
    minor = 16 * 16 / 2 * (angle - math.sin(angle))
    major = math.pi * 16 * 16 - minor
    assert areas == pytest.approx([minor, minor, major, major], rel=0.03)
    below = only(svg.masks_of("M 30 30 A 16 16 0 0 0 54 30 Z", H, W))
    assert not below[:30].any()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("10 10 L 5 5", "number where a command"),
        ("L 5 5 6 6 7 7", "begins with M"),
        ("M 5 5 L L 6 6", "too few"),
        ("M 5 5 C 6 6 7 7 L 8 8", "too few"),
        ("M 5 5 L 6 6 7 7 8", "cut off"),
        ("M 5 5 L 6 6 7 7 L", "cut off"),
        ("M 5 5 L 6 6 7 7 Z 8", "number where"),
        ("M 5 5 X 6 6", "no part of an SVG path"),
        ("<svg><path/></svg>", "no part of an SVG path"),
        ("M 0 0 L 1e300 0 1e300 9 Z", "beyond any image"),
        ("M 1000 1000 L 1100 1000 1100 1100 Z", "outside the image"),
    ],
)
def test_what_is_no_path_is_a_named_error(path, says):
    with pytest.raises(rc.AnswerError, match=says):
        svg.masks_of(path, H, W)


def winding_coverage(lines, height, width, samples=32):
    """The part of each pixel that is inside, by the winding number of each sample."""
    y, x = (np.mgrid[: height * samples, : width * samples] + 0.5) / samples
    winding = np.zeros(x.shape, int)
    for line in lines:
        for (ax, ay), (bx, by) in zip(line, np.roll(line, -1, axis=0), strict=True):
            left = (bx - ax) * (y - ay) - (x - ax) * (by - ay)
            winding += (ay <= y) & (by > y) & (left > 0)
            winding -= (by <= y) & (ay > y) & (left < 0)
    return (winding != 0).reshape(height, samples, width, samples).mean((1, 3))


corner = st.tuples(st.floats(-4, 12), st.floats(-4, 9))
closed = st.lists(corner, min_size=3, max_size=6).map(np.array)


@given(st.lists(closed, min_size=1, max_size=2))
def test_filling_is_the_nonzero_rule(lines):
    part = winding_coverage(lines, 6, 8)
    found = fill(lines, 6, 8)
    # The two kinds of samples may differ at an edge.
    assert (found == (part > 0.5))[np.abs(part - 0.5) > 0.2].all()
    np.testing.assert_array_equal(fill([line[::-1] for line in lines], 6, 8), found)
    # What lies outside the image does not matter to what is inside.
    moved = fill([line + np.array([5, 3]) for line in lines], 14, 20)
    np.testing.assert_array_equal(moved[3:9, 5:13], found)


def test_a_pixel_covered_by_half_is_not_set():
    half = [np.array([[0, 0], [3.5, 0], [3.5, 2.5], [0, 2.5]])]
    assert fill(half, 4, 5).sum() == 6


# Polygons


def test_points_need_their_scale():
    with pytest.raises(rc.UsageError, match="scale=pixels or scale=normalized or scale=thousandths"):  # fmt: skip
        points.masks_of([[1, 1], [5, 1], [5, 5]], H, W)


TRIANGLES = [[(10, 10), (50, 12), (45, 40)], [(60, 30), (80, 30), (70, 55)]]


@pytest.mark.parametrize(
    ("scale", "unit"),
    [("pixels", (W, H)), ("normalized", (1, 1)), ("thousandths", (1000, 1000))],
)
def test_points_on_every_scale_and_in_every_form(scale, unit):
    expected = drawn(TRIANGLES)
    pairs = [(np.array(t) / (W, H) * unit).tolist() for t in TRIANGLES]
    flat = [np.array(t).ravel().tolist() for t in pairs]
    for output in (pairs, flat, {"points": pairs}, [{"polygons": flat, "label": "two parts"}]):
        found = only(points.masks_of(output, H, W, scale=scale))
        assert (found ^ expected).sum() <= 2  # rounding at an edge
    both = points.masks_of([{"polygon": p, "score": 0.5} for p in pairs], H, W, scale=scale)
    assert [c.score for c in both] == [0.5, 0.5]
    assert (np.logical_or(*(c.mask for c in both)) ^ expected).sum() <= 2


@pytest.mark.parametrize(
    ("output", "scale", "says"),
    [
        ([[1, 1], [5, 1], [5, 5]], "normalized", "outside 0…1"),
        ([[1, 1], [1001, 1], [5, 5]], "thousandths", "outside 0…1000"),
        ([[-1, 1], [5, 1], [5, 5]], "thousandths", "outside 0…1000"),
        ([[900, 900], [990, 900], [990, 990]], "pixels", "outside the image"),
        ([[1, 1], [5, 1]], "pixels", "at least three points"),
        ([], "pixels", "not a list of points"),
        ([[]], "pixels", "at least three points"),
        ([[1, 1], [5, "1"], [5, 5]], "pixels", "finite numbers"),
        ("[1, 1]", "pixels", "not a list of points"),
        ({"label": "cup"}, "pixels", "not one of points, polygon, polygons"),
    ],
)
def test_what_are_no_points_is_a_named_error(output, scale, says):
    with pytest.raises(rc.AnswerError, match=says):
        points.masks_of(output, H, W, scale=scale)


QWEN_BOX = [{"bbox_2d": [200, 250, 600, 750], "label": "cup"}]


@pytest.mark.parametrize("version", ["2", 2, "3", 3.0])
def test_qwen_2_and_3_write_thousandths(version):
    expected = np.zeros((H, W), bool)
    expected[15:45, 18:54] = True
    found = only(qwen.masks_of(QWEN_BOX, H, W, version=version, boxes="fill"))
    np.testing.assert_array_equal(found, expected)
    polygon = [{"points": [[200, 250], [600, 250], [600, 750], [200, 750]]}]
    np.testing.assert_array_equal(only(qwen.masks_of(polygon, H, W, version=version)), expected)


QWEN_TEXT = (
    "<|object_ref_start|>the [red] cup<|object_ref_end|><|box_start|>({},{}),({},{})<|box_end|>"
)


def test_qwen_2_writes_boxes_in_its_text():
    boxes = [[100, 200, 500, 900], [0, 0, 1000, 50]]
    text = " and ".join(QWEN_TEXT.format(*box) for box in boxes)
    options = {"source": "qwen", "version": "2", "boxes": "fill"}
    expected = [only(qwen.masks_of([{"bbox_2d": b}], H, W, version=2, boxes="fill")) for b in boxes]
    first = rc.adapters.to_mask(QWEN_TEXT.format(*boxes[0]), H, W, **options)
    np.testing.assert_array_equal(first, expected[0])
    both = rc.adapters.to_mask(text, H, W, combine="union", **options)
    np.testing.assert_array_equal(both, expected[0] | expected[1])


@pytest.mark.parametrize(
    ("text", "options", "error", "says"),
    [
        (QWEN_TEXT.format(1, 2, 3, 4), {"version": 3}, rc.UsageError, "written by version=2"),
        (QWEN_TEXT.format(1, 2, 3, 4), {"version": 2}, rc.AnswerError, "boxes=fill"),
        (QWEN_TEXT.format(1, 2, 3, "x"), {"version": 2}, rc.AnswerError, "not .x0,y0.,.x1,y1."),
        (QWEN_TEXT.format(1, 2, 3, 4)[:-3], {"version": 2}, rc.AnswerError, "cut off"),
        (
            QWEN_TEXT.format(1, 2, 3, 1001),
            {"version": 2, "boxes": "fill"},
            rc.AnswerError,
            "0…1000",
        ),
        (QWEN_TEXT.format(9, 2, 3, 4), {"version": 2, "boxes": "fill"}, rc.AnswerError, "x0 < x1"),
        ("I see no cup.", {"version": 2, "boxes": "fill"}, rc.AnswerError, "no JSON"),
    ],
)
def test_qwen_texts_without_a_box_are_named_errors(text, options, error, says):
    with pytest.raises(error, match=says):
        rc.adapters.to_mask(text, H, W, source="qwen", **options)


def test_qwen_2_5_writes_pixels_of_the_processed_image():
    """An image of 60×90 that the processor makes 56×84: 28 is half of its height and a third of its width."""
    with pytest.raises(rc.UsageError, match="processed_size=\\[height, width\\]"):
        qwen.masks_of(QWEN_BOX, H, W, version="2.5", boxes="fill")
    box = [{"bbox_2d": [0, 0, 28, 28]}]
    found = only(qwen.masks_of(box, H, W, version=2.5, processed_size=[56, 84], boxes="fill"))
    expected = np.zeros((H, W), bool)
    expected[:30, :30] = True
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "version=2, version=2.5 or version=3"),
        ({"version": "4"}, "not '4'"),
        ({"version": 3, "processed_size": [56, 84]}, "is for version=2.5"),
        ({"version": 2.5, "processed_size": 56}, "not \\[height, width\\]"),
        ({"version": 2.5, "processed_size": [56.5, 84]}, "not \\[height, width\\]"),
        ({"version": 3, "boxes": "draw"}, "boxes must be fill"),
    ],
)
def test_qwen_options_that_are_missing_or_wrong(options, says):
    with pytest.raises(rc.UsageError, match=says):
        qwen.masks_of(QWEN_BOX, H, W, **options)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (QWEN_BOX[0], "boxes=fill"),
        ({"point_2d": [3, 4]}, "not one of"),
        ({"points": [[1, 1], [1200, 1], [5, 5]]}, "outside 0…1000"),
    ],
)
def test_qwen_answers_without_a_mask_are_named_errors(entry, says):
    with pytest.raises(rc.AnswerError, match=says):
        qwen.masks_of([entry], H, W, version=3)
    for box in ([600, 250, 200, 750], [1, 2, 3], [1, 2, 3, "4"]):
        with pytest.raises(rc.AnswerError):
            qwen.masks_of([{"bbox_2d": box}], H, W, version=3, boxes="fill")


def test_florence_nests_twice():
    flat = [np.array(t, float).ravel().tolist() for t in TRIANGLES]
    answer = {"polygons": [flat], "labels": [""]}
    np.testing.assert_array_equal(only(florence.masks_of(answer, H, W)), drawn(TRIANGLES))
    task = {"<REFERRING_EXPRESSION_SEGMENTATION>": answer}
    np.testing.assert_array_equal(only(florence.masks_of(task, H, W)), drawn(TRIANGLES))
    two = florence.masks_of({"polygons": [[part] for part in flat], "labels": ["", ""]}, H, W)
    assert [int(c.mask.sum()) for c in two] == [int(drawn([t]).sum()) for t in TRIANGLES]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"polygons": [], "labels": []}, "no polygons"),
        ({"polygons": [[1, 2, 3, 4, 5, 6]]}, "nests them twice"),
        ({"polygons": [[]]}, "not a list of points"),
        ({"bboxes": [[1, 2, 3, 4]]}, "not an object with polygons"),
        ([[[1, 2, 3, 4, 5, 6]]], "not an object with polygons"),
    ],
)
def test_florence_answers_without_a_mask_are_named_errors(answer, says):
    with pytest.raises(rc.AnswerError, match=says):
        florence.masks_of(answer, H, W)


# Several masks for one expression


def several():
    masks = [np.zeros((H, W), bool) for _ in range(3)]
    masks[0][:20], masks[1][10:30], masks[2][40:] = True, True, True
    return masks, [{**coco_encode(m), "score": s} for m, s in zip(masks, (0.2, 0.9, 0.9), strict=True)]  # fmt: skip


def test_a_list_of_rle_is_combined_as_declared():
    masks, output = several()
    with pytest.raises(rc.UsageError, match=r"3 masks.*combine=union.*combine=best"):
        rc.adapters.to_mask(output, H, W, source="rle")
    union = rc.adapters.to_mask(output, H, W, source="rle", combine="union")
    np.testing.assert_array_equal(union, masks[0] | masks[1] | masks[2])
    # The first of equal scores.
    best = rc.adapters.to_mask(output, H, W, source="rle", combine="best")
    np.testing.assert_array_equal(best, masks[1])
    one = rc.adapters.to_mask(output[0], H, W, source="rle")
    np.testing.assert_array_equal(one, masks[0])


def test_best_needs_every_score():
    _, output = several()
    del output[2]["score"]
    with pytest.raises(rc.UsageError, match="needs a score for each mask, and 1 of 3 have none"):
        rc.adapters.to_mask(output, H, W, source="rle", combine="best")
    output[2]["score"] = "high"
    with pytest.raises(rc.AnswerError, match="not a number"):
        rc.adapters.to_mask(output, H, W, source="rle", combine="union")


def test_unknown_requests_are_named():
    for wrong, says in (
        ({"source": "gpt"}, "source must be one of gemini"),
        ({"source": "gemini", "axis": "yx"}, "takes points, not axis"),
        ({"source": "florence", "scale": "pixels"}, "takes no options, not scale"),
        ({"source": "svg", "combine": "all"}, "combine must be union or best"),
    ):
        with pytest.raises(rc.UsageError, match=says):
            rc.adapters.to_mask("M 0 0 h 9 v 9 z", H, W, **wrong)
    with pytest.raises(rc.AnswerError, match="null"):
        rc.adapters.to_mask(None, H, W, source="gemini")
    with pytest.raises(rc.AnswerError, match="is 30×90"):
        rc.adapters.to_mask(coco_encode(np.ones((30, 90), bool)), H, W, source="rle")


DECLARED = {
    "gemini": {"points": "yx"},
    "qwen": {"version": 2.5, "processed_size": [H, W], "boxes": "fill"},
    "points": {"scale": "pixels"},
}
GOOD = {
    "gemini": [gemini_entry(BOX, FOUR, score=0.5), gemini_entry(BOX, png(soft(5, 5)))],
    "moondream": {"path": BLOB, "bbox": dict(zip(moondream.CORNERS, (0, 0, 1, 1), strict=True))},
    "qwen": [{"points": TRIANGLES[0], "score": 1}, {"bbox_2d": [2, 2, 9, 9]}],
    "florence": {"polygons": [[[1, 1, 9, 1, 9, 9]]], "labels": [""]},
    "points": {"polygons": [[[1, 1], [9, 1], [9, 9]]]},
    "svg": {"d": "M 1 1 A 5 5 0 0 1 20 20 Z"},
    "rle": [{"size": [H, W], "counts": [5, H * W - 5]}],
}
WEIRD = [
    None, True, "1", "", [], {}, -1, 0, 1e-300, 10**400, -1e300, math.inf, math.nan, [1], [[1, 2]], {"a": 1},
]  # fmt: skip


def with_one_part_replaced(value, part):
    """Each copy of a value in which one part of it, at any depth, is another one."""
    yield part
    if isinstance(value, dict):
        for k in value:
            yield from ({**value, k: new} for new in with_one_part_replaced(value[k], part))
    elif isinstance(value, list | tuple):
        value = list(value)
        for k in range(len(value)):
            for new in with_one_part_replaced(value[k], part):
                yield [*value[:k], new, *value[k + 1 :]]


@pytest.mark.parametrize("source", SOURCES)
def test_an_answer_with_any_part_replaced_is_a_mask_or_a_named_error(source):
    options = {"source": source, "combine": "union", **DECLARED.get(source, {})}
    assert rc.adapters.to_mask(GOOD[source], H, W, **options).any()
    for part in WEIRD:
        for output in with_one_part_replaced(GOOD[source], part):
            try:
                mask = rc.adapters.to_mask(output, H, W, **options)
            except rc.AnswerError:
                continue
            assert mask.shape == (H, W)
            assert mask.dtype == bool


@given(st.text("MmLlHhVvCcSsQqTtAaZz01259.-,e ", max_size=40))
def test_any_text_of_path_data_is_a_mask_or_a_named_error(text):
    for start in ("", "M 1 1 L 9 1 9 9 "):
        with contextlib.suppress(rc.AnswerError):
            assert only(svg.masks_of(start + text, H, W)).shape == (H, W)


# Files of responses


def gemini_rows():
    """A row for each example, and the masks that the answers stand for, made without the adapter."""
    rows, masks = [], []
    for k in range(len(STORE)):
        height, width = size_of(k)
        values = np.where(STORE.mask(k), 255, 0).astype(np.uint8)
        entry = gemini_entry([0, 0, 1000, 1000], DATA_URL + png(values))
        response = fenced([entry]) if k % 2 else [entry]
        rows.append({**key_of(k), "response": response})
        masks.append(STORE.mask(k))
        assert values.shape == (height, width)
    return rows, masks


ROWS, MASKS = gemini_rows()


def read(tmp_path, rows, **options):
    path = write_jsonl(tmp_path / "responses.jsonl", rows)
    return rc.adapters.read(path, DATASET, **{"source": "gemini", **options})


def problems_of_reading(tmp_path, rows, **options):
    with pytest.raises(rc.PredictionError) as caught:
        read(tmp_path, rows, **options)
    return caught.value


def test_a_file_of_responses_scores_as_the_masks_do(tmp_path):
    answers = read(tmp_path, ROWS)
    assert len(answers) == len(STORE)
    result = rc.score(answers, STORE)
    assert result.miou == 1.0
    again = rc.score(list(enumerate(MASKS)), STORE)
    assert result.per_example.equals(again.per_example)
    about = result.info["predictions"]
    assert about["files"] == [str(tmp_path / "responses.jsonl")]
    assert about["adapter"] == {"source": "gemini", "combine": None}
    assert (about["n_combined"], about["n_none"], about["n_unread"]) == (0, 0, 0)
    assert len(about["xxh3_128"]) == 32


def test_each_pair_feeds_the_writer(tmp_path):
    path = tmp_path / "preds.parquet"
    with rc.PredictionWriter(path, DATASET) as writer:
        for key, prediction in read(tmp_path, ROWS):
            writer.write(key, prediction)
    assert rc.score(path, STORE).miou == 1.0
    mask = rc.adapters.to_mask(ROWS[1]["response"], *size_of(1), source="gemini")
    with rc.PredictionWriter(tmp_path / "one.jsonl", DATASET) as writer:
        writer.write(1, mask)


def test_unread_answers_are_listed_and_never_scored_as_empty(tmp_path):
    rows = [dict(row) for row in ROWS]
    rows[3]["response"] = [gemini_entry([0, 0, 1000, 1000], "<start_of_mask><seg_4>")]
    rows[5]["response"] = "I cannot help with that."
    rows[7]["response"] = None
    answers = read(tmp_path, rows)
    assert (len(answers), len(answers.unread)) == (len(STORE) - 3, 3)
    assert "3 unread" in repr(answers)
    with pytest.raises(rc.PredictionError) as caught:
        rc.score(answers, STORE)
    assert caught.value.counts == {"unread answer": 3}
    path = tmp_path / "responses.jsonl"
    assert [p.where for p in caught.value.problems] == [f"{path}, line {n}" for n in (4, 6, 8)]
    with pytest.warns(UserWarning, match="3 answers could not be read.*line 4: unread answer"):
        result = rc.score(answers, STORE, missing="zero")
    assert (result.n_missing, result.n_empty) == (3, 0)
    assert result.info["predictions"]["n_unread"] == 3
    assert any("3 answers" in text for text in result.info["warnings"])


def test_an_empty_list_names_no_object(tmp_path):
    rows = [dict(row) for row in ROWS]
    rows[0]["response"] = "```json\n[]\n```"
    answers = read(tmp_path, rows)
    result = rc.score(answers, STORE)
    assert (answers.n_none, result.n_missing, result.n_empty) == (1, 0, 1)


def test_several_masks_in_an_answer(tmp_path):
    _, width = size_of(0)
    split = np.arange(width) < width // 2
    halves = [MASKS[0] & split, MASKS[0] & ~split]
    rows = [
        {
            **key_of(0),
            "response": [
                {**coco_encode(m), "score": s} for m, s in zip(halves, (1, 2), strict=True)
            ],
        },
        *({**key_of(k), "response": coco_encode(MASKS[k])} for k in range(1, len(MASKS))),
    ]
    error = problems_of_reading(tmp_path, rows, source="rle")
    assert error.counts == {"several masks": 1}
    assert "combine=union" in str(error)
    assert "combine=best" in str(error)
    union = read(tmp_path, rows, source="rle", combine="union")
    assert union.n_combined == 1
    result = rc.score(union, STORE)
    assert result.miou == 1.0
    assert result.info["predictions"]["adapter"]["combine"] == "union"
    assert result.info["predictions"]["n_combined"] == 1
    best = rc.score(read(tmp_path, rows, source="rle", combine="best"), STORE)
    assert best.per_example["pred_area"][0].as_py() == halves[1].sum()


def test_what_is_wrong_with_rows_is_an_error_whatever_is_missing(tmp_path):
    key, response = key_of(0), ROWS[0]["response"]
    rows = [
        {**key, "response": response},
        {**key, "response": response},
        {**key_of(1), "sample_id": 5, "response": response},
        {**key_of(2), "sentence": "another one", "response": response},
        {"sentence_idx": 0, "response": response},
        {**key_of(3), "segmentation": None},
        ["row"],
    ]
    error = problems_of_reading(tmp_path, rows)
    kinds = ["duplicate", "unknown key", "wrong sentence", "bad key", "no response", "malformed"]
    assert [p.kind for p in error.problems] == kinds
    assert [int(p.where.rpartition(" ")[2]) for p in error.problems] == [2, 3, 4, 5, 6, 7]
    assert "scored as it is" in error.problems[4].message
    path = tmp_path / "twice.jsonl"
    path.write_text('{"sample_id": 1, "sentence_idx": 0, "response": null, "response": []}\n[,')
    with pytest.raises(rc.PredictionError) as caught:
        rc.adapters.read(path, DATASET, source="gemini")
    assert caught.value.counts == {"duplicate": 1, "malformed": 1}


def test_shards_bom_crlf_and_blank_lines(tmp_path):
    lines = [json.dumps(row) for row in ROWS]
    (tmp_path / "rank-0.jsonl").write_text(
        "\ufeff" + "\r\n".join(lines[:100]) + "\r\n\r\n", "utf-8"
    )
    (tmp_path / "rank-1.jsonl").write_text("\n".join(lines[100:]), "utf-8")
    answers = rc.adapters.read(tmp_path / "rank-*.jsonl", DATASET, source="gemini")
    assert rc.score(answers, STORE).miou == 1.0
    assert len(answers.files) == 2


@pytest.mark.parametrize("name", ["absent.jsonl", "responses.json"])
def test_only_json_lines_are_read(tmp_path, name):
    (tmp_path / "responses.json").write_text("[]")
    with pytest.raises(rc.UsageError, match=name):
        rc.adapters.read(tmp_path / name, DATASET, source="gemini")


def test_a_missing_option_names_the_row_that_needs_it(tmp_path):
    rows = [{**key_of(0), "response": fenced([gemini_entry(BOX, FOUR)])}]
    with pytest.raises(rc.UsageError, match=r"line 1: .*points=yx"):
        read(tmp_path, rows)
    assert len(read(tmp_path, rows, points="yx")) == 1


def test_rows_carry_the_size_of_their_processed_image(tmp_path):
    rows, boxes = [], []
    for k in range(len(STORE)):
        height, width = size_of(k)
        ys, xs = np.nonzero(MASKS[k])
        box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        boxes.append(np.zeros((height, width), bool))
        boxes[k][box[1] : box[3], box[0] : box[2]] = True
        # The processor makes every other image larger, and all of them flat.
        processed = [height * (1 + k % 2), width * 4]
        scaled = box * [4, 1 + k % 2, 4, 1 + k % 2]
        answer = fenced([{"bbox_2d": scaled.tolist(), "label": "it"}])
        rows.append({**key_of(k), "response": answer, "processed_size": processed})
    options = {"source": "qwen", "version": 2.5, "boxes": "fill"}
    result = rc.score(read(tmp_path, rows, **options), STORE)
    expected = rc.score(list(enumerate(boxes)), STORE)
    assert result.per_example.equals(expected.per_example)
    without = [{k: v for k, v in row.items() if k != "processed_size"} for row in rows]
    with pytest.raises(rc.UsageError, match=r"line 1: .*processed_size"):
        read(tmp_path, without, **options)


def test_a_set_on_another_scale_is_an_error_of_the_set(tmp_path):
    """Polygons in 0…1 that were declared to be pixels cover a pixel at most, and none of them shows it alone."""
    square = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]]
    rows = [{**key_of(k), "response": {"points": square}} for k in range(len(STORE))]
    error = problems_of_reading(tmp_path, rows, source="points", scale="pixels")
    assert error.counts == {"polygon scale": 1}
    assert len(read(tmp_path, rows, source="points", scale="normalized")) == len(STORE)


# The package


def test_importing_stays_light():
    code = (
        "import sys, refcocom_gpu as rc; rc.adapters; "
        "print([m for m in ('numpy', 'torch', 'PIL', 'refcocom_gpu.adapters.files') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    rc.adapters.read  # noqa: B018 - importing its module must not take its place
    assert callable(rc.adapters.read)
    assert "adapters" in dir(rc)
    assert {"read", "to_mask", "gemini"} <= set(dir(rc.adapters))
    assert rc.adapters.gemini is gemini
    with pytest.raises(AttributeError, match="no attribute 'reed'"):
        rc.adapters.reed  # noqa: B018


def readme_rows():
    text = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    section = text.partition("## Raw answers of models")[2].partition("\n## ")[0]
    return re.findall(r"^\| (.+?) \| `(source=.+?)` \|$", section, re.MULTILINE)


def readme_responses():
    """A response of each source that stands for a rectangle: all pixels of the first image but its edges."""
    height, width = size_of(0)
    truth = np.zeros((height, width), bool)
    truth[height // 4 : height // 2, width // 4 : width // 2] = True
    x0, y0, x1, y1 = width // 4, height // 4, width // 2, height // 2
    pairs = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    part = [[1000 * x / width, 1000 * y / height] for x, y in pairs]
    box = [part[0][1], part[0][0], part[2][1], part[2][0]]
    corners = dict(zip(moondream.CORNERS, [box[k] / 1000 for k in (1, 0, 3, 2)], strict=True))
    processed = {"processed_size": [height * 2, width * 2]}
    return truth, {
        "gemini": {"response": [gemini_entry(box, [p[::-1] for p in part])]},
        "moondream": {"response": {"path": "M 0 0 H 1 V 1 H 0 Z", "bbox": corners}},
        "qwen": {"response": [{"points": [[2 * x, 2 * y] for x, y in pairs]}], **processed},
        "florence": {"response": {"polygons": [[np.ravel(pairs).tolist()]], "labels": [""]}},
        "points": {"response": part},
        "svg": {"response": f"M {x0} {y0} H {x1} V {y1} H {x0} Z"},
        "rle": {"response": coco_encode(truth)},
    }  # fmt: skip


def test_every_line_of_the_readme(tmp_path):
    truth, responses = readme_responses()
    listed = []
    for _, line in readme_rows():
        options = eval(f"dict({line})")
        source = options["source"]
        listed.append(source)
        (row,) = [{**key_of(0), **responses[source]}]
        ((key, prediction),) = read(tmp_path, [row], **options)
        assert key == DATASET.key_of(0)
        assert (rle.decode(prediction) ^ truth).sum() <= 0.02 * truth.sum(), source
        assert set(options) - {"source", "combine"} <= set(options_of(source))
    assert listed == list(SOURCES)
