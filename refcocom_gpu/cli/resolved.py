"""The config of a verb in; the content of `config.yaml` out, which `config=` reads back into an equal config."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from refcocom_gpu._version import __version__
from refcocom_gpu.cli.config import OUTPUT_KEYS, VERBS
from refcocom_gpu.cli.settings import VERB, escaped
from refcocom_gpu.utils.run_config import HEAD


def resolved(config: Any) -> bytes:
    r"""Return all keys of a config with their values, defaults included, as YAML.

    Values of the environment are written as they were resolved. No key of this package is a secret: tokens of the Hub
    and of storage are read by their libraries, from the environment and files of theirs.

    >>> from refcocom_gpu.cli.config import CacheConfig
    >>> print(resolved(CacheConfig()).decode().partition("\n")[2])  # doctest: +ELLIPSIS
    verb: cache
    action: list
    dataset:
      name: moondream/refcoco-m
    ...
    """
    import yaml

    verb, main_key = next(
        (verb, main_key) for verb, (kind, main_key) in VERBS.items() if kind is type(config)
    )
    keys = asdict(config)
    order = sorted(keys, key=lambda name: (name in OUTPUT_KEYS, name != main_key))
    content = {VERB: verb, **{name: _escaped(keys[name]) for name in order}}
    text: str = yaml.dump(content, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=100)
    head = f"{__version__}; refcocom {verb} config=THIS_FILE output_dir=DIR repeats it.\n"
    return HEAD + (head + text).encode()


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, dict):
        return {name: _escaped(inner) for name, inner in value.items()}
    return [_escaped(inner) for inner in value] if isinstance(value, list | tuple) else value


BREAKS = "\x85\u2028\u2029"
"""Line breaks of YAML that stand for themselves in no style but between double quotes."""


def _dumper() -> Any:
    """Return a dumper whose texts are read back as they were."""
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        pass

    def text(dumper: Any, value: str) -> Any:
        style = '"' if any(character in value for character in BREAKS) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return Dumper
