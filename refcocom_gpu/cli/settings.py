"""A YAML file of keys in; what it gives, in the form in which the words of the command line are kept, out.

A value means what it would mean on the command line, and is checked in the same places. The file is parsed but no
object is made of it, so no tag can run code; of OmegaConf's interpolations, `${oc.env:NAME}` alone is resolved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refcocom_gpu.cli.config import VERBS, Key, SourceKeys, keys_of
from refcocom_gpu.cli.paths import home
from refcocom_gpu.errors import UsageError

if TYPE_CHECKING:
    import yaml

VERB = "verb"
"""The key of a file that names the verb that it is for, if it does."""

_YAML = "tag:yaml.org,2002:"
_PLAIN = {_YAML + kind for kind in ("str", "int", "float", "bool", "null", "timestamp", "value")}
_OTHER_INTERPOLATION = re.compile(r"(?<!\\)(?:\\\\)*\$\{(?!oc\.env:)")


@dataclass
class Given:
    """What one source of keys gives.

    Attributes:
        text: Values of keys that Hydra does not parse, and entries of keys that are mappings.
        words: For each other key, the override that Hydra parses.
        groups: The chosen name of each group.
        where: For each of these keys, the file and line that an error names; nothing for the command line.
    """

    text: dict[str, Any] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)

    def update(self, other: Given) -> None:
        """Let another source win, whose choice of a group replaces all keys of that group."""
        for group in other.groups:
            for part in (self.text, self.words):
                for name in [n for n in part if n.startswith(f"{group}.")]:
                    del part[name]
        for name, value in other.text.items():
            mine = self.text.get(name)
            if isinstance(mine, dict) and isinstance(value, dict):
                value = {**mine, **value}
            self.text[name] = value
        self.words |= other.words
        self.groups |= other.groups
        self.where = {**{k: v for k, v in self.where.items() if not other.has(k)}, **other.where}

    def has(self, name: str) -> bool:
        """Return whether this source gives a key or chooses a group."""
        return name in self.text or name in self.words or name in self.groups


def unknown_key(verb: str, name: str, names: Mapping[str, Any]) -> UsageError:
    """Return the error about a key that a verb does not have; the caller raises it.

    Args:
        verb: A key of `VERBS`.
        name: The unknown key.
        names: The keys and groups that there are.
    """
    bare = name.lstrip("+~")
    others = [
        v for v, (c, _) in VERBS.items() if v != verb and bare in {k.name for k in keys_of(c)}
    ]
    if close := get_close_matches(name, names, 1):
        hint = f"; did you mean {close[0]}?"
    else:
        hint = f"; it is a key of {', '.join(others)}" if others else ""
    return UsageError(f"{verb} has no key {name!r}{hint} (refcocom {verb} --help lists them)")


def read_settings(
    path: str | Path, verb: str, groups: Mapping[str, Any], *, group: str = ""
) -> Given:
    """Read the keys that a file gives.

    Args:
        path: A YAML file.
        verb: The verb that is run.
        groups: The groups of the verb.
        group: The file is one of this group: its keys are those below the group's name.

    Raises:
        UsageError: The file cannot be read or is not YAML; a key is unknown, given twice, or has a value of another
            kind. The message names the file and the line.
    """
    given = Given()
    keys = {key.name: key for key in keys_of(VERBS[verb][0])}
    own = {key.name for key in keys_of(SourceKeys)}
    lines: dict[str, int] = {}
    for name, node in _entries(_root(path), f"{group}." if group else "", keys, groups, path):
        where = f"{path}, line {node.start_mark.line + 1}: "
        if name in lines:
            raise UsageError(f"{where}{name} is given in line {lines[name]} too")
        lines[name] = node.start_mark.line + 1
        try:
            if name == VERB and not group:
                if (of := _scalar(name, node)) != verb:
                    raise UsageError(f"these are keys of refcocom {of}, not of {verb}")
                continue
            if name in own:
                raise UsageError(f"{name}= stands on the command line, not in a file")
            _put(given, name, node, verb, keys, groups)
        except UsageError as error:
            raise UsageError(f"{where}{error}") from None
        given.where[name] = where
    return given


def _root(path: str | Path) -> yaml.Node | None:
    import yaml

    from refcocom_gpu.utils.files import regular

    try:
        content = regular(Path(path)).read_bytes()
        return yaml.compose(content, Loader=yaml.SafeLoader)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"no keys can be read from {path}: {reason}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{path}{line}: this is not YAML: {error.problem or error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else "unreadable"
        raise UsageError(f"{path}: this is not YAML: {reason}") from None


def _entries(
    node: yaml.Node | None,
    prefix: str,
    keys: Mapping[str, Key],
    groups: Mapping[str, Any],
    path: str | Path,
) -> Iterator[tuple[str, yaml.Node]]:
    """Yield dotted names with their values; a mapping of values is entered where keys may have its name before them."""
    import yaml

    if node is None or (node.tag == f"{_YAML}null" and not prefix):
        return  # nothing but comments
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(
            f"{path}, line {node.start_mark.line + 1}: this is not a mapping of keys to values, such as threads: 4"
        )
    for key, value in node.value:
        name = f"{prefix}{key.value}" if isinstance(key, yaml.ScalarNode) else ""
        is_mapping = name in keys and keys[name].is_mapping
        if isinstance(value, yaml.MappingNode) and (name in groups or is_mapping):
            yield from _entries(value, f"{name}.", keys, groups, path)
        elif not name or isinstance(value, yaml.MappingNode):
            known = f"{name} takes one value" if name in keys else f"there is no group {name!r}"
            raise UsageError(f"{path}, line {key.start_mark.line + 1}: {known}, not a mapping")
        else:
            yield name, value


def _put(
    given: Given,
    name: str,
    node: yaml.Node,
    verb: str,
    keys: Mapping[str, Key],
    groups: Mapping[str, Any],
) -> None:
    import yaml

    # The name of an entry is the user's, and may have dots of its own.
    mapping, _, entry = name.partition(".")
    if entry and mapping in keys and keys[mapping].is_mapping:
        given.text.setdefault(mapping, {})[entry] = _scalar(name, node)
        return
    if name in groups:
        given.groups[name] = _scalar(name, node)
        return
    if name not in keys:
        raise unknown_key(verb, name, {**keys, **groups})
    key = keys[name]
    is_list = isinstance(node, yaml.SequenceNode)
    if key.is_mapping:
        if node.tag != f"{_YAML}null":
            raise UsageError(f"{name} is a mapping, such as {name}: {{OURS: THEIRS}}")
        given.text[name] = None
    elif not key.is_text:
        values = [_number(name, n) for n in (node.value if is_list else [node])]
        given.words[name] = f"{name}=[{','.join(values)}]" if is_list else f"{name}={values[0]}"
    elif not is_list:
        is_null = node.tag == f"{_YAML}null" and key.default is None
        given.text[name] = None if is_null else _text(key, node)
    elif not (key.is_listed or name == VERBS[verb][1]):
        raise UsageError(f"{name} takes one value, not a list")
    elif not node.value:
        raise UsageError(f"{name} names nothing")
    else:
        given.text[name] = [_element(key, element) for element in node.value]


def _element(key: Key, node: yaml.Node) -> Any:
    import yaml

    if key.is_nested and isinstance(node, yaml.SequenceNode) and node.value:
        return [_text(key, element) for element in node.value]
    return _text(key, node)


def _text(key: Key, node: yaml.Node) -> str:
    value = _scalar(key.name, node)
    if value == "":
        hint = "; write null for none" if key.default is None else ""
        raise UsageError(f"{key.name} is given no value{hint}")
    return home(value) if key.is_path else value


def _number(name: str, node: yaml.Node) -> str:
    """Return a value that Hydra parses."""
    if node.tag == f"{_YAML}null":
        return "null"
    value = _scalar(name, node)
    if "${" in value:
        raise UsageError(f"{name}={value} is not resolved")
    return value


def _scalar(name: str, node: yaml.Node) -> str:
    """Return a value as it is written, with the environment in it resolved."""
    import yaml

    if not isinstance(node, yaml.ScalarNode):
        raise UsageError(f"{name} takes text or a number here, not {node.id}")
    if node.tag not in _PLAIN:
        raise UsageError(f"{name} has the tag {node.tag.removeprefix(_YAML)}; values have no tags")
    value: str = node.value
    return _resolved(name, value) if "${" in value else value


def _resolved(name: str, value: str) -> str:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if _OTHER_INTERPOLATION.search(value):
        raise UsageError(
            f"{name}={value}: of interpolations, ${{oc.env:NAME}} and ${{oc.env:NAME,DEFAULT}} are resolved; "
            "write \\${ for the characters themselves"
        )
    try:
        resolved = OmegaConf.create({"value": value}).value
    except OmegaConfBaseException as error:
        raise UsageError(f"{name}={value}: {str(error).splitlines()[0]}") from None
    return "null" if resolved is None else str(resolved)


def escaped(text: str) -> str:
    r"""Return text in which nothing is resolved when it is read back.

    >>> print(escaped("${HOME}"), escaped("a"))
    \${HOME} a
    """
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
