"""The benchmark's own rules: disagreement is refused, and a change is called one only beyond its noise."""

import numpy as np
import pytest

from benchmarks import compare
from benchmarks.timing import Case, Contender, run_case


def contender(name: str, counts: list, kind: str = "peer") -> Contender:
    return Contender(name, lambda: np.array(counts), len(counts), kind)


def test_contenders_that_disagree_are_refused():
    case = Case("c", [contender("ours", [[1, 2, 3]], "ours"), contender("wrong", [[1, 2, 4]])])
    with pytest.raises(AssertionError, match="wrong disagrees on 1"):
        run_case(case, 1)


def test_counts_are_compared_with_peers_that_give_iou_only():
    case = Case("c", [contender("ours", [[1, 2, 3]], "ours"), contender("iou", [0.25])])
    assert {row["contender"] for row in run_case(case, 2)["results"]} == {"ours", "iou"}
    case.contenders[1] = contender("iou", [0.2500001])
    with pytest.raises(AssertionError, match="disagrees"):
        run_case(case, 1)


@pytest.mark.parametrize(
    ("after", "verdict"), [((0.9, 1.1), "same"), ((1.3, 1.5), "slower"), ((0.5, 0.7), "faster")]
)
def test_a_change_is_one_beyond_its_noise(after, verdict):
    before = {"q10": 0.8, "q90": 1.2}
    assert compare.verdict(before, {"q10": after[0], "q90": after[1]}) == verdict


@pytest.mark.slow
def test_the_gpu_benchmark_runs(capsys, monkeypatch, tmp_path):
    """Its script, tried on the CPU: every check is exact, every case is timed, nothing is written."""
    from benchmarks.gpu import __main__ as gpu

    monkeypatch.setattr(gpu, "RESULTS", tmp_path / "results")
    monkeypatch.setattr("sys.argv", ["gpu", "--dry-run"])
    assert gpu.main() == 0
    out = capsys.readouterr().out
    assert "WRONG" not in out
    assert ", 0 wrong; 11 cases; nothing is written" in out
    assert not (tmp_path / "results").exists()


def test_a_device_that_is_wrong_is_reported(monkeypatch):
    import torch

    from benchmarks.gpu import exactness

    found = exactness.compared("x", [torch.tensor([1, 2, 3])], [torch.tensor([1, 5, 3])])
    assert (found["of"], found["wrong"]) == (3, 1)
    assert exactness.compared("x", torch.zeros(2), torch.zeros(3))["wrong"] == 2
