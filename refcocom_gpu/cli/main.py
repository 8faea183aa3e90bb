"""The `refcocom` command: a verb, files and `key=value` words in; a table or JSON, files and an exit code out.

Exit codes: 0 done, 2 wrong usage or configuration, 3 invalid data, 130 interrupted (Ctrl-C), 1 anything else.
Only an unexpected exception, which is 1, prints a traceback.
"""

from __future__ import annotations

import sys
import textwrap
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from refcocom_gpu._version import __version__
from refcocom_gpu.cli.config import OUTPUT_KEYS, VERBS, groups, keys_of
from refcocom_gpu.cli.failures import as_typed, report
from refcocom_gpu.cli.verbs import StdoutClosed, print_, say
from refcocom_gpu.errors import DataError, UsageError

HELP_WIDTH = 100
EXIT_CODES = "Exit codes: 0 done, 2 usage, 3 data, 130 interrupted, 1 other."

HELP = frozenset({"-h", "--help"})
SHORT_FORMS = {"--json": "json=true", "-q": "quiet=true"}
"""Flags that stand for a key. A flag may stand anywhere; a file of its name is written `./-q`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Words after `refcocom`; those of the process by default.

    Returns:
        The exit code.
    """
    words = [SHORT_FORMS.get(w, w) for w in (sys.argv[1:] if argv is None else argv)]
    # On a terminal that cannot print × or ≥, a score must not end in a traceback.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        # These are for the authors of libraries, not for users of a command.
        for category in (
            DeprecationWarning,
            PendingDeprecationWarning,
            FutureWarning,
            ResourceWarning,
        ):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = _show_warning
        try:
            return _run(words)
        except UsageError as error:
            return report(error, str(error), 2, words)
        except DataError as error:
            return report(error, str(error), 3, words)
        except StdoutClosed:
            return 1
        except KeyboardInterrupt as interrupt:
            return report(interrupt, "interrupted", 130, words)
        except Exception as error:
            # The user can mend an error about a file. Any other is a bug and keeps its traceback.
            if isinstance(error, OSError) and error.filename is not None:
                return report(error, f"{error.strerror}: {error.filename}", 2, words)
            report(error, f"{type(error).__name__}: {error}", 1, words)
            raise


def _run(words: list[str]) -> int:
    wants_help = not HELP.isdisjoint(words)
    if "--version" in words and not wants_help:
        print_(__version__)
        return 0
    words = [word for word in words if word not in HELP]
    # The short forms of keys may come before the verb.
    place = next((k for k, w in enumerate(words) if w not in SHORT_FORMS.values()), None)
    verb = "" if place is None else words.pop(place)
    if verb in {"", "help"}:
        print_(_overview())
        return 0 if wants_help or verb else 2
    if verb not in VERBS:
        close = get_close_matches(verb, VERBS, 1)
        hint = f"did you mean {close[0]}?" if close else f"verbs are {', '.join(VERBS)}"
        raise UsageError(f"unknown verb {verb!r}; {hint} (refcocom --help)")
    if wants_help:
        print_(_help(verb))
        return 0
    from refcocom_gpu.cli.overrides import parse

    import_module(f"refcocom_gpu.cli.verbs.{verb}").run(parse(verb, words))
    return 0


def _overview() -> str:
    lines = [
        "refcocom VERB [files…] [key=value …]",
        "",
        "The exact batch scorer for RefCOCO-M.",
        "",
    ]
    width = max(map(len, VERBS)) + 2
    lines += [
        f"  {verb:<{width}}{(config.__doc__ or '').strip()}" for verb, (config, _) in VERBS.items()
    ]
    return "\n".join(
        [*lines, "", "refcocom VERB --help lists the keys of a verb.", _flags({"json", "quiet"})]
    )


def _flags(keys: set[str]) -> str:
    """Return the line of help about flags, for the verbs that have these keys."""
    short = [
        f"{flag} for {word}" for flag, word in SHORT_FORMS.items() if word.split("=")[0] in keys
    ]
    return f"Flags, anywhere: {', '.join([*short, '--help or -h', '--version'])}."


def _help(verb: str) -> str:
    """Describe every key with its default and meaning; imports neither Hydra nor torch."""
    config, main_key = VERBS[verb]
    lines = [f"refcocom {verb} [{main_key}…] [key=value …]", "", (config.__doc__ or "").strip(), ""]
    rows = [
        (f"{group}={'|'.join(options)}", "a whole group at once")
        for group, options in groups(config).items()
    ]
    # The main key comes first and what becomes of the result last, the others in the order of the config.
    keys = sorted(keys_of(config), key=lambda key: (key.name in OUTPUT_KEYS, key.name != main_key))
    rows += [(key.shown, key.meaning) for key in keys]
    width = max(len(key.shown) for key in keys) + 2
    for left, meaning in rows:
        first, *others = textwrap.wrap(meaning, HELP_WIDTH - width - 2)
        if len(left) < width:
            first = f"{left:<{width}}{first}"
        else:  # a group of many options stands above its meaning
            first, others = left, [first, *others]
        lines += [f"  {first}", *(" " * (width + 2) + line for line in others)]
    flags = _flags({key.name for key in keys})
    lines += ["", f"{main_key} may stand without its name.", flags, EXIT_CODES]
    return "\n".join(lines)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"warning: {as_typed(str(message)).removeprefix('refcocom: ')}")


if __name__ == "__main__":
    sys.exit(main())
