"""An error in; a line for a person on stderr and, with `json=true`, an object for a program on stdout out."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable
from typing import Any

from refcocom_gpu.cli.verbs import StdoutClosed, print_, say
from refcocom_gpu.errors import DataError, PredictionError

_YES = frozenset({"1", "on", "true", "y", "yes"})
"""What OmegaConf takes for true. A failing call may have no config, so its words are read."""


class PartFailedError(DataError):
    """A part of the work failed, and the rest is done.

    Attributes:
        summary: What the verb would have printed as JSON. The JSON of the error holds it too, because stdout takes one
            object.
    """

    def __init__(self, message: str, summary: dict[str, Any]) -> None:
        super().__init__(message)
        self.summary = summary


_FIELDS = re.compile(r"fields=\{((?:'\w+': '[^']*'(?:, )?)+)\}")
_FIELD = re.compile(r"'(\w+)': '([^']*)'")
_DATASET = re.compile(r"(?<![\w.])(key|invalid_references|split_by|path)='(\w+)'")


def as_typed(text: str) -> str:
    """Return a message in which arguments of Python are the keys of the command, where their names differ.

    >>> as_typed("try fields={'sample_id': 'ann_id'}; pass key='image_position', or overwrite=True")
    'try fields.sample_id=ann_id; pass dataset.key=image_position, or overwrite=true'
    """
    text = _FIELDS.sub(lambda m: " ".join(f"fields.{a}={b}" for a, b in _FIELD.findall(m[1])), text)
    text = _DATASET.sub(r"dataset.\1=\2", text)
    return text.replace("overwrite=True", "overwrite=true")


def report(error: BaseException, text: str, code: int, words: Iterable[str]) -> int:
    """Report a failure as the words of the command ask.

    Args:
        error: What was raised.
        text: What a person reads. A bug, whose traceback follows, gets no line of its own.
        code: Exit code.
        words: The words of the command.

    Returns:
        `code`.

    >>> report(ValueError(), "no such thing", 2, ["score", "json=true", "quiet=true"])
    {
      "error": "no such thing",
      "kind": "ValueError",
      "exit_code": 2,
      "problems": []
    }
    2
    """
    words, text = list(words), as_typed(text)
    as_json = _is_on("json", words)
    if code != 1 and not (as_json and _is_on("quiet", words)):
        say(f"refcocom: {text}")
    if as_json:
        with contextlib.suppress(StdoutClosed):
            print_(json.dumps(_described(error, text, code), indent=2))
    return code


def _described(error: BaseException, text: str, code: int) -> dict[str, Any]:
    about: dict[str, Any] = {"error": text, "kind": type(error).__name__, "exit_code": code}
    if isinstance(error, PredictionError):
        about["counts"] = dict(error.counts)
        about["problems"] = [
            {"kind": p.kind, "where": p.where, "message": as_typed(p.message)}
            for p in error.problems
        ]
    else:
        about["problems"] = []
    return {**about, **error.summary} if isinstance(error, PartFailedError) else about


def _is_on(key: str, words: list[str]) -> bool:
    values = [word.partition("=")[2] for word in words if word.startswith(f"{key}=")]
    return bool(values) and values[-1].lower() in _YES
