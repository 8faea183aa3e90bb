"""The text of a language model in, the JSON in it out; Markdown fences, reasoning and prose around it are left out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from refcocom_gpu.errors import AnswerError

_FENCE = re.compile(r"```[\w+-]*[ \t]*\r?\n(.*?)(?:```|\Z)", re.DOTALL)
"""A fenced block; the last one may be open, where the answer ends without a fence."""

_START = re.compile(r"[\[{]")


def parse_response(text: str) -> Any:
    r"""Return the JSON object or list that a response holds.

    A JSON value in a fence goes before one in prose. Where prose holds lists of plain numbers too, such as `[1]`, they
    give way to the one value that holds objects or lists.

    Args:
        text: What the model wrote.

    Raises:
        AnswerError: The text holds no JSON, several values, or one that is cut off, repeats a key, holds NaN or
            Infinity, or is nested too deeply.

    >>> parse_response('Here you are:\n```json\n[{"label": "cat"}]\n```\nAnything else?')
    [{'label': 'cat'}]
    >>> parse_response("I see no cat.")
    Traceback (most recent call last):
    refcocom_gpu.errors.AnswerError: no JSON object or list in the answer: 'I see no cat.'
    """
    # Reasoning models draft JSON before they answer.
    answer = text.rpartition("</think>")[2]
    try:
        fenced = [value for block in _FENCE.findall(answer) for value in _values(block)]
        values = fenced or list(_values(answer))
    except RecursionError:
        raise AnswerError("its JSON is nested too deeply") from None
    if len(values) > 1:
        values = [value for value in values if _holds_containers(value)] or values
    if not values:
        raise AnswerError(f"no JSON object or list in the answer: {text.strip()[:60]!r}")
    if len(values) > 1:
        raise AnswerError(f"{len(values)} JSON values in the answer, not one object or list")
    return values[0]


def _values(text: str) -> Iterator[Any]:
    """Yield the outermost JSON objects and lists of a text."""
    decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse)
    at = 0
    while match := _START.search(text, at):
        try:
            value, at = decoder.raw_decode(text, match.start())
            yield value
        except json.JSONDecodeError as error:
            # What is inside a value that is cut off must not be taken for the answer.
            if error.msg.startswith("Unterminated") or error.pos >= len(text.rstrip()):
                raise AnswerError("its JSON is cut off; allow the model more tokens") from None
            # A bracket in prose; or JSON with a mistake, whose parts are not the answer either.
            if re.match(r"[\[{]\s*[\[{\"']", text[match.start() :]):
                raise AnswerError(f"its JSON is malformed: {error.msg}") from None
            at = match.start() + 1
        except AnswerError:
            raise
        except ValueError:  # of `int`
            raise AnswerError("its JSON holds a number of thousands of digits") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise AnswerError(f"its JSON has {repeated!r:.40} more than once in one object")
    return dict(pairs)


def _refuse(constant: str) -> Any:
    raise AnswerError(f"its JSON holds {constant}, which is no number")


def _holds_containers(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    return isinstance(value, dict) or any(isinstance(part, dict | list) for part in inner)
