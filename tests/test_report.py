"""Pages as files: what stands on them, what does not, and how drawing chooses and fails."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import coco_encode
from hypothesis import given
from hypothesis import strategies as st

import refcocom_gpu as rc
from refcocom_gpu.cli.main import main
from refcocom_gpu.errors import UsageError
from refcocom_gpu.report.overlay import EXTRA, HIT, LIGHT, MISSED, STRIPE, scored, window_of
from refcocom_gpu.report.page import data

HOSTILE = [
    "<script>document.title='hacked';window.hacked=1</script>",
    "</script><img src=x onerror=alert(1)>",
    "הכובע האדום 🧢 مرحبا",
]


def hostile_dataset(folder: Path) -> rc.Dataset:
    """A dataset whose every text is an attack or hard to show."""
    mask = np.zeros((40, 60), bool)
    mask[10:20, 10:30] = True
    record = {
        "image_id": 1,
        "file_name": "<b>.jpg",
        "samples": [
            {
                "id": 7,
                "image_id": 1,
                "category": "<img src=x onerror=alert(2)>",
                "supercategory": "$x$ & \\alpha",
                "label": "",
                "sentences": HOSTILE,
                "bbox": [10.0, 10.0, 20.0, 10.0],
                "mask": coco_encode(mask),
            }
        ],
    }
    path = folder / "<i>hostile.jsonl"
    path.write_text(json.dumps(record) + "\n", "utf-8")
    return rc.load_dataset(path)


@pytest.fixture(scope="module")
def result() -> rc.Result:
    return rc.score("sample-coarse", "sample", metrics=["iou", "causes", "boxes"], save_masks=True)


def examples_of(text: str) -> dict[str, Any]:
    found = re.search(r"data-examples>(.*?)</script>", text, re.S)
    assert found is not None
    return json.loads(found[1])


def test_a_page_holds_the_scores_and_every_example(result: rc.Result, tmp_path: Path) -> None:
    text = rc.report(result, tmp_path / "page.html", pictures="none").read_text("utf-8")
    for score in (
        result.miou,
        result.ciou,
        result.boundary_iou,
        result.box_accuracy,
        result.hard_pass_rate,
    ):
        assert f">{100 * score:.2f}<" in text
    examples = examples_of(text)
    assert examples["index"] == list(range(297))
    assert examples["facts"][0]["values"] == [round(x, 4) for x in result.iou.tolist()]
    assert examples["pictures"]["none"] == "no pictures were asked for"
    causes = {choice["label"]: choice for choice in examples["choices"]}["cause"]
    assert [causes["names"][code] for code in causes["codes"]] == result.causes.tolist()


def test_the_same_result_is_the_same_page(result: rc.Result, tmp_path: Path) -> None:
    pages = [rc.report(result, tmp_path / name).read_bytes() for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


def test_the_worst_the_best_and_every_cause_are_drawn(result: rc.Result, tmp_path: Path) -> None:
    drawn = examples_of(rc.report(result, tmp_path / "page.html").read_text("utf-8"))["pictures"][
        "files"
    ]
    order = np.argsort(result.iou, kind="stable").tolist()
    assert {*map(str, order[:60]), *map(str, order[-60:])} <= {*drawn}
    for cause in set(result.causes):
        members = {str(k) for k in np.flatnonzero(result.causes == cause)}
        assert len(members & {*drawn}) >= min(12, len(members))


def test_linked_pictures_are_of_all_examples(result: rc.Result, tmp_path: Path) -> None:
    seen: list[int] = []
    page = rc.report(result, tmp_path / "page.html", pictures="link", progress=seen.append)
    files = sorted(int(path.stem) for path in (tmp_path / "page_pictures").glob("*.webp"))
    assert files == list(range(297))
    assert sum(seen) == 297
    assert page.stat().st_size < 1_000_000


def test_without_masks_the_page_says_so(tmp_path: Path) -> None:
    page = rc.report(rc.score("sample", "sample"), tmp_path / "page.html")
    assert "save_masks=true" in page.read_text("utf-8")


def test_a_dataset_that_is_not_at_hand_is_said(result: rc.Result, tmp_path: Path) -> None:
    info = {**result.info, "dataset": {**result.info["dataset"], "source": str(tmp_path / "gone")}}
    gone = rc.Result(result.per_example, info, held_masks=result.held_masks)
    text = rc.report(gone, tmp_path / "page.html").read_text("utf-8")
    assert "No example is drawn" in text
    with pytest.raises(UsageError, match="pass truth=DATASET"):
        rc.show(gone, 0)


def test_a_page_under_another_convention_says_which_scores_it_shows(
    result: rc.Result, tmp_path: Path
) -> None:
    text = rc.report(result.under("cris"), tmp_path / "page.html", pictures="none").read_text(
        "utf-8"
    )
    assert "Scored under cris" in text
    assert f">{100 * result.miou:.2f}<" in text


def test_hostile_text_is_escaped(tmp_path: Path) -> None:
    dataset = hostile_dataset(tmp_path)
    result = rc.score({0: None, 1: None, 2: None}, dataset)
    text = rc.report(result, tmp_path / "page.html", truth=dataset).read_text("utf-8")
    assert text.count("<script") == 2, "the data and the script"
    assert "<img" not in text
    assert "<i>hostile" not in text
    assert "onerror" in text, "it is shown"


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_data_comes_back_and_closes_no_element(values: Any) -> None:
    text = str(data(values))
    assert json.loads(text) == values
    assert not {*"<>&"} & {*text}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"page": "page.txt"}, "NAME.html"),
        ({"pictures": "some"}, "embed, link or none"),
        ({"images": "nowhere"}, "nowhere is not a folder"),
    ],
)
def test_a_wrong_request_is_refused(
    result: rc.Result, tmp_path: Path, how: dict[str, Any], message: str
) -> None:
    page = tmp_path / how.pop("page", "page.html")
    with pytest.raises(UsageError, match=message):
        rc.report(result, page, **how)
    assert not page.exists()


def test_a_page_is_not_replaced_unasked(result: rc.Result, tmp_path: Path) -> None:
    page = rc.report(result, tmp_path / "page.html", pictures="none")
    with pytest.raises(UsageError, match="overwrite"):
        rc.report(result, page)
    rc.report(result, page, pictures="none", overwrite=True)


def test_the_command_writes_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    words = [
        "score",
        "sample",
        "dataset=sample",
        f"output_dir={out}",
        "report=true",
        "metrics=[iou,causes]",
    ]
    assert main(words) == 0
    assert f"{out}/report.html" in capsys.readouterr().out
    assert main(["report", out]) == 2
    assert main(["report", out, "overwrite=true"]) == 0
    assert main(["report", out, f"page={tmp_path}/p.html", "pictures=none"]) == 0
    assert main(["report", str(tmp_path / "nothing")]) == 2
    assert main(["score", "sample", "dataset=sample", "report=true"]) == 2


def test_show_draws_one_example(result: rc.Result, tmp_path: Path) -> None:
    picture = rc.show(result, 3)
    assert picture.size == tuple(reversed(result.mask_of(3).shape))
    assert picture.info["iou"] == result.iou[3]
    key = f"{result.per_example['sample_id'][3]}_{result.per_example['sentence_idx'][3]}"
    by_key = rc.show(result, key)
    assert np.array_equal(np.asarray(by_key), np.asarray(picture))
    alone = rc.show(rc.load_dataset("sample"), 3, masks={3: result.mask_of(3)})
    assert np.array_equal(np.asarray(alone), np.asarray(picture))
    for wrong in (297, -1, "x", "1_0", (1, 2, 3)):
        with pytest.raises(UsageError):
            rc.show(result, wrong)


def test_the_command_shows_one_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "one.png"
    assert main(["show", "sample", "20002_1", f"output={output}"]) == 0
    assert "20002_1" in capsys.readouterr().out
    assert output.read_bytes()[:4] == b"\x89PNG"
    assert main(["show", "sample", "20002_1", f"output={output}"]) == 2
    assert main(["show", "sample", "20002_99", f"output={tmp_path}/two.png"]) == 2
    assert main(["show", "sample"]) == 2


masks = st.tuples(st.integers(1, 24), st.integers(1, 24)).flatmap(
    lambda size: st.tuples(
        *(st.lists(st.booleans(), min_size=size[0] * size[1], max_size=size[0] * size[1]),) * 2
    ).map(lambda pair: tuple(np.array(m, bool).reshape(size) for m in pair))
)


@given(masks)
def test_colours_say_which_mask_a_pixel_is_in(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Away from outlines, every pixel has the colour of what it is."""
    truth, said = pair
    grey = np.full((*truth.shape, 3), 100, np.uint8)
    drawn = scored(grey, truth.view(np.uint8), said.view(np.uint8))
    rows, columns = np.indices(truth.shape)
    striped = (rows + columns) % STRIPE < STRIPE // 2
    line = {LIGHT, EXTRA, (0, 0, 0)}
    kinds = {
        (True, True): {_over(HIT, 0.6)},
        (False, True): {_over(EXTRA, 0.6)},
        (True, False): {_over(MISSED, 0.85), (100, 100, 100)},
        (False, False): {(100, 100, 100)},
    }
    for place in np.ndindex(truth.shape):
        colour = tuple(drawn[place].tolist())
        assert colour in kinds[bool(truth[place]), bool(said[place])] | line
        if truth[place] and not said[place] and colour not in line:
            assert (colour != (100, 100, 100)) == striped[place]
    assert (grey == 100).all()


def _over(colour: tuple[int, int, int], opacity: float) -> tuple[int, ...]:
    return tuple(int(np.float32(100) * (1 - opacity) + np.float32(c) * opacity) for c in colour)


@given(masks)
def test_a_window_holds_every_pixel(pair: tuple[np.ndarray, np.ndarray]) -> None:
    mask = pair[0]
    rows, columns = window_of(mask)
    assert mask[rows, columns].sum() == mask.sum()
