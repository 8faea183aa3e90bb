"""The `refcocom` command: a verb, files and `key=value` words in; a table or JSON, files and an exit code out.

Exit codes: 0 done, 2 wrong usage or configuration, 3 invalid data, 130 interrupted (Ctrl-C), 1 anything else.
Only an unexpected exception, which is 1, prints a traceback.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from refcocom_gpu._version import __version__
from refcocom_gpu.cli.config import VERBS
from refcocom_gpu.cli.failures import as_typed, report
from refcocom_gpu.cli.help import SHORT_FORMS, help_of, overview
from refcocom_gpu.cli.verbs import StdoutClosed, print_, say
from refcocom_gpu.errors import DataError, UsageError

HELP = frozenset({"-h", "--help"})

COLLECT_AFTER = 200_000
"""New objects after which garbage is collected, 700 by default. A warm command makes 150,000, nearly all by imports."""


def command() -> int:
    """Run the command in a process of its own, which ends with it.

    What is imported lives until the end, yet collections of garbage visit it again and again, and once more when Python
    ends: that was a quarter of a warm command. Here they are rare, and the last ones find nothing to visit.
    """
    gc.set_threshold(COLLECT_AFTER)
    try:
        return main()
    finally:
        gc.freeze()


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
    given = words
    wants_help = not HELP.isdisjoint(words)
    if "--version" in words and not wants_help:
        print_(__version__)
        return 0
    words = [word for word in words if word not in HELP]
    # The short forms of keys may come before the verb.
    place = next((k for k, w in enumerate(words) if w not in SHORT_FORMS.values()), None)
    verb = "" if place is None else words.pop(place)
    if verb in {"", "help"}:
        print_(overview())
        return 0 if wants_help or verb else 2
    if verb not in VERBS:
        close = get_close_matches(verb, VERBS, 1)
        hint = f"did you mean {close[0]}?" if close else f"verbs are {', '.join(VERBS)}"
        raise UsageError(f"unknown verb {verb!r}; {hint} (refcocom --help)")
    if wants_help:
        folders = [word.partition("=")[2] for word in words if word.startswith("config_dir=")]
        print_(help_of(verb, *folders[-1:]))
        return 0
    from refcocom_gpu.cli.overrides import parse

    config = parse(verb, words)
    # A failure is reported as the words of the command ask; a file of keys may ask the same.
    given += [f"{key}={getattr(config, key, False)}" for key in ("json", "quiet")]
    import_module(f"refcocom_gpu.cli.verbs.{verb}").run(config)
    return 0


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"warning: {as_typed(str(message)).removeprefix('refcocom: ')}")


if __name__ == "__main__":
    sys.exit(command())
