"""`key=value` words from the shell in, a typed config out.

Hydra composes groups and checks numbers and switches. Text and file names never reach its parser, so all of them work
unquoted, also with `é`, spaces, `=`, `,`, `(`, `[` and `${`, and a commit `1e10` is not taken for a number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from refcocom_gpu.cli.config import VERBS, Key, conf_dir, groups, keys_of
from refcocom_gpu.errors import UsageError

# Hydra adds and deletes keys by `+` and `~`; here they only make a name unknown.
_OVERRIDE = re.compile(r"([+~]*[A-Za-z_][\w.]*)=(.*)", re.DOTALL)
# In a sweep, brackets around a comma are a list within the list; brackets without one belong to a glob.
_NESTED = re.compile(r"""\s*(\[[^\[\]]*,[^\[\]]*\])\s*(?:,|$)""", re.DOTALL)
_ELEMENT = re.compile(r"""\s*("[^"]*"|'[^']*'|[^,]*?)\s*(?:,|$)""", re.DOTALL)


def parse(verb: str, words: Sequence[str]) -> Any:
    """Compose the config of a verb.

    Args:
        verb: A key of `VERBS`.
        words: `key=value` overrides and positional values of the verb's main key, in any order.

    Returns:
        An instance of the verb's config class.

    Raises:
        UsageError: For a flag, an unknown key, or a value of the wrong type.
    """
    config, main_key = VERBS[verb]
    known = {k.name: k for k in keys_of(config)}
    choices = groups(config)
    text: dict[str, Any] = {}
    parsed: list[str] = []
    positional: list[str] = []
    for word in words:
        match = _OVERRIDE.fullmatch(word)
        name, value = match.groups() if match else ("", "")
        mapping, _, entry = name.partition(".")
        if mapping in known and known[mapping].is_mapping:
            if not entry:
                raise UsageError(f"{word}: one word for each, such as {known[mapping].shown}")
            text.setdefault(mapping, {})[entry] = _text(known[mapping], value, listed=False)
        elif name in known and known[name].is_text:
            if name == main_key and name in text:
                raise UsageError(f"{name} is given twice; several are given as {name}=[A,B]")
            is_none = value == "null" and known[name].default is None
            listed = name == main_key or known[name].is_listed
            text[name] = None if is_none else _text(known[name], value, listed=listed)
        elif name in known:
            parsed.append(word)
        elif name in choices:
            if value not in choices[name]:
                hint = f"; a file or folder goes to {name}.path=…" if name == "dataset" else ""
                raise UsageError(f"{name}={value}: choose {' or '.join(choices[name])}{hint}")
            parsed.append(word)
        elif _exists(word) or (match is None and not word.startswith("-")):
            positional.append(word)
        elif match is None:
            raise _unknown_flag(word, known)
        else:
            close = get_close_matches(name, [*known, *choices], 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UsageError(
                f"{verb} has no key {name!r}{hint} (refcocom {verb} --help lists them)"
            )
    if positional:
        if main_key in text:
            raise UsageError(f"{main_key} is given twice: as {positional[0]!r} and as {main_key}=…")
        if len(positional) > 1 and not known[main_key].is_path:
            raise UsageError(f"{verb} takes one {main_key}, not {' '.join(positional)}")
        values = [_text(known[main_key], value, listed=True) for value in positional]
        text[main_key] = values[0] if len(values) == 1 else list(_flat(values))
    composed = _compose(verb, config, parsed)
    for name, value in text.items():
        *parents, last = name.split(".")
        target = composed
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, last, value)
    return composed


def _compose(verb: str, config: type, overrides: list[str]) -> Any:
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    ConfigStore.instance().store(f"{verb}_schema", node=config)
    try:
        # Unlike hydra.main, the compose API makes no working folder and no log files and sets no exit code.
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = compose(verb, overrides)
        return OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException) as error:
        lines = [
            line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()
        ]
        # Hydra gives a word that it cannot parse in one way, a key whose value it refuses in another.
        word = getattr(error, "override", None) or next(
            (o for o in overrides if f"full_key: {o.split('=')[0]}" in lines), None
        )
        raise UsageError(f"{word}: {lines[0]}" if word else lines[0]) from None


def _text(key: Key, value: str, *, listed: bool) -> str | list[Any]:
    """Return a value as given, but expand `~` in paths and read `[a,b]` as a list unless a file has that name."""
    if value == "":
        hint = "; write null for none" if key.default is None else ""
        raise UsageError(f"{key.name} is given no value{hint}")
    if not (key.is_path or listed):
        return value
    if listed and value.startswith("[") and value.endswith("]") and not _exists(value):
        elements = _elements(value[1:-1], nested=key.is_nested)
        if not elements:
            raise UsageError(f"{key.name}={value} names nothing")
        return elements
    return _home(value) if key.is_path else value


def _elements(text: str, *, nested: bool) -> list[Any]:
    """Return the elements between the brackets of a list."""
    elements: list[Any] = []
    at = 0
    while at < len(text):
        inner = _NESTED.match(text, at) if nested else None
        if inner is not None and not _exists(inner[1]):
            elements.append(_elements(inner[1][1:-1], nested=False))
            at = inner.end()
            continue
        match = _ELEMENT.match(text, at)
        assert match is not None  # it matches any text, even an empty one
        at = max(match.end(), at + 1)
        if element := match[1]:
            is_quoted = element[0] in "\"'" and element[-1] == element[0]
            elements.append(_home(element[1:-1] if is_quoted else element))
    return elements


def _home(path: str) -> str:
    """Expand `~`, which the shell leaves alone after `key=`, unless a file has that very name."""
    if path.startswith("~") and not _exists(path):
        path = os.path.expanduser(path)  # noqa: PTH111 (Path's raises for an unknown user)
    # A path that still begins with `~` is made absolute, so that it is not expanded again; Path drops a leading `./`.
    return str(Path(path).absolute()) if str(Path(path)).startswith("~") else path


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 (Path's raises for a name that is too long or a folder that is closed)


def _flat(values: Iterable[str | list[Any]]) -> Iterable[Any]:
    for value in values:
        yield from [value] if isinstance(value, str) else value


def _unknown_flag(word: str, known: dict[str, Key]) -> UsageError:
    if word in {"-m", "--multirun"}:
        return UsageError("-m is not supported: `refcocom sweep` scores many files in one process")
    name = word.lstrip("-").partition("=")[0].replace("-", "_")
    hint = f"{name} is written {name}=…" if name in known else "everything else is key=value"
    return UsageError(
        f"unknown flag {word}; the only flags are --help, --version, --json and -q, {hint}"
    )
