"""Raw answers of models: each form against a mask made without the adapter, and what cannot be read."""

import contextlib
import itertools
import math

import cv2
import numpy as np
import pytest
from answers import BOX, DATA_URL, FOUR, H, W, drawn, fenced, gemini_entry, only, png, soft
from helpers import coco_encode
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import refcocom_gpu as rc
from refcocom_gpu.adapters import florence, gemini, moondream, points, qwen, svg
from refcocom_gpu.adapters.fill import fill
from refcocom_gpu.adapters.responses import parse_response
from refcocom_gpu.adapters.sources import SOURCES

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
        ({"source": "gemini", "axis": "yx"}, "takes points, boxes, not axis"),
        ({"source": "florence", "scale": "pixels"}, "takes boxes, not scale"),
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
