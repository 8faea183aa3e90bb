"""COCO RLE: properties, parity with pycocotools where pycocotools is defined, and the malformed masks of the wild."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco
from refcocom_kernels import cpu

from refcocom_gpu.errors import RLEError
from refcocom_gpu.masks import rle

SHARED = Path(__file__).parents[2] / "shared" / "data"

masks = hnp.arrays(
    np.bool_,
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    elements=st.booleans(),
    fill=st.booleans(),
)


def coco_encode(mask: np.ndarray) -> dict:
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


@given(masks)
def test_encode_is_byte_equal_to_pycocotools(mask):
    assert rle.encode(mask) == coco_encode(mask)


@given(masks)
def test_round_trip(mask):
    np.testing.assert_array_equal(rle.decode(rle.encode(mask)), mask)


@given(masks)
def test_list_form_equals_compressed_form(mask):
    runs = np.diff(rle.run_ends(mask), prepend=0).tolist()
    listed = {"size": list(mask.shape), "counts": runs}
    assert rle.check(listed) == rle.check(rle.encode(mask))


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (1, 7), (63, 65), (100, 3)])
@pytest.mark.parametrize("value", [False, True])
def test_empty_and_full(shape, value):
    mask = np.full(shape, value)
    encoded = rle.encode(mask)
    assert encoded == coco_encode(mask)
    assert rle.decode(encoded).sum() == (mask.size if value else 0)


@given(st.lists(masks, max_size=6), st.integers(1, 3))
def test_a_column_is_its_rows(many, threads):
    objects = rle.encode_all(many, threads=threads)
    strings = rle.column(o["counts"].encode() for o in objects)
    runs = rle.parse(strings, np.array([m.size for m in many], np.int64), threads=threads)
    for row, mask in enumerate(many):
        ends = runs.ends[runs.offsets[row] : runs.offsets[row + 1]]
        np.testing.assert_array_equal(ends, rle.run_ends(mask))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_zero_length_runs_are_legal(lengths):
    total = sum(lengths)
    if total == 0:
        lengths, total = [*lengths, 3], 3
    decoded = rle.decode({"size": [total, 1], "counts": lengths})
    expected = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    np.testing.assert_array_equal(decoded[:, 0], expected)


@given(st.binary(max_size=40), st.integers(1, 50), st.integers(1, 50))
def test_any_bytes_decode_exactly_or_raise(data, height, width):
    try:
        decoded = rle.decode({"size": [height, width], "counts": data})
    except RLEError:
        return
    # What we accept is complete, so pycocotools is defined on it.
    np.testing.assert_array_equal(
        decoded, coco.decode({"size": [height, width], "counts": data}).astype(bool)
    )


def test_errors_name_their_rows_and_count_all():
    strings = rle.column([b"045", b"04", b"p", b"0o", b"54@5"])
    with pytest.raises(RLEError) as caught:
        rle.parse(strings, np.full(5, 9))
    text = str(caught.value)
    assert text.startswith("4 of 5 masks")
    assert "mask 1: runs total 4 pixels, size needs 9" in text
    assert "mask 2: character 0" in text
    assert "mask 3: counts end in the middle" in text
    assert "mask 4: run 2 is negative" in text


def test_take_selects_strings():
    taken = rle.column([b"a", b"", b"bcd", b"ef"]).take(np.array([2, 0, 1, 2]))
    assert [taken.row(k) for k in range(4)] == [b"bcd", b"a", b"", b"bcd"]


@pytest.mark.parametrize(
    "size", [[0, 5], [-1, 5], [2.5, 4], [1], "ab", None, [True, 3], [2**16, 2**15]]
)
def test_sizes_are_checked_before_anything_is_decoded(size):
    with pytest.raises(RLEError, match="size"):
        rle.decode({"size": size, "counts": "04"})


@pytest.mark.parametrize("counts", [None, 5, [1.5], [-1, 10], [2**31], ["1"], [True]])
def test_counts_of_a_wrong_kind_are_named(counts):
    with pytest.raises(RLEError, match=r"counts|run"):
        rle.decode({"size": [3, 3], "counts": counts})


# What must happen to each malformed or tricky mask collected from issue trackers: None decodes exactly, otherwise
# a part of the message. Nothing is left to chance: a new row in the collection fails until it is named here.
NASTY = {
    "invalid_total": "run 428 is negative",
    "three_leading_zero_runs": None,
    "issue362_ok": None,
    "issue362_double_escaped": "runs total|negative",
    "issue362_b_prefix": "outside the RLE alphabet",
    "issue589": "runs total",
    "issue589_swapped_size": "runs total",
    "base64_counts": "outside the RLE alphabet",
    "no_size": "lacks size",
    "hotcoco_bytes_as_ints": "runs total",
    "hotcoco_bytes_ok": None,
    "uncompressed_list": None,
    "uncompressed_list_short": "runs total 6 pixels, size needs 9",
    "sleapio_known": None,
    "size_swapped": None,
    "size_bigger": "runs total",
    "size_smaller": "runs total",
    "size_zero": "positive whole numbers",
    "size_negative": "positive whole numbers",
    "size_float": None,
    "empty_counts": "runs total 0 pixels, size needs 100",
    "truncated_leb": "end in the middle",
    "negative_run": "negative",
    "huge_run": "longer than",
    "non_ascii": "outside the RLE alphabet",
    "newline_space": "outside the RLE alphabet",
    "polygon": "polygon",
    "json_string": "parse it first",
    "null": "null",
}


def nasty_rows():
    path = SHARED / "nasty_rle" / "nasty.json"
    if not path.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"{path.name} is not here"))]
    return [pytest.param(row, id=row["name"]) for row in json.loads(path.read_text())]


@pytest.mark.parametrize("row", nasty_rows())
def test_nasty(row):
    expected = NASTY[row["name"]]
    if expected is not None:
        with pytest.raises(RLEError, match=expected):
            rle.decode(row["mask"])
        return
    decoded = rle.decode(row["mask"])
    height, width = (int(x) for x in row["mask"]["size"])
    counts = row["mask"]["counts"]
    if isinstance(counts, list):
        oracle = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    else:
        oracle = {"size": [height, width], "counts": counts}
    np.testing.assert_array_equal(decoded, coco.decode(oracle).astype(bool))


@given(st.lists(st.tuples(masks, st.integers(0, 2**32)), min_size=1, max_size=5))
def test_counts_equal_numpy(pairs):
    targets = [mask for mask, _ in pairs]
    predicted = [np.random.default_rng(seed).random(m.shape) < 0.4 for m, seed in pairs]
    pixels = np.array([m.size for m in targets], np.int64)
    runs = rle.parse(rle.column(rle.encode(m)["counts"].encode() for m in targets), pixels)
    strings = rle.column(rle.encode(m)["counts"].encode() for m in predicted)
    counts, status, _ = cpu.rle_counts(
        *strings, np.arange(len(pairs)), runs.ends, runs.offsets, pixels
    )
    assert not status.any()
    expected = [[(p & t).sum(), p.sum()] for p, t in zip(predicted, targets, strict=True)]
    assert counts.tolist() == expected


def test_a_total_that_wraps_around_is_refused():
    """Runs grow by the largest delta until an int64 total would wrap: refused at the first run beyond the mask."""
    largest = b"o" * 6 + b"?"
    for n in (4, 1000, 70_000):
        with pytest.raises(RLEError, match=r"runs total|longer than"):
            rle.decode({"size": [10, 10], "counts": largest * n})
    strings = rle.column([largest * 70_000])
    counts, status, _ = cpu.rle_counts(
        *strings,
        np.zeros(1, np.int64),
        np.array([100], np.int32),
        np.array([0, 1]),
        np.array([100]),
    )
    assert status[0] != 0
    assert counts.tolist() == [[0, 0]]
