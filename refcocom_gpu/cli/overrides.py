"""`key=value` words from the shell, and the files that they name, in; a typed config out.

Hydra composes groups and checks numbers and switches. Text and file names never reach its parser, so all of them work
unquoted, also with `é`, spaces, `=`, `,`, `(`, `[` and `${`, and a commit `1e10` is not taken for a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from refcocom_gpu.cli.config import VERBS, Key, SourceKeys, conf_dir, keys_of
from refcocom_gpu.cli.groups import group_files, own_files
from refcocom_gpu.cli.paths import exists, home
from refcocom_gpu.cli.settings import Given, read_settings, unknown_key
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
        UsageError: For a flag, an unknown key, a value of the wrong type, or a file of keys that cannot be used.
    """
    config, _ = VERBS[verb]
    words, sources = _without_sources(words)
    files = group_files(config, sources.get("config_dir"))
    typed = _typed(verb, words, files)
    given = Given()
    if "config" in sources:
        given = read_settings(sources["config"], verb, files)
    given.update(typed)
    for group, name in given.groups.items():
        if name not in files[group]:
            hint = f"; a file or folder goes to {group}.path=…" if group == "dataset" else ""
            where = given.where.get(group, "")
            raise UsageError(f"{where}{group}={name}: choose {' or '.join(files[group])}{hint}")
    # The user's own groups are files of keys; Hydra composes the packaged ones.
    own = Given()
    for group, of_group in files.items():
        paths = own_files(group, of_group)
        if (path := paths.get(given.groups.get(group, ""))) is not None:
            own.update(read_settings(path, verb, files, group=group))
            del given.groups[group]
    own.update(given)
    choices = [f"{group}={name}" for group, name in own.groups.items()]
    composed = _compose(verb, config, [*choices, *own.words.values()], own.where)
    for name, value in own.text.items():
        *parents, last = name.split(".")
        target = composed
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, last, value)
    return composed


def _without_sources(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the words that remain without the keys that say where others are read, and these."""
    known = {key.name: key for key in keys_of(SourceKeys)}
    sources: dict[str, str] = {}
    others = []
    for word in words:
        name, _, value = word.partition("=")
        if name not in known or "=" not in word:
            others.append(word)
        elif name in sources:
            raise UsageError(
                f"{name} is given twice: {name}={sources[name]} and {word}; one file may hold all keys"
                if name == "config"
                else f"{name} is given twice: {name}={sources[name]} and {word}"
            )
        else:
            sources[name] = str(_text(known[name], value, listed=False))
    return others, sources


def _typed(verb: str, words: Sequence[str], choices: Mapping[str, Any]) -> Given:
    """Return what the words of the command line give."""
    config, main_key = VERBS[verb]
    known = {k.name: k for k in keys_of(config)}
    given = Given()
    text = given.text
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
            given.words[name] = word
        elif name in choices:
            given.groups[name] = value
        elif exists(word) or (match is None and not word.startswith("-")):
            positional.append(word)
        elif match is None:
            raise _unknown_flag(word, known)
        else:
            raise unknown_key(verb, name, {**known, **choices})
    if positional:
        if main_key in text:
            raise UsageError(f"{main_key} is given twice: as {positional[0]!r} and as {main_key}=…")
        if len(positional) > 1 and not known[main_key].is_path:
            raise UsageError(f"{verb} takes one {main_key}, not {' '.join(positional)}")
        values = [_text(known[main_key], value, listed=True) for value in positional]
        text[main_key] = values[0] if len(values) == 1 else list(_flat(values))
    return given


def _compose(verb: str, config: type, overrides: list[str], where: Mapping[str, str]) -> Any:
    if not overrides:
        # What Hydra composes of the files in `conf/`. Importing and running it takes a quarter of a warm command.
        return config()
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
        place = where.get(word.split("=")[0], "") if word else ""
        raise UsageError(f"{place}{word}: {lines[0]}" if word else lines[0]) from None


def _text(key: Key, value: str, *, listed: bool) -> str | list[Any]:
    """Return a value as given, but expand `~` in paths and read `[a,b]` as a list unless a file has that name."""
    if value == "":
        hint = "; write null for none" if key.default is None else ""
        raise UsageError(f"{key.name} is given no value{hint}")
    if not (key.is_path or listed):
        return value
    if listed and value.startswith("[") and value.endswith("]") and not exists(value):
        elements = _elements(value[1:-1], nested=key.is_nested)
        if not elements:
            raise UsageError(f"{key.name}={value} names nothing")
        return elements
    return home(value) if key.is_path else value


def _elements(text: str, *, nested: bool) -> list[Any]:
    """Return the elements between the brackets of a list."""
    elements: list[Any] = []
    at = 0
    while at < len(text):
        inner = _NESTED.match(text, at) if nested else None
        if inner is not None and not exists(inner[1]):
            elements.append(_elements(inner[1][1:-1], nested=False))
            at = inner.end()
            continue
        match = _ELEMENT.match(text, at)
        assert match is not None  # it matches any text, even an empty one
        at = max(match.end(), at + 1)
        if element := match[1]:
            is_quoted = element[0] in "\"'" and element[-1] == element[0]
            elements.append(home(element[1:-1] if is_quoted else element))
    return elements


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
