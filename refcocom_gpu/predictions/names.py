"""How pictures and members are called in: `name={image_id}_{sample_id}_{sentence_idx}`. What a name says out."""

from __future__ import annotations

import re
from itertools import pairwise
from string import Formatter
from typing import TYPE_CHECKING, Any

from refcocom_gpu.dataset.facts import FACTS
from refcocom_gpu.errors import UsageError

if TYPE_CHECKING:
    from refcocom_gpu.dataset.table import Dataset

PLACEHOLDERS = tuple(name for name in FACTS if name != "sentence")
"""What a name may hold. A sentence has characters that file names cannot have."""

TEXTS = ("file_name", "")
"""Placeholders that stand for any text; the others stand for whole numbers."""


class Template:
    """A name with placeholders, which is read in one way only.

    Args:
        text: Names in braces stand for what they name, `{}` for any text, which is ignored; all else stands for itself,
            a brace as two.

    Attributes:
        fields: The placeholders in their order, without `{}`.

    Raises:
        UsageError: A placeholder is unknown, stands twice or cannot be told from what is beside it.

    >>> Template("mask-{sample_id}_{sentence_idx}").read("mask-007_0")
    {'sample_id': 7, 'sentence_idx': 0}
    >>> Template("{}_{sample_id}").read("a_b_12"), Template("{sample_id}").read("x")
    ({'sample_id': 12}, None)
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts = _parts(text)
        names = [name for _, name in self._parts if name is not None]
        self.fields = tuple(name for name in names if name)
        for name in self.fields:
            if name not in PLACEHOLDERS:
                raise UsageError(
                    f"name={text}: {{{name}}} is unknown; a name may hold "
                    f"{', '.join(f'{{{known}}}' for known in PLACEHOLDERS)}, and {{}} for text that is ignored"
                )
            if self.fields.count(name) > 1:
                raise UsageError(f"name={text}: {{{name}}} stands twice")
        self._check_one_reading(names)
        pattern = ""
        for literal, placeholder in self._parts:
            pattern += re.escape(literal)
            if placeholder is not None:
                group = f"(?P<{placeholder}>" if placeholder else "("
                pattern += f"{group}{'.*' if placeholder in TEXTS else '[0-9]{1,18}'})"
        self._pattern = re.compile(pattern, re.DOTALL)

    def __str__(self) -> str:
        return self.text

    def read(self, name: str) -> dict[str, Any] | None:
        """Return what a name says; None for a name of another form."""
        found = self._pattern.fullmatch(name)
        if found is None:
            return None
        values = found.groupdict()
        return {key: value if key in TEXTS else int(value) for key, value in values.items()}

    def filled(self, dataset: Dataset, index: int) -> str:
        """Return the name of an example; nothing stands for `{}`."""
        return "".join(
            literal + (str(dataset.fact(index, name)) if name else "")
            for literal, name in self._parts
        )

    def _check_one_reading(self, names: list[str]) -> None:
        """Check that no name can be read in two ways: at most one text, and numbers that end where a text begins."""
        texts = [f"{{{name}}}" for name in names if name in TEXTS]
        if len(texts) > 1:
            raise UsageError(
                f"name={self.text} is ambiguous: {' and '.join(texts)} both stand for any text"
            )
        between = [literal for literal, name in self._parts if name is not None][1:]
        for (left, right), literal in zip(pairwise(names), between, strict=True):
            touches = (left not in TEXTS and literal[:1].isdigit()) or (
                right not in TEXTS and literal[-1:].isdigit()
            )
            if not literal or touches:
                raise UsageError(
                    f"name={self.text} is ambiguous: nothing tells where {{{left}}} ends and {{{right}}} begins; "
                    "put something other than a digit between them"
                )


def _parts(text: str) -> list[tuple[str, str | None]]:
    """Return pairs of a literal and the placeholder behind it; None stands for the end."""
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise UsageError(f"name={text}: {error}") from None
    for _, name, form, conversion in parts:
        if form or conversion:
            raise UsageError(
                f"name={text}: {{{name}}} takes no form; whole numbers are read with and without leading zeros"
            )
    return [(literal, name) for literal, name, _, _ in parts]


def template_of(
    name: str | None, keys: str | None, dataset: Dataset, needed: tuple[tuple[str, ...], ...]
) -> Template | None:
    """Return how names are read; None where only tables can be.

    Args:
        name: The option; None for the usual names.
        keys: How examples are named.
        dataset: What the predictions are for.
        needed: Sets of placeholders, one of which finds an example; empty where names find none.

    Raises:
        UsageError: The template is wrong, or holds too little to find an example.
    """
    if name is None:
        usual = (
            "_".join(f"{{{field}}}" for field in needed[0]) if needed and keys != "refer" else ""
        )
        return Template(usual) if usual else None
    template = Template(name)
    if not needed:
        raise UsageError(f"keys={keys} is for tables; name= cannot hold what it needs")
    if not any(set(fields) <= set(template.fields) for fields in needed):
        ways = " or ".join(" and ".join(f"{{{field}}}" for field in fields) for fields in needed)
        hint = ""
        if keys != "refer" and set(template.fields) & set(dataset.refer_ids):
            hint = "; keys=refer finds them by sent_id, ref_id or ann_id"
        raise UsageError(f"name={name} does not find an example, which takes {ways}{hint}")
    return template
