"""The name of a template and its values in, one self-contained HTML file out.

Templates, the style sheet and the script are files in `templates/`. A page asks for nothing: its policy forbids every
request but pictures beside it, and every script but ours, so that no sentence, name or path can run. Values are escaped
by Jinja2 wherever they stand.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from refcocom_gpu._version import __version__
from refcocom_gpu.utils.optional import require
from refcocom_gpu.utils.text import as_text

TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, values: Mapping[str, Any]) -> bytes:
    """Return a page.

    Args:
        template: Name of a file in `templates/`.
        values: What it names. Text is escaped; markup, as of plots, is marked by `markup`.

    Raises:
        UsageError: Jinja2 is not installed.
    """
    text = _environment().get_template(template).render(values)
    return as_text(text).encode()


def markup(text: str) -> Any:
    """Mark text of our own making as HTML, which is not escaped."""
    return require("markupsafe", "pages need Jinja2", "report").Markup(text)


def data(values: Any) -> Any:
    r"""Return values as JSON that may stand in a `<script>` element: `<`, `>` and `&` are escaped.

    >>> str(data({"sentence": "</script>"}))
    '{"sentence":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return markup(text)


def percent(share: float | None, digits: int = 2) -> str:
    """Return a share in percent without the sign, and `–` for none.

    >>> percent(0.87654), percent(None)
    ('87.65', '–')
    """
    return "–" if share is None or share != share else f"{100 * share:.{digits}f}"


def signed(share: float | None, digits: int = 2) -> str:
    """Return a difference in percentage points with its sign.

    >>> signed(-0.012), signed(0.5), signed(None)
    ('−1.20', '+50.00', '–')
    """
    return (
        "–" if share is None or share != share else f"{100 * share:+.{digits}f}".replace("-", "−")
    )


@cache
def _environment() -> Any:
    jinja2 = require("jinja2", "pages need Jinja2", "report")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, signed=signed, count=lambda n: f"{n:,}")
    script = (TEMPLATES / "report.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(
        style=markup((TEMPLATES / "report.css").read_text("utf-8")),
        script=markup(script),
        script_hash=f"sha256-{digest}",
        version=__version__,
    )
    return environment
