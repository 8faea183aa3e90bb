"""`lmms-eval` and `key=value` words in, the folder of the task on stdout out: `--include_path $(python -m …)`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import yaml

from refcocom_gpu.errors import RefCOCOMError, UsageError
from refcocom_gpu.integrations.lmms_eval import write_task

USAGE = (
    "usage: python -m refcocom_gpu.integrations lmms-eval source=qwen version=3 [combine=union] "
    "[prompt='… {sentence} …'] [dataset_path=FOLDER] [output_dir=FOLDER] [KEY=VALUE of the source …]"
)
TEXTS = ("output_dir", "dataset_path", "prompt")
"""Keys whose value is a text, whatever it looks like."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder of a task and print its path.

    Returns:
        0, or 2 for wrong usage.

    >>> main(["lmms-eval", "version=3"])
    2
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(words):
        sys.stdout.write(USAGE + "\n")
        return 0
    try:
        if words[:1] != ["lmms-eval"]:
            raise UsageError(f"the one task is lmms-eval; {USAGE}")
        options = dict(map(_parsed, words[1:]))
        if "source" not in options:
            raise UsageError(f"source= says how the model writes its answers; {USAGE}")
        sys.stdout.write(f"{write_task(**options)}\n")
    except RefCOCOMError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _parsed(word: str) -> tuple[str, Any]:
    key, equals, text = word.partition("=")
    if not equals:
        raise UsageError(f"{word!r} is no key=value; {USAGE}")
    try:
        return key, text if key in TEXTS else yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"{key}={text} cannot be read") from None


if __name__ == "__main__":
    sys.exit(main())
