"""Expressions in; the harm in each out: words of the user's list, and scores of a text classifier.

No list of words is shipped. `keep` decides from the scores what is removed.
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
from typing import Any, NamedTuple, Protocol

from refcocom_gpu.errors import DataError, UsageError
from refcocom_gpu.utils.files import regular
from refcocom_gpu.utils.optional import require
from refcocom_gpu.utils.text import first_line


class Harm(NamedTuple):
    """The harm in one expression.

    Attributes:
        word: The word of the user's list that the expression contains; empty for none.
        label: The classifier's harmful label with the highest score; empty without a classifier.
        score: Score of that label, 0…1; NaN without a classifier.
    """

    word: str = ""
    label: str = ""
    score: float = math.nan


class ExpressionFilter(Protocol):
    """Finds harm in expressions. It is pickled to the workers."""

    def find(self, sentences: Sequence[str]) -> list[Harm]:
        """Return the harm in each expression."""

    def identity(self) -> dict[str, Any]:
        """Everything that decides what `find` returns, as JSON values."""


@dataclass(frozen=True)
class Words:
    """Words and phrases to look for. They match as whole words, in any case and any Unicode form.

    Attributes:
        words: As the user wrote them.

    >>> Words(("red hat",)).find("the man in a RED  HAT"), Words(("hat",)).find("that chair")
    ('red hat', '')
    """

    words: tuple[str, ...] = ()

    def find(self, sentence: str) -> str:
        """Return the first word of the list that the expression contains; empty for none."""
        text = _plain(sentence)
        return next((word for word, pattern in _patterns(self.words) if pattern.search(text)), "")


def read_words(path: str | Path) -> Words:
    """Read a UTF-8 file with one word or phrase per line. Empty lines and lines that begin with # are skipped.

    Raises:
        UsageError: The file cannot be read, contains no word, or a word has no letter or digit.
    """
    try:
        lines = regular(Path(path).expanduser()).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"words={path} cannot be read as UTF-8 text: {error}") from None
    stripped = [line.strip() for line in lines]
    words = tuple(dict.fromkeys(line for line in stripped if line and not line.startswith("#")))
    if not words:
        raise UsageError(f"words={path} holds no word")
    if unusable := [word for word in words if not _plain(word)]:
        raise UsageError(f"words={path}: {unusable[0]!r} holds no letter or digit")
    return Words(words)


@functools.lru_cache(maxsize=8)
def _patterns(words: tuple[str, ...]) -> list[tuple[str, re.Pattern[str]]]:
    return [(word, re.compile(rf"(?<!\w){re.escape(_plain(word))}(?!\w)")) for word in words]


def _plain(text: str) -> str:
    """The words of a text, in NFKC form and folded case, separated by one space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))


@dataclass(frozen=True)
class HarmFilter:
    """A word list, a text classifier, both or neither.

    Attributes:
        words: The user's list.
        model: Hub name or folder of a text classifier of Transformers; None for no classifier.
        revision: Branch, tag or commit of the model on the Hub.
        labels: Its harmful labels.
        device: Where it runs.

    Raises:
        UsageError: By `find` and `check`: the model cannot be loaded. By `check`: it lacks one of the labels.

    >>> HarmFilter(Words(("hat",))).find(["a hat", "a cat"])
    [Harm(word='hat', label='', score=nan), Harm(word='', label='', score=nan)]
    """

    words: Words = Words()
    model: str | None = None
    revision: str | None = None
    labels: tuple[str, ...] = ()
    device: str = "cpu"

    def check(self) -> None:
        """Load the model and check its labels, before any work."""
        if self.model is None:
            return
        config = _classifier(self.model, self.revision, self.device).model.config
        known = list(config.id2label.values())
        unknown = [label for label in self.labels if label not in known]
        if unknown or not self.labels:
            what = f"has no label {unknown[0]!r}" if unknown else "has several labels"
            raise UsageError(
                f"classifier {self.model} {what}; pass the harmful ones as "
                f"classifier_labels=[…], from {', '.join(map(str, known))}"
            )

    def find(self, sentences: Sequence[str]) -> list[Harm]:
        """Return the harm in each expression.

        Raises:
            DataError: The classifier returns a score that is not finite.
        """
        harm = [Harm(self.words.find(sentence)) for sentence in sentences]
        if self.model is None or not sentences:
            return harm
        classify = _classifier(self.model, self.revision, self.device)
        outputs = classify(list(sentences), top_k=None, truncation=True)
        for k, output in enumerate(outputs):
            scores = {str(entry["label"]): float(entry["score"]) for entry in output}
            if not all(map(math.isfinite, scores.values())):
                raise DataError(
                    f"classifier {self.model} returns scores that are not finite, for {sentences[k]!r}"
                )
            label = max(self.labels, key=lambda name: scores[name])
            harm[k] = harm[k]._replace(label=label, score=scores[label])
        return harm

    def identity(self) -> dict[str, Any]:
        """The words, the model with its commit, and its labels."""
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
"""`functools.lru_cache` alone would let several threads each load the model at the same time."""


def _classifier(model: str, revision: str | None, device: str) -> Any:
    """The classifier, loaded once per process."""
    with _LOADING:
        return _open(model, revision, device)


@functools.lru_cache(maxsize=1)
def _open(model: str, revision: str | None, device: str) -> Any:
    transformers = require("transformers", "a text classifier needs Transformers", "construct")
    try:
        return transformers.pipeline(
            "text-classification", model=model, revision=revision, device=device
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = first_line(error)
        raise UsageError(f"classifier {model} cannot be loaded: {reason}") from None
