"""The configs of verbs in, the text of `--help` out; imports neither Hydra nor torch."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterable

from refcocom_gpu.cli.config import (
    OUTPUT_KEYS,
    VERBS,
    Key,
    SourceKeys,
    _Output,
    keys_of,
)
from refcocom_gpu.cli.groups import group_files

WIDTH = 100
"""The most columns that help takes, and what it takes where there is no terminal."""

NARROWEST = 60
"""The fewest: a narrower terminal breaks the lines itself."""

WIDEST_KEY = 32
"""Columns for keys; the meaning of a longer one begins in the next line."""

SHORT_FORMS = {"--json": "json=true", "-q": "quiet=true"}
"""Flags that stand for a key. A flag may stand anywhere; a file of its name is written `./-q`."""

EXIT_CODES = "Exit codes: 0 done, 2 usage, 3 data, 130 interrupted, 1 other."


def overview() -> str:
    """Return the help of the command: its verbs."""
    rows = [(verb, (config.__doc__ or "").strip()) for verb, (config, _) in VERBS.items()]
    return "\n".join(
        [
            "refcocom VERB [files…] [key=value …]",
            "",
            "The exact batch scorer for RefCOCO-M.",
            "",
            *_table(rows),
            "",
            "refcocom VERB --help lists the keys of a verb.",
            *_wrapped(_flags({"json", "quiet"})),
        ]
    )


def help_of(verb: str, config_dir: str | None = None) -> str:
    """Describe every key of a verb with its default and meaning, below the heading of the class that declares it.

    Args:
        verb: A key of `VERBS`.
        config_dir: A folder of the user's own groups, whose names are listed too.
    """
    config, main_key = VERBS[verb]
    keys = list(keys_of(config))
    sections: dict[str, list[tuple[str, str]]] = {"": []}
    known_groups = {
        group: f"one of {', '.join(names)}: the keys below at once"
        for group, names in group_files(config, config_dir).items()
    }
    # The main key comes first and what becomes of the result last, the others in the order of the config.
    headings = {key.name: _heading(key, verb) for key in keys}
    output = _first_words(_Output)
    keys.sort(
        key=lambda key: (
            headings[key.name] == output,
            key.declared_by is config,
            key.name in OUTPUT_KEYS,
        )
    )
    for key in keys:
        rows = sections.setdefault(headings[key.name], [])
        group = key.name.partition(".")[0]
        if meaning := known_groups.pop(group, None):
            rows.append((f"{group}=NAME", meaning))
        rows.append((key.shown, key.meaning))
    sections[_first_words(SourceKeys)] = [(k.shown, k.meaning) for k in keys_of(SourceKeys)]
    width = _width_of_keys(left for rows in sections.values() for left, _ in rows)
    lines = [
        f"refcocom {verb} [{main_key}…] [key=value …]",
        "",
        *_wrapped((config.__doc__ or "").strip()),
    ]
    for heading, rows in sections.items():
        lines += ["", *([f"{heading}:"] if heading else []), *_table(rows, width)]
    about = (f"{main_key} may stand without its name.", _flags({k.name for k in keys}), EXIT_CODES)
    return "\n".join([*lines, "", *(line for text in about for line in _wrapped(text))])


def _heading(key: Key, verb: str) -> str:
    config, main_key = VERBS[verb]
    if key.name == main_key:
        return ""
    if key.name in OUTPUT_KEYS:
        return _first_words(_Output)
    return f"What else {verb} takes" if key.declared_by is config else _first_words(key.declared_by)


def _first_words(config: type) -> str:
    """Return the first words of a docstring, which say what the keys of a class are about."""
    return re.split(r"[;.,\n]", (config.__doc__ or "").strip(), maxsplit=1)[0]


def _flags(keys: set[str]) -> str:
    """Return the line of help about flags, for the verbs that have these keys."""
    short = [
        f"{flag} for {word}" for flag, word in SHORT_FORMS.items() if word.split("=")[0] in keys
    ]
    return f"Flags, anywhere: {', '.join([*short, '--help or -h', '--version'])}."


def _width() -> int:
    return max(NARROWEST, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _width(), break_on_hyphens=False)


def _width_of_keys(keys: Iterable[str]) -> int:
    return max(len(key) for key in keys if len(key) <= WIDEST_KEY) + 2


def _table(rows: list[tuple[str, str]], width: int | None = None) -> list[str]:
    """Return lines of two columns; what is right is wrapped, below itself."""
    width = width or _width_of_keys(left for left, _ in rows)
    lines = []
    for left, right in rows:
        wrapped = textwrap.wrap(right, _width() - width - 2, break_on_hyphens=False)
        if len(left) > width - 2:
            lines.append(f"  {left}")
            left = ""
        lines.append(f"  {left:<{width}}{wrapped[0]}")
        lines += [" " * (width + 2) + line for line in wrapped[1:]]
    return lines
