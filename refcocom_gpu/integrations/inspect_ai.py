"""A dataset in, samples for Inspect out; and its answers in, exact counts and their scores out.

```python
@task
def refcoco_m_qwen():
    return Task(samples(), solver=generate(), scorer=refcoco_m("qwen", version=3))
```

A sample is one (image, sentence) pair, and its target is the true mask as COCO RLE. `inspect_ai` is imported by the
functions that need it.
"""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

from refcocom_gpu.dataset.table import Dataset, load_dataset
from refcocom_gpu.errors import UsageError
from refcocom_gpu.integrations.answers import AnswerJudge, scores_of
from refcocom_gpu.integrations.prompts import DEFAULT_PROMPT, split_prompt
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.utils.optional import require

NEED = "samples and the scorer for Inspect need inspect_ai"
CLUSTER = "image_id"
"""The metadata by which standard errors are clustered: expressions of one image are not independent."""


def samples(
    dataset: Dataset | str | Path = "moondream/refcoco-m", *, prompt: str = DEFAULT_PROMPT
) -> Any:
    """Return the samples of a dataset, one for each (image, sentence) pair.

    Args:
        dataset: A dataset, or its name or path.
        prompt: What the model is asked, with `{sentence}`.

    Returns:
        A `MemoryDataset`. The id of a sample is its key, such as `20002_0`; its metadata are the fields of the key,
        `index`, `image_id` and `sentence`. Samples of one image share the text of its picture.

    Raises:
        UsageError: `inspect_ai` is not installed, the prompt lacks `{sentence}`, or there are no pictures.
        DatasetError: The dataset or one of its masks is malformed.
    """
    inspect_dataset, model = _inspect("dataset"), _inspect("model")
    before, after = split_prompt(prompt)
    loaded = dataset if isinstance(dataset, Dataset) else load_dataset(dataset)
    MaskStore.build(loaded)  # checks every mask now, not when the answer to it comes
    image = cache(lambda row: _data_uri(loaded.pictures.encoded(row)))
    made = []
    for example in loaded:
        sample = int(loaded.example_sample[example.index])
        content = [
            model.ContentImage(image=image(int(loaded.sample_image[sample]))),
            model.ContentText(text=f"{before}{example.sentence}{after}"),
        ]
        truth = {
            "size": [example.height, example.width],
            "counts": bytes(loaded.counts.row(sample)).decode(),
        }
        made.append(
            inspect_dataset.Sample(
                input=[model.ChatMessageUser(content=content)],
                target=json.dumps(truth),
                id="_".join(map(str, example.key)),
                metadata={
                    "index": example.index,
                    **dict(zip(loaded.example_key_fields, example.key, strict=True)),
                    CLUSTER: example.image_id,
                    "sentence": example.sentence,
                },
            )
        )
    return inspect_dataset.MemoryDataset(made, name="refcoco-m", location=str(loaded.source))


def refcoco_m(source: str, combine: str | None = None, **options: Any) -> Any:
    """Return the scorer; its metrics are those of `answers.scores_of`, and the standard error of mIoU by image.

    Args:
        source: How answers are written, as of `AnswerJudge`.
        combine: As of `AnswerJudge`.
        options: As of `AnswerJudge`.

    Raises:
        UsageError: As of `AnswerJudge`; or `inspect_ai` is not installed.
    """
    AnswerJudge(source, combine, **options)
    return _registered()(source, combine, options)


@cache
def _registered() -> Any:
    """Register the scorer and its metric with Inspect, and return the scorer."""
    api = _inspect("scorer")

    @api.metric(name="refcoco_m_scores")  # type: ignore[untyped-decorator]
    def scores() -> Any:
        def metric(scores: list[Any]) -> dict[str, float]:
            return scores_of([_counts_in(each) for each in scores])

        return metric

    @api.scorer(metrics=[scores(), api.stderr(cluster=CLUSTER)], name="refcoco_m")  # type: ignore[untyped-decorator]
    def scorer(
        source: str, combine: str | None = None, options: dict[str, Any] | None = None
    ) -> Any:
        judge = AnswerJudge(source, combine, **(options or {}))

        async def score(state: Any, target: Any) -> Any:
            answer = state.output.completion
            judged = judge(answer, json.loads(target.text))
            return api.Score(
                value=judged.iou,
                answer=answer,
                explanation=judged.unread or None,
                metadata=judged._asdict(),
            )

        return score

    return scorer


def _counts_in(sample: Any) -> dict[str, Any]:
    """Return the counts that the scorer put into a score.

    Raises:
        UsageError: They are not there, or belong to another value, as where the scores of epochs were averaged.
    """
    found = sample.score.metadata or {}
    if found.get("iou") != sample.score.value:
        raise UsageError(
            f"sample {sample.sample_id}: its score is not that of one answer; run one epoch, whose counts are exact"
        )
    return dict(found)


def _data_uri(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _inspect(module: str) -> Any:
    return require(f"inspect_ai.{module}", NEED, "inspect")
