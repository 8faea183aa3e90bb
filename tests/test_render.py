"""SVG paths drawn by resvg: the mask of Moondream's engine, close to our own, and only where it is asked for."""

import json

import numpy as np
import pytest
from helpers import sample_case, write_jsonl

import refcocom_gpu as rc
from refcocom_gpu.adapters import moondream, render, svg
from refcocom_gpu.cli.main import main
from refcocom_gpu.utils import optional

BLOB = "M.1.5C.1.2,.4.05,.6.1S1,.3,.9.6.7,1,.4.95.1.8.1.5z,M.4.4L.4.6.6.6.6.4z"
BOX = {"x_min": 0.1, "y_min": 0.2, "x_max": 0.7, "y_max": 0.95}
OUTPUT = {"path": BLOB, "bbox": BOX}


def only(candidates):
    (candidate,) = candidates
    return candidate.mask


def test_a_renderer_that_is_not_installed_is_named(monkeypatch):
    def absent(module):
        raise ImportError(module)

    monkeypatch.setattr(optional, "import_module", absent)
    with pytest.raises(rc.UsageError, match=r"pip install 'refcocom-gpu\[resvg\]'"):
        moondream.masks_of(OUTPUT, 24, 32, renderer="resvg")


@pytest.mark.parametrize("module", [moondream, svg])
def test_an_unknown_renderer_is_refused(module):
    with pytest.raises(rc.UsageError, match="renderer must be resvg, not 'skia'"):
        module.masks_of([], 24, 32, renderer="skia")


@pytest.mark.parametrize("size", [(240, 320), (33, 17), (1, 1)])
def test_resvg_and_our_own_differ_in_pixels_of_the_outline(size):
    pytest.importorskip("resvg")
    ours = only(moondream.masks_of(OUTPUT, *size))
    theirs = only(moondream.masks_of(OUTPUT, *size, renderer="resvg"))
    assert theirs.shape == size
    assert theirs.dtype == bool
    assert (ours ^ theirs).sum() <= 0.005 * ours.sum() + 1
    # The ring within turns the other way.
    assert size[0] < 100 or not theirs[size[0] // 2 + 20, size[1] * 2 // 5]


@pytest.mark.parametrize("scale", [1, 3])
def test_whole_pixels_are_drawn_exactly(scale):
    pytest.importorskip("resvg")
    path = f"M {2 * scale} {scale} h {3 * scale} v {2 * scale} h {-3 * scale} z"
    height, width = 5 * scale, 7 * scale
    expected = np.zeros((height, width), bool)
    expected[scale : 3 * scale, 2 * scale : 5 * scale] = True
    np.testing.assert_array_equal(
        only(svg.masks_of(path, height, width, renderer="resvg")), expected
    )


def test_a_pixel_covered_by_half_is_not_set():
    pytest.importorskip("resvg")
    for covered, is_set in ((0.5, False), (0.75, True)):
        mask = render.render(f"M0 0H{covered}V1H0z", 1, 2, view=(2.0, 1.0))
        assert mask.tolist() == [[is_set, False]]


def test_the_command_takes_it(tmp_path, capsys):
    pytest.importorskip("resvg")
    dataset = sample_case().dataset
    fields = dataset.example_key_fields
    rows = [
        {**dict(zip(fields, dataset.key_of(i), strict=True)), "response": json.dumps(OUTPUT)}
        for i in range(dataset.n_examples)
    ]
    path, out = write_jsonl(tmp_path / "answers.jsonl", rows), tmp_path / "out.parquet"
    command = ["convert", str(path), str(out), "dataset=sample", "source=moondream"]
    assert main([*command, "renderer=resvg", "quiet=true"]) == 0
    answers = rc.adapters.read(path, dataset, source="moondream", renderer="resvg")
    assert answers.about()["adapter"]["renderer"] == "resvg"
    expected = rc.score(answers, sample_case().store).per_example
    assert rc.score(out, sample_case().store).per_example.equals(expected)
