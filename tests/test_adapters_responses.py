"""Files of models' answers: scored as the masks are; every row that cannot be read is listed."""

import json
import subprocess
import sys

import numpy as np
import pytest
from answers import (
    BOX,
    DATA_URL,
    DATASET,
    FOUR,
    STORE,
    fenced,
    gemini_entry,
    key_of,
    png,
    size_of,
)
from helpers import coco_encode, write_jsonl

import refcocom_gpu as rc
from refcocom_gpu.adapters import gemini


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
