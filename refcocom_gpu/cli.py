"""The `refcocom` command: a verb, files and `key=value` words in; a table, files and an exit code out.

Exit codes: 0 done, 2 wrong usage or configuration, 3 invalid data, 130 interrupted (Ctrl-C), 1 anything else.
Only an unexpected exception, which is 1, prints a traceback.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refcocom_gpu import __version__
from refcocom_gpu.config import (
    VERBS,
    CacheConfig,
    CompareConfig,
    DatasetConfig,
    ScoreConfig,
    groups,
    keys_of,
)
from refcocom_gpu.errors import DataError, UsageError

if TYPE_CHECKING:
    from refcocom_gpu.dataset import Dataset

HELP_WIDTH = 100
EXIT_CODES = "Exit codes: 0 done, 2 usage, 3 data, 130 interrupted, 1 other."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Words after `refcocom`; those of the process by default.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # A terminal that cannot print × or ≥ must not turn a score into a traceback.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        # Of use to the authors of libraries, not to whoever runs a command.
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
            _say(f"refcocom: {error}")
            return 2
        except DataError as error:
            _say(f"refcocom: {error}")
            return 3
        except OSError as error:
            # A file that was named and cannot be read; without a name it is nothing the caller could mend.
            if error.filename is None:
                raise
            _say(f"refcocom: {error.strerror}: {error.filename}")
            return 2
        except _StdoutClosed:
            return 1
        except KeyboardInterrupt:
            _say("refcocom: interrupted")
            return 130


class _StdoutClosed(Exception):  # noqa: N818 (no error: `refcocom … | head` has seen enough)
    """Nobody reads what is printed any more."""


def _run(words: list[str]) -> int:
    verb = words[0] if words else ""
    if verb in {"", "--help", "-h", "help"}:
        _print(_overview())
        return 0 if words else 2
    if verb == "--version":
        _print(__version__)
        return 0
    if verb not in VERBS:
        close = get_close_matches(verb, VERBS, 1)
        hint = f"did you mean {close[0]}?" if close else f"verbs are {', '.join(VERBS)}"
        raise UsageError(f"unknown verb {verb!r}; {hint} (refcocom --help)")
    if any(word in {"--help", "-h"} for word in words[1:]):
        _print(_help(verb))
        return 0
    from refcocom_gpu.overrides import parse

    config = parse(verb, words[1:])
    verbs: dict[str, Callable[[Any], None]] = {
        "score": _score,
        "compare": _compare,
        "cache": _cache,
    }
    verbs[verb](config)
    return 0


def _score(config: ScoreConfig) -> None:
    from refcocom_gpu.devices import resolve_device
    from refcocom_gpu.publish import check_path, write_eval_results
    from refcocom_gpu.results import check_output
    from refcocom_gpu.scorer import score
    from refcocom_gpu.store import MaskStore
    from refcocom_gpu.table import score_table

    if config.predictions is None:
        raise UsageError(
            "no predictions: refcocom score PREDS (refcocom score --help lists the keys)"
        )
    if config.precision not in {"ge", "gt"}:
        raise UsageError(f"precision must be ge or gt, not {config.precision!r}")
    _check_threads(config.threads)
    output = None if config.output_dir is None else Path(config.output_dir)
    if output is not None:
        check_output(output, overwrite=config.overwrite)
    published = None if config.eval_results is None else Path(config.eval_results)
    if published is not None:
        check_path(published, overwrite=config.overwrite)
    device = resolve_device(config.device)
    dataset = _load(config.dataset)
    store = MaskStore.build(dataset, threads=config.threads).to(device)
    with _progress(dataset.n_examples, shown=not (config.quiet or config.json)) as progress:
        result = score(
            config.predictions,
            store,
            missing=config.missing,
            convention=config.convention,
            precision_strict=config.precision == "gt",
            values=config.values,
            letterbox=config.letterbox,
            resize=config.resize,
            polygons=config.polygons,
            batch_size=config.batch_size,
            threads=config.threads,
            progress=progress,
        )
    written: list[Path] = []
    if output is not None:
        result.save(output, overwrite=config.overwrite)
        written += [output / "summary.json", output / "per_example.parquet"]
    if published is not None:
        name = None if config.dataset.path is None else config.dataset.name
        write_eval_results(result, published, dataset_id=name, overwrite=config.overwrite)
        written.append(published)
    if config.quiet:
        return
    if config.json:
        # ASCII, so that no terminal or pipe can turn a name into something else.
        _print(json.dumps(result.summary(), indent=2))
        return
    _print(score_table(result))
    if written:
        _print("\nWrote " + "\n      ".join(map(str, written)))
    else:
        _print(
            "\nNothing was written; output_dir=DIR keeps the summary and every example's counts."
        )


def _compare(config: CompareConfig) -> None:
    from refcocom_gpu.verbs.compare import run

    _check_threads(config.threads)
    said = run(config, load=_load, progress=_progress)
    if not config.quiet:
        _print(said)


def _check_threads(threads: int) -> None:
    if threads < 0:
        raise UsageError(f"threads must be 0 (all cores) or more, not {threads}")


def _load(config: DatasetConfig) -> Dataset:
    from refcocom_gpu.dataset import KEY_KINDS, load_dataset

    if config.key not in KEY_KINDS:
        raise UsageError(f"dataset.key must be {' or '.join(KEY_KINDS)}, not {config.key!r}")
    source: str | Path = config.name
    if config.path is not None:
        source = Path(config.path)
        if not os.path.exists(source):  # noqa: PTH110 (Path's raises where a name is too long)
            raise UsageError(f"no file or folder at dataset.path={source}")
    return load_dataset(
        source,
        revision=config.revision,
        split=config.split,
        key=config.key,  # type: ignore[arg-type]
    )


def _cache(config: CacheConfig) -> None:
    from refcocom_gpu.cache import cache_dir, clear, entries

    root = cache_dir()
    said = ""
    if config.action == "path":
        said = str(root)
    elif config.action == "list":
        said = "\n".join(f"{_megabytes(entry):10.1f} MB  {entry}" for entry in entries())
        said = said or f"nothing is cached in {root}"
    elif config.action == "build":
        from refcocom_gpu.store import MaskStore

        _check_threads(config.threads)
        store = MaskStore.build(_load(config.dataset), threads=config.threads)
        store.pack()
        said = f"{store!r}\n{store.folder}"
    elif config.action == "clear":
        freed = sum(_megabytes(entry) for entry in entries())
        try:
            clear()
        except OSError as error:
            raise UsageError(f"cannot clear {root}: {error}") from None
        said = f"cleared {freed:.1f} MB from {root}"
    else:
        raise UsageError(f"action must be list, path, build or clear, not {config.action!r}")
    if not config.quiet:
        _print(said)


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


@contextlib.contextmanager
def _progress(total: int, *, shown: bool) -> Iterator[Callable[[int], None] | None]:
    if not (shown and sys.stderr is not None and sys.stderr.isatty()):
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=" examples", leave=False, delay=0.5) as bar:
        yield bar.update


def _overview() -> str:
    lines = [
        "refcocom VERB [files…] [key=value …]",
        "",
        "The exact batch scorer for RefCOCO-M.",
        "",
    ]
    lines += [f"  {verb:<8}{(config.__doc__ or '').strip()}" for verb, (config, _) in VERBS.items()]
    return "\n".join([*lines, "", "refcocom VERB --help lists the keys of a verb."])


def _help(verb: str) -> str:
    """Every key with its default and meaning; imports neither Hydra nor torch."""
    config, main_key = VERBS[verb]
    lines = [f"refcocom {verb} [{main_key}…] [key=value …]", "", (config.__doc__ or "").strip(), ""]
    rows = [
        (f"{group}={'|'.join(options)}", "a whole group at once")
        for group, options in groups(config).items()
    ]
    rows += [(key.shown, key.meaning) for key in keys_of(config)]
    width = max(len(left) for left, _ in rows) + 2
    for left, meaning in rows:
        first, *others = textwrap.wrap(meaning, HELP_WIDTH - width - 2)
        lines += [f"  {left:<{width}}{first}", *(" " * (width + 2) + line for line in others)]
    lines += ["", f"{main_key} may stand without its name.", EXIT_CODES]
    return "\n".join(lines)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {str(message).removeprefix('refcocom: ')}")


def _say(text: str) -> None:
    # None where the process was started with its errors closed.
    if sys.stderr is not None:
        sys.stderr.write(f"{text}\n")


def _print(text: str) -> None:
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain once more while it shuts down and flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise _StdoutClosed from None


if __name__ == "__main__":
    sys.exit(main())
