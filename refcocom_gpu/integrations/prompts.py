"""What models are asked, unless the caller says otherwise."""

from __future__ import annotations

from refcocom_gpu.errors import UsageError

PLACE = "{sentence}"
DEFAULT_PROMPT = f'Segment the object that this expression refers to: "{PLACE}"'


def split_prompt(prompt: str) -> tuple[str, str]:
    """Return what stands before and after the sentence.

    Raises:
        UsageError: The prompt does not hold `{sentence}` once.

    >>> split_prompt("Where is {sentence}?")
    ('Where is ', '?')
    """
    if prompt.count(PLACE) != 1:
        raise UsageError(f"a prompt holds {PLACE} once, where the expression goes; not {prompt!r}")
    before, _, after = prompt.partition(PLACE)
    return before, after
