"""Expressions in, what is harmful about them out: words of the user's list, and the scores of a text classifier.

No list of words is shipped. What is removed is decided in `keep`, from the scores.
"""

from __future__ import annotations

import functools
import math
import re
import threading
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from refcocom_gpu.errors import DataError, UsageError

Verdict = tuple[str, str, float]
"""The word found, the harmful label with the highest score, that score."""


class ExpressionFilter(Protocol):
    """Whatever looks for harm in expressions; it is pickled to the workers."""

    def find(self, sentences: Sequence[str]) -> list[Verdict]:
        """A verdict for each expression."""

    def identity(self) -> dict[str, Any]:
        """All that decides the verdicts, JSON values."""


@dataclass(frozen=True)
class Words:
    """Words and phrases, matched whole, whatever their case or the form of their letters.

    Attributes:
        words: As the user wrote them.

    >>> Words(("red hat",)).find("the man in a RED  HAT"), Words(("hat",)).find("that chair")
    ('red hat', '')
    """

    words: tuple[str, ...] = ()

    def find(self, sentence: str) -> str:
        """The first word of the list that the expression holds; empty for none."""
        text = _plain(sentence)
        return next((word for word, pattern in _patterns(self.words) if pattern.search(text)), "")


def read_words(path: str | Path) -> Words:
    """A word or phrase a line, UTF-8; empty lines and those that begin with # are skipped.

    Raises:
        UsageError: The file cannot be read or holds no word.
    """
    try:
        lines = Path(path).expanduser().read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"words={path} cannot be read as UTF-8 text: {error}") from None
    words = tuple(
        dict.fromkeys(
            line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")
        )
    )
    if not words:
        raise UsageError(f"words={path} holds no word")
    if unusable := [word for word in words if not _plain(word)]:
        raise UsageError(f"words={path}: {unusable[0]!r} holds no letter or digit")
    return Words(words)


@functools.lru_cache(maxsize=8)
def _patterns(words: tuple[str, ...]) -> list[tuple[str, re.Pattern[str]]]:
    return [(word, re.compile(rf"(?<!\w){re.escape(_plain(word))}(?!\w)")) for word in words]


def _plain(text: str) -> str:
    """Compatible forms composed, case folded, every run of what is no letter or digit one space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))


@dataclass(frozen=True)
class HarmFilter:
    """A word list, a text classifier, both or neither.

    Attributes:
        words: Of the user.
        model: Hub name or folder of a text classifier of Transformers; None for none.
        revision: Of the model on the Hub.
        labels: Its labels that are harmful.
        device: Where it runs.

    Raises:
        UsageError: When `find` or `check` cannot open the model, or it lacks one of the labels.

    >>> HarmFilter(Words(("hat",))).find(["a hat", "a cat"])
    [('hat', '', nan), ('', '', nan)]
    """

    words: Words = Words()
    model: str | None = None
    revision: str | None = None
    labels: tuple[str, ...] = ()
    device: str = "cpu"

    def check(self) -> None:
        """Open the model and look for the labels, before any work."""
        if self.model is None:
            return
        known = list(
            _classifier(self.model, self.revision, self.device).model.config.id2label.values()
        )
        unknown = [label for label in self.labels if label not in known]
        if unknown or not self.labels:
            what = f"has no label {unknown[0]!r}" if unknown else "has several labels"
            raise UsageError(
                f"classifier {self.model} {what}; pass the harmful ones as "
                f"classifier_labels=[…], from {', '.join(map(str, known))}"
            )

    def find(self, sentences: Sequence[str]) -> list[Verdict]:
        """A verdict for each expression.

        Raises:
            DataError: The classifier gives a score that is no number.
        """
        scored = [("", math.nan)] * len(sentences)
        if self.model is not None and sentences:
            classify = _classifier(self.model, self.revision, self.device)
            answers = classify(list(sentences), top_k=None, truncation=True)
            scored = [
                self._worst(text, answer) for text, answer in zip(sentences, answers, strict=True)
            ]
        return [
            (self.words.find(text), label, score)
            for text, (label, score) in zip(sentences, scored, strict=True)
        ]

    def _worst(self, sentence: str, answer: Sequence[dict[str, Any]]) -> tuple[str, float]:
        scores = {str(one["label"]): float(one["score"]) for one in answer}
        if not all(map(math.isfinite, scores.values())):
            raise DataError(
                f"classifier {self.model} gives scores that are no numbers, of {sentence!r}"
            )
        label = max(self.labels, key=lambda name: scores[name])
        return label, scores[label]

    def identity(self) -> dict[str, Any]:
        """The words, the model with its commit, its labels."""
        about: dict[str, Any] = {"words": list(self.words.words)}
        if self.model is not None:
            config = _classifier(self.model, self.revision, self.device).model.config
            about["classifier"] = {
                "model": self.model,
                "revision": getattr(config, "_commit_hash", None) or self.revision,
                "labels": list(self.labels),
            }
        return about


_LOADING = threading.Lock()
"""A cache alone lets every thread that comes before the first is done load a model of its own."""


def _classifier(model: str, revision: str | None, device: str) -> Any:
    """The pipeline, once per process."""
    with _LOADING:
        return _open(model, revision, device)


@functools.lru_cache(maxsize=1)
def _open(model: str, revision: str | None, device: str) -> Any:
    try:
        import transformers
    except ImportError:
        raise UsageError(
            "a text classifier needs Transformers: pip install 'refcocom-gpu[construct]'"
        ) from None
    try:
        return transformers.pipeline(
            "text-classification", model=model, revision=revision, device=device
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"classifier {model} cannot be opened: {reason}") from None
