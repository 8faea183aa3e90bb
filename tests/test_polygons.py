"""Polygons on a scale that was not declared: one error for the set, and none for what only overshoots."""

import json

import numpy as np
import pytest
from helpers import problems_of, sample_case, write_jsonl
from sweeps import sweep

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.construct.propose.files import FileProposer
from refcocom_gpu.errors import Problems
from refcocom_gpu.masks.polygons import parse_polygons
from refcocom_gpu.predictions.options import ReadOptions
from refcocom_gpu.predictions.polygon_scale import PolygonScale
from refcocom_gpu.sweep.task import Options

CASE = sample_case()
STORE, DATASET = CASE.store, CASE.dataset


def sides(k):
    sample = DATASET.example_sample[k]
    return int(DATASET.widths[sample]), int(DATASET.heights[sample])


def box(x0, y0, x1, y1):
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def boxes(scale=None):
    """A row per example whose mask is a box inside its image, in pixels or on a scale of 0 to `scale`."""
    corners = np.sort(np.random.default_rng(0).random((len(STORE), 2, 2)), axis=1)
    rows = []
    for k, corner in enumerate(corners):
        unit = sides(k) if scale is None else (scale, scale)
        key = dict(zip(DATASET.example_key_fields, DATASET.key_of(k), strict=True))
        rows.append({**key, "segmentation": box(*(corner * unit).ravel().tolist())})
    return rows


def scored(tmp_path, rows):
    return rc.score(write_jsonl(tmp_path / "p.jsonl", rows), STORE, polygons="pixels")


def refused(tmp_path, rows, **options):
    return problems_of(
        write_jsonl(tmp_path / "p.jsonl", rows), STORE, **{"polygons": "pixels", **options}
    )


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
@pytest.mark.parametrize(
    ("scale", "says"), [(1, "so they are normalized"), (1000, "so they are not in pixels")]
)
def test_another_scale_is_an_error_of_the_set(tmp_path, suffix, scale, says):
    path = tmp_path / f"p.{suffix}"
    rows = boxes(scale)
    path.write_text("\n".join(map(json.dumps, rows)) if suffix == "jsonl" else json.dumps(rows))
    error = problems_of(path, STORE, polygons="pixels")
    assert set(error.counts) <= {"polygon scale", "malformed mask"}
    (problem,) = [p for p in error.problems if p.kind == "polygon scale"]
    assert problem.where == str(path)
    assert says in problem.message
    assert "polygons=normalized" in problem.message
    assert "divide coordinates of 0…1000 by 1000" in problem.message
    if scale == 1:
        assert error.counts == {"polygon scale": 1}
        rc.score(path, STORE, polygons="normalized")


def test_a_quarter_beyond_is_another_scale_and_less_is_not(tmp_path):
    rows = boxes()
    n = -(-len(rows) // 4)
    for k in range(n):
        width, height = sides(k)
        rows[k]["segmentation"] = box(1, 1, 1.2 * width, height)
    error = refused(tmp_path, rows)
    assert error.counts == {"polygon scale": 1}
    assert f"{n} of {len(rows)} predictions" in error.problems[0].message
    rows[0]["segmentation"] = box(1, 1, 5, 5)
    scored(tmp_path, rows)


def test_polygons_at_and_a_little_beyond_the_border_are_legitimate(tmp_path):
    rows = boxes()
    for k, row in enumerate(rows):
        width, height = sides(k)
        over = (0, 3, 15)[k % 3]
        row["segmentation"] = box(-over, -over, width + over, height + over)
    # A box that touches the image from outside, and one polygon of the set that overshoots much.
    width, height = sides(0)
    rows[0]["segmentation"] = box(width, 0, width + 5, height)
    width, height = sides(1)
    rows[1]["segmentation"] = box(0, 0, 2 * width, 2 * height)
    result = scored(tmp_path, rows)
    areas = result.per_example["pred_area"].to_numpy()
    assert areas[0] == 0
    pixels = (DATASET.heights * DATASET.widths)[DATASET.example_sample]
    np.testing.assert_array_equal(areas[1:], pixels[1:])


def test_shards_are_judged_as_one_set(tmp_path):
    rows = boxes()
    for row in rows[:20]:
        row["segmentation"] = box(0, 0, 1, 1)
    write_jsonl(tmp_path / "a.jsonl", rows[:20])
    write_jsonl(tmp_path / "b.jsonl", rows[20:])
    rc.score(tmp_path / "*.jsonl", STORE, polygons="pixels")
    error = problems_of(tmp_path / "a.jsonl", STORE, polygons="pixels", missing="zero")
    assert error.counts == {"polygon scale": 1}


def test_masks_of_tiny_images_are_no_sign_of_another_scale():
    scale, problems = PolygonScale(), Problems()
    for _ in range(9):
        scale.see(parse_polygons(box(0, 0, 1, 1)), 2, 2)
    scale.judge("p", problems)
    for _ in range(9):
        scale.see(parse_polygons(box(-1, -1, 6, 6)), 4, 4)
    scale.judge("p", problems)
    assert not problems
    PolygonScale().judge("p", problems)
    assert not problems


@pytest.mark.parametrize(
    ("polygons", "says"),
    [
        ([], "null is an explicit empty mask"),
        ([[1, 2, 3, 4]], "polygon 0 has 4 numbers; at least three points"),
        ([*box(1, 1, 5, 5), []], "polygon 1 has 0 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "polygon 0 has 7 numbers"),
        ([[0, 0, 10**400, 0, 5, 5]], "not a list of finite numbers"),
        ([*box(1, 1, 5, 5), *box(400, 1, 450, 5)], "polygon 1 lies outside the image"),
        (box(1, -9, 5, -1), "polygon 0 lies outside the image"),
        (box(-5000, 1, 5, 5), "far outside the image"),
    ],
)
def test_a_wrong_polygon_is_an_error_at_its_line(tmp_path, polygons, says):
    rows = boxes()
    rows[6]["segmentation"] = polygons
    error = refused(tmp_path, rows)
    assert error.counts == {"malformed mask": 1}
    assert error.problems[0].where == f"{tmp_path / 'p.jsonl'}, line 7"
    assert says in error.problems[0].message


def test_every_way_to_read_files_refuses_another_scale(tmp_path, monkeypatch, capsys):
    good = write_jsonl(tmp_path / "good.jsonl", boxes())
    bad = write_jsonl(tmp_path / "bad.jsonl", boxes(1))
    options = ReadOptions(polygons="pixels")
    outcome = sweep([str(good), str(bad)], tmp_path / "out", options=Options(options, "error"))
    assert outcome.results[0].error is None
    assert f"{bad}: polygon scale: no coordinate" in outcome.results[1].error
    with pytest.raises(rc.PredictionError, match="polygon scale"):
        FileProposer("p", bad, DATASET, options)
    monkeypatch.chdir(tmp_path)
    words = ["score", "dataset=sample", "polygons=pixels", "output_dir=null", "quiet=true"]
    assert main([*words, "bad.jsonl"]) == 3
    assert "bad.jsonl: polygon scale: no coordinate" in capsys.readouterr().err
    assert main([*words, "good.jsonl"]) == 0
