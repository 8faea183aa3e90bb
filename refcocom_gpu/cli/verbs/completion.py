"""`refcocom completion SHELL`: a config in; a script for that shell on stdout."""

from __future__ import annotations

from refcocom_gpu.cli.completion import SCRIPTS
from refcocom_gpu.cli.config import CompletionConfig
from refcocom_gpu.cli.verbs import print_
from refcocom_gpu.errors import UsageError


def run(config: CompletionConfig) -> None:
    """Print the script.

    Raises:
        UsageError: No shell, or one without a script.
    """
    if config.shell not in SCRIPTS:
        given = "" if config.shell is None else f", not {config.shell!r}"
        raise UsageError(f"completion takes a shell, {' or '.join(SCRIPTS)}{given}")
    print_(SCRIPTS[config.shell]())
