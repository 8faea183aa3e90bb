"""Proposers: what they propose, what they refuse, and that neither depends on how they are run."""

import json
import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from helpers import sample_case, write_jsonl, write_parquet
from safetensors.torch import save_file

import refcocom_gpu as rc
from refcocom_gpu.construct.instances import Candidate, Instance, Refused
from refcocom_gpu.construct.propose.files import FileProposer, medoid
from refcocom_gpu.construct.propose.grabcut import GrabCutProposer
from refcocom_gpu.dataset import sample
from refcocom_gpu.masks import rle

CASE = sample_case()
DATASET = CASE.dataset


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def instances() -> list[Instance]:
    listed, first = [], DATASET.first_example
    for m in range(DATASET.n_samples):
        examples = range(first[m], first[m + 1])
        sentences = tuple(DATASET.examples["sentence"][e].as_py() for e in examples)
        mask = CASE.store.mask(int(first[m])).astype(bool)
        sample_id = int(DATASET.sample_ids[m])
        listed.append(Instance(m, sample_id, int(first[m]), mask, (0, 0, 1, 1), sentences, ""))
    return listed


def coarsened(mask: np.ndarray) -> np.ndarray:
    outlines, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    coarse = np.zeros(mask.shape, np.uint8)
    for outline in outlines:
        cv2.fillPoly(
            coarse, [cv2.approxPolyDP(outline, 0.04 * cv2.arcLength(outline, True), True)], 1
        )
    return coarse.view(bool)


def pixels_of(candidate: Candidate) -> np.ndarray:
    return rle.decode_ends(candidate.ends, *candidate.size)


def equal(first: list, second: list) -> bool:
    def plain(proposal):
        if isinstance(proposal, Refused):
            return proposal
        return proposal.ends.tobytes(), proposal.size, repr(proposal.score)

    return [[plain(p) for p in ps] for ps in first] == [[plain(p) for p in ps] for ps in second]


def test_every_format_gives_equal_candidates(tmp_path):
    rows = CASE.rows()
    np.savez(tmp_path / "p.npz", **dict(zip(CASE.names(), CASE.masks, strict=True)))
    logits = {n: m.astype(np.float32) - 0.5 for n, m in zip(CASE.names(), CASE.masks, strict=True)}
    np.savez(tmp_path / "logits.npz", **logits)
    masks = dict(zip(CASE.names(), map(torch.from_numpy, CASE.masks), strict=True))
    save_file(masks, tmp_path / "p.safetensors")
    torch.save(masks, tmp_path / "p.pt")
    (tmp_path / "coco.json").write_text(json.dumps(CASE.rows(listed=True)))
    folder = tmp_path / "png"
    folder.mkdir()
    for name, mask in zip(CASE.names(), CASE.masks, strict=True):
        cv2.imwrite(str(folder / f"{name}.png"), mask.astype(np.uint8) * 255)
    sources = [
        write_jsonl(tmp_path / "p.jsonl", rows),
        write_parquet(tmp_path / "p.parquet", rows, 50),
        tmp_path / "p.npz",
        tmp_path / "logits.npz",
        tmp_path / "p.safetensors",
        tmp_path / "p.pt",
        tmp_path / "coco.json",
        folder,
        [(k, mask) for k, mask in enumerate(CASE.masks)],
    ]
    proposals = [FileProposer("p", s, DATASET).propose(None, instances()) for s in sources]
    assert all(equal(proposals[0], other) for other in proposals[1:])
    again = pickle.loads(pickle.dumps(FileProposer("p", sources[0], DATASET)))
    assert equal(proposals[0], again.propose(None, instances()))


def test_the_medoid_is_the_mask_nearest_to_the_others():
    by_hand = FileProposer("p", list(enumerate(CASE.masks)), DATASET).propose(None, instances())
    for instance, (proposal,) in zip(instances(), by_hand, strict=True):
        first = instance.first_example
        masks = [m for m in CASE.masks[first : first + len(instance.sentences)] if m.any()]
        if not masks:
            assert proposal.reason == f"empty for all {len(instance.sentences)} expressions"
            continue
        if len(masks) == 1:
            assert math.isnan(proposal.score)
            continue
        means = [
            np.mean([iou(a, b) for j, b in enumerate(masks) if j != k]) for k, a in enumerate(masks)
        ]
        assert proposal.score == pytest.approx(max(means))
        np.testing.assert_array_equal(pixels_of(proposal), masks[int(np.argmax(means))])


def test_of_equals_the_first_is_the_medoid():
    runs = [rle.run_ends(m) for m in (np.eye(4), np.eye(4), np.ones((4, 4)))]
    assert medoid(runs, 4, 4)[0] == 0


def test_what_is_missing_is_an_error_or_refused():
    pairs = [(k, mask) for k, mask in enumerate(CASE.masks) if k >= len(instances()[0].sentences)]
    with pytest.raises(rc.PredictionError, match="missing=skip"):
        FileProposer("p", pairs, DATASET)
    proposals = FileProposer("p", pairs, DATASET, missing="skip").propose(None, instances())
    assert proposals[0] == [Refused("p", "no prediction")]


def test_a_logit_that_is_not_finite_names_its_place():
    pairs = [(k, m.astype(np.float32) - 0.5) for k, m in enumerate(CASE.masks)]
    pairs[3][1][0, 0] = np.nan
    with pytest.raises(rc.PredictionError, match="batch 3, row 0: non-finite"):
        FileProposer("p", pairs, DATASET)


def test_grabcut_comes_closer_to_the_truth_on_any_thread():
    jobs, truths = [], []
    for record in sample.make_records()[:12]:
        for entry in record["samples"]:
            truth = rle.decode(entry["mask"])
            coarse = coarsened(truth)
            jobs.append(
                (sample.draw_image(record), [Instance(0, 1, 0, coarse, (0, 0, 1, 1), ("a",), "")])
            )
            truths.append(truth)
    proposer = pickle.loads(pickle.dumps(GrabCutProposer()))
    candidates = [proposer.propose(*job)[0][0] for job in jobs]
    assert all(isinstance(p, Candidate) for p in candidates)
    before = np.mean([iou(job[1][0].mask, t) for job, t in zip(jobs, truths, strict=True)])
    after = np.mean([iou(pixels_of(p), t) for p, t in zip(candidates, truths, strict=True)])
    assert after > before + 0.03
    with ThreadPoolExecutor(2) as pool:
        threaded = list(pool.map(lambda job: proposer.propose(*job)[0][0], jobs[::-1]))[::-1]
    assert equal([candidates], [threaded])


@pytest.mark.parametrize(("area", "reason"), [(1, "fewer"), (400, "background")])
def test_grabcut_refuses_what_it_cannot_cut(area, reason):
    mask = (np.arange(400) < area).reshape(20, 20)
    one = Instance(0, 1, 0, mask, (0, 0, 1, 1), ("a",), "")
    (proposal,) = GrabCutProposer().propose(np.zeros((20, 20, 3), np.uint8), [one])[0]
    assert isinstance(proposal, Refused)
    assert reason in proposal.reason
