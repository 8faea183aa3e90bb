"""Predictions of each validation batch in, the scores of `refcocom_gpu.score` out, on any number of ranks.

Start at `metric`, a torchmetrics `Metric`. `data` makes batches that carry the index of each example, and `lightning`,
`transformers` and `mmengine` fit the metric to their trainers.
"""
