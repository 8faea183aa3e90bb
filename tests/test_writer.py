"""`PredictionWriter`: whole or not at all, resumable after a kill, strict about what it is given."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers import sample_case
from torch.nn import functional

import refcocom_gpu as rc

# The masks are small; a pool of threads that waits for cores costs far more than it saves.
torch.set_num_threads(1)

CASE = sample_case()
DATASET = CASE.dataset
N = len(CASE.masks)

KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from helpers import sample_case
import refcocom_gpu as rc
case = sample_case()
writer = rc.PredictionWriter(sys.argv[1], case.dataset, model="m")
for k in range(20):
    writer.write(k, case.masks[k])
os.kill(os.getpid(), signal.SIGKILL)
"""


def write_all(path: Path, **options) -> Path:
    with rc.PredictionWriter(path, DATASET, **options) as writer:
        for k in writer.pending():
            writer.write(k, CASE.masks[k])
    return path


def interrupted(path: Path, **options) -> rc.PredictionWriter:
    """A writer whose block ended with Ctrl-C after one row."""
    with (
        contextlib.suppress(KeyboardInterrupt),
        rc.PredictionWriter(path, DATASET, **options) as writer,
    ):
        writer.write(0, CASE.masks[0])
        raise KeyboardInterrupt
    return writer


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("cut", [0, 1, 30])
def test_a_killed_run_goes_on_where_it_stopped(tmp_path, suffix, cut):
    path = tmp_path / f"p{suffix}"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, path, Path(__file__).parent],
        check=False,
        env=dict(os.environ),
    )
    assert killed.returncode == -signal.SIGKILL
    journal = tmp_path / f"p{suffix}.partial"
    assert list(tmp_path.iterdir()) == [journal]
    os.truncate(journal, journal.stat().st_size - cut)
    with rc.PredictionWriter(path, DATASET, model="m") as writer:
        assert writer.pending().tolist() == list(range(20 - (cut > 0), N))
        for k in writer.pending():
            writer.write(k, CASE.masks[k])
        assert writer.pending().tolist() == []
    assert list(tmp_path.iterdir()) == [path]
    CASE.check(path)
    unbroken = write_all(tmp_path / f"q{suffix}", model="m")
    if suffix == ".jsonl":
        assert path.read_bytes() == unbroken.read_bytes()
    else:
        assert pq.read_table(path).equals(pq.read_table(unbroken), check_metadata=True)


def test_what_a_file_holds(tmp_path):
    lines = write_all(tmp_path / "p.jsonl", model="naïve").read_text().splitlines()
    head = {
        "schema": "refcocom-predictions",
        "version": 1,
        "model": "naïve",
        "dataset": DATASET.fingerprint,
    }
    assert json.loads(lines[0]) == head
    rows = [json.loads(line) for line in lines[1:]]
    assert [(row["sample_id"], row["sentence_idx"]) for row in rows] == [
        DATASET.key_of(k) for k in range(N)
    ]
    table = pq.read_table(write_all(tmp_path / "p.parquet", model="naïve"))
    assert table.to_pylist() == rows
    metadata = {k.decode(): v.decode() for k, v in table.schema.metadata.items()}
    assert metadata == {key: str(value) for key, value in head.items()}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_block_that_fails_makes_no_file(tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    interrupted(path)
    assert not path.exists()
    with pytest.raises(rc.UsageError, match="begun for model None"):
        rc.PredictionWriter(path, DATASET, model="another")
    with rc.PredictionWriter(path, DATASET, model="another", overwrite=True) as writer:
        assert len(writer.pending()) == N


def test_a_close_that_fails_can_be_repeated(tmp_path, monkeypatch):
    path = tmp_path / "p.parquet"
    writer = rc.PredictionWriter(path, DATASET)
    writer.write(range(N), CASE.masks)
    replace = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(rc.UsageError, match="No space left"):
        writer.close()
    monkeypatch.setattr(Path, "replace", replace)
    assert [p.name for p in tmp_path.iterdir()] == ["p.parquet.partial"]
    assert writer.close() == path == writer.close()
    CASE.check(path)


H, W = CASE.masks[3].shape
BAD_BATCHES = {
    "duplicate in the batch": ([3, 3], [CASE.masks[3]] * 2, {"duplicate": 1}, "row 0 of the batch"),
    "written before": ([0, 3], [CASE.masks[0], CASE.masks[3]], {"duplicate": 1}, "was written before"),
    "written before, by key": ([DATASET.key_of(1)], [None], {"duplicate": 1}, "was written before"),
    "the last, by key": ([(10**9, 0)], [None], {"unknown key": 1}, "not in the dataset"),
    "index −1": ([3, -1], [CASE.masks[3]] * 2, {"unknown key": 1}, "index -1"),
    "index N": ([N, 3], [CASE.masks[3]] * 2, {"unknown key": 1}, f"index {N}"),
    "wrong size": ([3, 4], [CASE.masks[3], np.zeros((1, 2), bool)], {"wrong size": 1}, "1×2"),
    "logits": ([3, 4], [np.full((2, 2), np.inf), np.zeros((2, 2))], {"non-finite": 1}, "row 0"),
    "no mask": ([3], ["mask"], {"malformed mask": 1}, "not str"),
    "several": ([3, 3, -1, 0], [np.zeros((1, 1), bool)] + [None] * 3,
                {"duplicate": 2, "unknown key": 1, "wrong size": 1}, "row 2"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_BATCHES)
def test_a_batch_with_a_mistake_is_not_written_at_all(tmp_path, what):
    keys, masks, expected, says = BAD_BATCHES[what]
    path = tmp_path / "p.jsonl"
    with rc.PredictionWriter(path, DATASET) as writer:
        writer.write([0, 1], [CASE.masks[0], CASE.masks[1]])
        before = writer.journal.path.read_bytes()
        with pytest.raises(rc.PredictionError) as caught:
            writer.write(keys, masks)
        assert caught.value.counts == expected
        assert says in str(caught.value)
        assert writer.journal.path.read_bytes() == before
        assert writer.pending().tolist() == list(range(2, N))
        for k in writer.pending():
            writer.write(k, CASE.masks[k])
    CASE.check(path)


@pytest.mark.parametrize(
    ("keys", "masks"),
    [
        *(([0, 1], [None]), (0.5, [None]), ([True], [None]), ("0", [None]), ([[0]], [None])),
        *(([[0, 0, 0]], [None]), ([[[0]]], [None]), (0, 5), ([[1], [1, 2]], [None])),
    ],
    ids=repr,
)
def test_wrong_calls_are_usage_errors(tmp_path, keys, masks):
    with rc.PredictionWriter(tmp_path / "p.jsonl", DATASET) as writer:
        with pytest.raises(rc.UsageError):
            writer.write(keys, masks)
        assert len(writer.pending()) == N


JOURNALS = {
    "text": b"my notes\n",
    "binary": b"\x80\x00\xff\n",
    "a list": b"[]\n",
    "no header": b'{"sample_id": 1, "sentence_idx": 0}\n',
    "another dataset": b'{"schema": "refcocom-predictions", "version": 1, "dataset": "f"}\n',
    "unknown row": b'HEADER{"sample_id": -5, "sentence_idx": 0, "segmentation": null}\n',
    "no key": b'HEADER{"segmentation": null}\n',
    "odd key": b'HEADER{"sample_id": "x", "sentence_idx": 0}\n',
    "twice": b"HEADERROWROW",
}


@pytest.mark.parametrize("content", JOURNALS)
def test_a_damaged_journal_is_refused(tmp_path, content):
    path = tmp_path / "p.jsonl"
    writer = interrupted(path)
    head, row = writer.journal.path.read_bytes().splitlines(keepends=True)
    damaged = JOURNALS[content].replace(b"HEADER", head).replace(b"ROW", row)
    writer.journal.path.write_bytes(damaged)
    with pytest.raises(rc.UsageError, match="overwrite=True"):
        rc.PredictionWriter(path, DATASET)
    assert writer.journal.path.read_bytes() == damaged
    CASE.check(write_all(path, overwrite=True))


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.parquet").mkdir()
    for place in ("file/p.jsonl", "p.csv", "folder.parquet", "noending"):
        for overwrite in (False, True):
            with pytest.raises(rc.UsageError):
                rc.PredictionWriter(tmp_path / place, DATASET, overwrite=overwrite)
    path = write_all(tmp_path / "p.jsonl")
    before = path.read_bytes()
    with pytest.raises(rc.UsageError, match="already there"):
        rc.PredictionWriter(path, DATASET)
    interrupted(path, overwrite=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_nothing_written_is_all_missing(tmp_path, suffix):
    rc.PredictionWriter(tmp_path / f"p{suffix}", DATASET).close()
    with pytest.raises(rc.PredictionError) as caught:
        rc.score(tmp_path / f"p{suffix}", CASE.store)
    assert caught.value.counts == {"missing": N}


# Logits -------------------------------------------------------------------------------------------


def sam_size(height: int, width: int, side: int) -> tuple[int, int]:
    """As in `ResizeLongestSide.get_preprocess_shape`."""
    scale = side * 1.0 / max(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def resize(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return functional.interpolate(logits[None, None], size, mode="bilinear", align_corners=False)[
        0, 0
    ]


def independent(logits: torch.Tensor, shape: tuple[int, int], options: dict) -> torch.Tensor:
    """[H, W] float32 by `F.interpolate`, an arithmetic that is not ours."""
    logits = logits.float()
    side = options.get("letterbox")
    if side is None:
        return resize(logits, shape)
    if side == "center":
        # As `ops.scale_masks` of Ultralytics: padding of both ends, rounded apart.
        h, w = logits.shape
        gain = min(h / shape[0], w / shape[1])
        pads = [(n - round(size * gain)) / 2 for n, size in zip((h, w), shape, strict=True)]
        (top, left), (bottom, right) = ([round(p + by) for p in pads] for by in (-0.1, 0.1))
        return resize(logits[top : h - bottom, left : w - right], shape)
    inner = sam_size(*shape, side)
    if options.get("resize") == "sam":
        return resize(resize(logits, (side, side))[: inner[0], : inner[1]], shape)
    cells = logits.shape[0]
    rows, columns = inner[0] * cells // side, inner[1] * cells // side
    return resize(logits[:rows, :columns], shape)


OPTIONS = {
    "direct": {},
    "probabilities": {"values": "probabilities"},
    "letterbox": {"letterbox": 64},
    "sam": {"letterbox": 64, "resize": "sam"},
    "center": {"letterbox": "center"},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_logits_equal_interpolate_but_near_the_threshold(tmp_path, options, dtype):
    chosen = OPTIONS[options]
    threshold = 0.5 if options == "probabilities" else 0.0
    generator = torch.Generator().manual_seed(0)
    path = tmp_path / "p.jsonl"
    given, compared = [], []
    for mask in CASE.masks:
        # A cell a pixel where the letterbox is cut off, so that the image never ends inside a cell.
        cells = {None: (24, 17), 64: (64, 64), "center": (61, 47)}[chosen.get("letterbox")]
        logits = torch.randn(cells, generator=generator).to(dtype)
        given.append(logits.sigmoid() if threshold else logits)
        compared.append(independent(given[-1], mask.shape, chosen))
    with rc.PredictionWriter(path, DATASET, **chosen) as writer:
        writer.write(range(N), given)
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    flipped = total = 0
    from refcocom_gpu.masks import rle

    for line, values in zip(lines, compared, strict=True):
        mask = rle.decode(line["segmentation"])
        differs = mask != (values > threshold).numpy()
        # F.interpolate holds positions in float32, which is off by 64 · 2**-24 cells, and neighbours differ by under 8.
        assert np.abs(values.numpy()[differs] - threshold).max(initial=0) < 64 * 2**-24 * 8
        flipped += int(differs.sum())
        total += mask.size
    assert flipped <= total * 1e-5
    # What was written is what scoring the logits themselves counts.
    direct = rc.score(enumerate(given), CASE.store, **chosen)
    assert direct.per_example.equals(rc.score(path, CASE.store).per_example)


@pytest.mark.parametrize("options", ["letterbox", "sam", "center"])
def test_a_sliver_of_an_image_still_has_logits(options):
    from refcocom_gpu.predictions.options import ReadOptions
    from refcocom_gpu.predictions.resize import logit_mask

    mask = logit_mask(torch.ones(16, 16), 1, 500, ReadOptions(**OPTIONS[options]))
    assert mask.shape == (1, 500)
    assert bool(mask.all())


def test_probabilities_that_were_not_declared_end_in_an_error(tmp_path):
    """The journal is kept, with what its floats looked like: a declaration that comes later is held against it."""
    path = tmp_path / "p.jsonl"
    soft = [mask * 0.9 + 0.05 for mask in CASE.masks]

    def write(**options):
        with rc.PredictionWriter(path, DATASET, **options) as writer:
            pending = writer.pending().tolist()
            writer.write(pending, [soft[k] for k in pending])

    with pytest.raises(rc.PredictionError, match=r"undeclared values.*pass values=probabilities"):
        write()
    assert not path.exists()
    with pytest.raises(rc.PredictionError, match=r"were written before .* overwrite=True"):
        write(values="probabilities")
    write(values="probabilities", overwrite=True)
    CASE.check(path)
    path.unlink()
    with pytest.raises(rc.PredictionError, match="undeclared values"):
        write()
    # As logits, they were read right.
    write(values="logits")
    assert rc.score(path, CASE.store).n_empty == 0
