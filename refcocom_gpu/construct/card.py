"""The summary of a construction in; its dataset card out, from the template `card.md.j2`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from refcocom_gpu.construct.keep import CAUSES, EXPRESSION_CAUSES
from refcocom_gpu.utils.optional import require


def card(summary: Mapping[str, Any]) -> str:
    """Render the dataset card.

    Raises:
        UsageError: Jinja2 is not installed.
    """
    jinja2 = require("jinja2", "the card needs Jinja2", "construct")
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    template = environment.from_string(Path(__file__).with_name("card.md.j2").read_text("utf-8"))
    no_filter = {"classifier": None, "n_words": 0, "words_hash": ""}
    values = {
        **summary,
        "filter": {**no_filter, **summary["filter"]},
        "name": f"{Path(summary['original']['source']).stem}-M",
        "causes": CAUSES,
        "expression_causes": {**EXPRESSION_CAUSES, "instance": "its instance was removed"},
    }
    rendered: str = template.render(values)
    return rendered


def public_name(source: str) -> str:
    """Return the name of a dataset or a model as it is published: of a local one without its folders.

    >>> public_name("moondream/refcoco-m"), public_name("/home/me/refcoco")
    ('moondream/refcoco-m', 'refcoco')
    """
    path = Path(source).expanduser()
    return path.resolve().name if path.is_absolute() or path.exists() else source


def about_filter(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What is published of a filter. Of its words, only their number and a hash: a list of slurs is not published."""
    about = {name: value for name, value in identity.items() if name != "words"}
    if classifier := identity.get("classifier"):
        about["classifier"] = {**classifier, "model": public_name(classifier["model"])}
    if words := identity.get("words"):
        about["n_words"] = len(words)
        about["words_hash"] = xxhash.xxh3_128_hexdigest("\n".join(words).encode())
    return about
