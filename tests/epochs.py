"""An epoch of a metric, fed batch by batch, and its comparison with the file scorer."""

import torch


def feed(metric, case, order=None, size=32, make=lambda mask: torch.from_numpy(mask)):
    order = range(len(case.masks)) if order is None else order
    for first in range(0, len(order), size):
        index = list(order[first : first + size])
        metric.update([make(case.masks[k]) for k in index], torch.tensor(index))


def assert_same(metric, offline):
    """Counts and scores equal the file scorer's, to the last bit."""
    result = metric.result()
    assert result.per_example.equals(offline.per_example)
    scores = metric.compute()
    assert scores["refcocom/miou"].item() == offline.miou
    assert scores["refcocom/ciou"].item() == offline.ciou
    for x, share in offline.precision_at.items():
        assert scores[f"refcocom/precision_at_{x}"].item() == share
    assert scores["refcocom/n_examples"].item() == offline.n_examples
