"""The configs of verbs in; for each shell a script that completes them out.

The scripts hold every verb, key and choice, so that completing starts no Python: TAB answers at once. A new group file
of the user's own is completed once the script is made again, as `source <(refcocom completion bash)` does in any shell.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from typing import NamedTuple

from refcocom_gpu.cli.config import VERBS, Key, SourceKeys, keys_of
from refcocom_gpu.cli.groups import group_files
from refcocom_gpu.cli.help import SHORT_FORMS

_SAFE = re.compile(r"[\w.+@-]+")
"""Names of group files that are completed: bash expands what it completes, `$(…)` too."""

FLAGS = ("--help", "--version", *SHORT_FORMS)


class Verb(NamedTuple):
    """What can follow a verb.

    Attributes:
        meaning: Its first sentence.
        keys: Every key and group, in the order of the config.
        values: The words that a key takes, for keys that take some.
        paths: Keys whose values are file names.
        main_values: The words that may stand without the name of the main key.
        takes_files: Whether file names may.
    """

    meaning: str
    keys: tuple[str, ...]
    values: dict[str, tuple[str, ...]]
    paths: tuple[str, ...]
    main_values: tuple[str, ...]
    takes_files: bool


def verbs() -> dict[str, Verb]:
    """Return what can follow each verb, from the configs that `--help` prints.

    >>> verbs()["score"].values["missing"], verbs()["cache"].main_values
    (('error', 'zero'), ('list', 'path', 'build', 'clear'))
    """
    described = {}
    for verb, (config, main_key) in VERBS.items():
        known = [*keys_of(config), *keys_of(SourceKeys)]
        found = {
            group: tuple(filter(_SAFE.fullmatch, names))
            for group, names in group_files(config).items()
        }
        values = {**found, **{key.name: key.choices for key in known if key.choices}}
        main = next(key for key in known if key.name == main_key)
        described[verb] = Verb(
            (config.__doc__ or "").strip(),
            (*found, *map(_typed, known)),
            values,
            tuple(key.name for key in known if key.is_path),
            main.choices,
            main.is_path,
        )
    return described


def _typed(key: Key) -> str:
    """Return how a key is typed, up to its value; the names of a mapping are the user's."""
    return f"{key.name}." if key.is_mapping else key.name


def _words(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))


def _assigned(keys: tuple[str, ...]) -> list[str]:
    return [key if key.endswith(".") else f"{key}=" for key in keys]


def bash() -> str:
    """Return the script for bash.

    Bash breaks words at `=` and `:`, and wants what follows the last of them; the script puts the words together first.
    """
    keys, values = [], []
    for name, verb in verbs().items():
        files = "files=1; " if verb.takes_files else ""
        words = _words([*_assigned(verb.keys), *verb.main_values])
        keys.append(f"        {name}) {files}words={words} ;;")
        values += [f"        {name}:{key}) words={_words(v)} ;;" for key, v in verb.values.items()]
        paths = "|".join(f"{name}:{key}" for key in verb.paths)
        values.append(f"        {paths}) files=1 ;;")
    return _BASH.format(
        verbs=_words(VERBS),
        flags=_words(FLAGS),
        keys="\n".join(keys),
        values="\n".join(values),
    )


_BASH = """\
# Completes refcocom in bash: source <(refcocom completion bash)
_refcocom() {{
    local part joined= verb= words= files= cur= value
    local -a typed=()
    for part in "${{COMP_WORDS[@]:1:COMP_CWORD}}"; do
        if [[ $joined || ( $part =~ ^[=:]+$ && ${{#typed[@]}} -gt 0 ) ]]; then
            typed[${{#typed[@]}}-1]+=$part
        else
            typed+=("$part")
        fi
        [[ $part =~ ^[=:]+$ ]] && joined=1 || joined=
    done
    (( ${{#typed[@]}} )) && cur=${{typed[${{#typed[@]}}-1]}} && unset "typed[${{#typed[@]}}-1]"
    for part in "${{typed[@]}}"; do
        [[ $part != -* ]] && verb=$part && break
    done
    value=$cur
    if [[ ! $verb ]]; then
        words={verbs}
    elif [[ $cur == *=* ]]; then
        value=${{cur#*=}}
        case $verb:${{cur%%=*}} in
{values}
        esac
    else
        case $verb in
{keys}
        esac
    fi
    [[ $cur == -* ]] && words={flags}
    COMPREPLY=()
    if [[ $words ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$value")
        [[ ${{COMPREPLY[0]}} == *[=.] ]] && compopt -o nospace 2>/dev/null
    fi
    if [[ $files && ( $cur == *=* || ${{#COMPREPLY[@]}} -eq 0 || ! $cur ) ]]; then
        local -a paths=()
        mapfile -t paths < <(compgen -f -- "$value")
        [[ ${{#COMPREPLY[@]}} -eq 0 ]] && compopt -o filenames 2>/dev/null
        COMPREPLY+=("${{paths[@]}}")
    fi
    # What bash replaces begins after the last = or : of the word.
    if [[ $value == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${{COMPREPLY[@]#"${{value%:*}}:"}}")
    fi
}}
complete -F _refcocom refcocom"""


def zsh() -> str:
    """Return the script for zsh: a file `_refcocom` in a folder of `fpath`, or sourced after `compinit`."""
    keys, values = [], []
    for name, verb in verbs().items():
        plain = _words([*verb.main_values, *(k for k in _assigned(verb.keys) if k.endswith("."))])
        assigned = _words(k for k in _assigned(verb.keys) if k.endswith("="))
        files = "; _files" if verb.takes_files else ""
        keys.append(f"        {name}) words={assigned}; others={plain}; _refcocom_keys{files} ;;")
        values += [
            f"        {name}:{key}) words={_words(v)}; compadd -- ${{=words}} ;;"
            for key, v in verb.values.items()
        ]
        paths = "|".join(f"{name}:{key}" for key in verb.paths)
        values.append(f"        {paths}) _files ;;")
    described = "\n".join(
        f"        {shlex.quote(f'{name}:{verb.meaning}')}" for name, verb in verbs().items()
    )
    return _ZSH.format(
        described=described,
        flags=_words(FLAGS),
        keys="\n".join(keys),
        values="\n".join(values),
    )


_ZSH = """\
#compdef refcocom
# Completes refcocom in zsh: refcocom completion zsh > "${{fpath[1]}}/_refcocom"
_refcocom_keys() {{
    compadd -S '' -- ${{=words}}
    compadd -- ${{=others}}
}}
_refcocom() {{
    local part verb= words= others= key
    local -a described
    for part in "${{(@)words[2,CURRENT-1]}}"; do
        [[ $part != -* ]] && verb=$part && break
    done
    if [[ $PREFIX == -* ]]; then
        words={flags}
        compadd -- ${{=words}}
    elif [[ -z $verb ]]; then
        described=(
{described}
        )
        _describe verb described
    elif [[ $PREFIX == *=* ]]; then
        key=${{PREFIX%%=*}}
        compset -P '[^=]#='
        case $verb:$key in
{values}
        esac
    else
        case $verb in
{keys}
        esac
    fi
}}
if [[ $funcstack[1] == _refcocom ]]; then
    _refcocom "$@"
else
    compdef _refcocom refcocom
fi"""


def fish() -> str:
    """Return the script for fish, which completes file names after `=` by itself."""
    names = " ".join(VERBS)
    lines = [
        "# Completes refcocom in fish: refcocom completion fish > ~/.config/fish/completions/refcocom.fish",
        f"set -l verbs {names}",
        *(
            f'complete -c refcocom -n "not __fish_seen_subcommand_from $verbs" -f -a {name} -d {_fish(verb.meaning)}'
            for name, verb in verbs().items()
        ),
    ]
    for name, verb in verbs().items():
        seen = f"complete -c refcocom -n '__fish_seen_subcommand_from {name}'"
        files = "" if verb.takes_files else " -f"
        words = [*verb.main_values, *_assigned(verb.keys)]
        words += [f"{key}={value}" for key, of_key in verb.values.items() for value in of_key]
        lines.append(f"{seen}{files} -a {_fish(' '.join(words))}")
    for flag in FLAGS:
        option = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
        lines.append(f"complete -c refcocom {option}")
    return "\n".join(lines)


def _fish(text: str) -> str:
    """Return text in quotes of fish, within which a backslash stands before a quote."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


SCRIPTS: dict[str, Callable[[], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
"""For each shell the function that makes its script."""
