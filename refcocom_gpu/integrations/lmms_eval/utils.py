"""The functions that `_refcoco_m_yaml` names. lmms-eval runs this file by its path, once for each of them."""

from functools import cache
from pathlib import Path
from typing import Any

from refcocom_gpu.integrations import lmms_eval as task
from refcocom_gpu.integrations.lmms_eval import doc_to_text as doc_to_text
from refcocom_gpu.integrations.lmms_eval import doc_to_visual as doc_to_visual
from refcocom_gpu.integrations.lmms_eval import process_docs as process_docs

judge = cache(lambda: task.judge_of(Path(__file__).parent))
miou = task.aggregate("miou")
ciou = task.aggregate("ciou")
precision_at_5 = task.aggregate("precision_at_0.5")
precision_at_6 = task.aggregate("precision_at_0.6")
precision_at_7 = task.aggregate("precision_at_0.7")
precision_at_8 = task.aggregate("precision_at_0.8")
precision_at_9 = task.aggregate("precision_at_0.9")
n_examples = task.aggregate("n_examples")
n_unread = task.aggregate("n_unread")


def process_results(doc: dict[str, Any], results: list[Any]) -> dict[str, dict[str, Any]]:
    """Count the answer to one doc, read as the YAML beside this file says."""
    return task.process_results(doc, results, judge())
