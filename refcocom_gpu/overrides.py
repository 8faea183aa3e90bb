"""`key=value` words from the shell in, a typed config out: Hydra composes, we keep file names away from its parser."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from refcocom_gpu.config import VERBS, conf_dir, groups, keys_of
from refcocom_gpu.errors import UsageError

_OVERRIDE = re.compile(r"([A-Za-z_][\w.]*)=(.*)", re.DOTALL)


def parse(verb: str, words: Sequence[str]) -> Any:
    """Compose the config of a verb.

    Args:
        verb: A key of `VERBS`.
        words: `key=value` overrides and positional values of the verb's main key, in any order.

    Returns:
        An instance of the verb's config class.

    Raises:
        UsageError: For a flag, an unknown key, or a value of a wrong type.
    """
    config, main_key = VERBS[verb]
    known = {k.name: k for k in keys_of(config)}
    choices = groups()
    paths: dict[str, Any] = {}
    plain: list[str] = []
    positional: list[str] = []
    for word in words:
        match = _OVERRIDE.fullmatch(word)
        name, value = match.groups() if match else ("", "")
        if name in known and known[name].is_path:
            paths[name] = _path_value(value, listed=name == main_key)
        elif name in known:
            plain.append(word)
        elif name in choices:
            plain.append(word)
            if value not in choices[name]:
                hint = f"; a file or folder goes to {name}.path=…" if name == "dataset" else ""
                raise UsageError(f"{name}={value}: choose {' or '.join(choices[name])}{hint}")
        elif match is None or Path(word).exists():
            if word.startswith("-") and not Path(word).exists():
                raise _refuse_flag(word)
            positional.append(word)
        else:
            close = get_close_matches(name, [*known, *choices], 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UsageError(f"{verb} has no key {name!r}{hint} (refcocom {verb} --help lists them)")
    if positional:
        if main_key in paths:
            raise UsageError(f"{main_key} is given twice: as {positional[0]!r} and as {main_key}=…")
        if known[main_key].is_path:
            paths[main_key] = positional[0] if len(positional) == 1 else positional
        elif len(positional) == 1:
            plain.append(f"{main_key}={positional[0]}")
        else:
            raise UsageError(f"{verb} takes one {main_key}, not {' '.join(positional)}")
    composed = _compose(verb, config, plain)
    for name, value in paths.items():
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
        # The compose API, not hydra.main: no working folder, no log files, no exit codes of its own.
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = compose(verb, overrides)
        return OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException) as error:
        lines = [line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()]
        said = next((o for o in overrides if o.split("=")[0] in str(error)), "")
        raise UsageError(f"{said + ': ' if said else ''}{lines[0]}") from None


def _path_value(value: str, *, listed: bool) -> str | list[str] | None:
    """A file name as the shell gave it; `null` is none, and `[a,b]` a list unless a file has that name."""
    if value == "null":
        return None
    if value == "":
        raise UsageError("a path key was given no value; write null for none")
    if listed and value.startswith("[") and value.endswith("]") and not Path(value).exists():
        inner = value[1:-1]
        quote = "'" if "'" in inner else '"'
        return [entry for entry in next(csv.reader([inner], quotechar=quote, skipinitialspace=True), [])]
    return value


def _refuse_flag(word: str) -> UsageError:
    if word in {"-m", "--multirun"}:
        return UsageError("-m is not supported: `refcocom sweep` scores many files in one process")
    return UsageError(f"unknown flag {word}; the only flag is --help, everything else is key=value")
