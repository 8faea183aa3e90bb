"""Docstrings in, docstrings out whose doctests are fenced: the site then shows them as code, not as quotations."""

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"^( *)(>>> .*(?:\n.+)*)", re.M)
"""The indentation of a prompt, and all up to the next empty line."""


class Doctests(griffe.Extension):
    """Fence the doctests of every object."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = DOCTEST.sub(r"\1```pycon\n\1\2\n\1```", obj.docstring.value)
