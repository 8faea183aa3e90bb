"""The `refcocom` command: a verb, files and `key=value` words in; a table, files and an exit code out.

Exit codes: 0 done, 2 wrong usage or configuration, 3 invalid data, 1 anything else. 2 and 3 print no traceback.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refcocom_gpu import __version__
from refcocom_gpu.config import VERBS, CacheConfig, DatasetConfig, ScoreConfig, groups, keys_of
from refcocom_gpu.errors import DataError, UsageError

if TYPE_CHECKING:
    from refcocom_gpu.dataset import Dataset


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
        warnings.simplefilter("always")
        warnings.showwarning = _show_warning
        try:
            return _run(words)
        except UsageError as error:
            _say(f"refcocom: {error}")
            return 2
        except DataError as error:
            _say(f"refcocom: {error}")
            return 3
        except BrokenPipeError:
            # `refcocom … | head` closed the pipe; Python would complain once more while it shuts down.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1


def _run(words: list[str]) -> int:
    verb = words[0] if words else ""
    if verb in {"", "--help", "-h", "help"}:
        _print(_overview())
        return 0 if words else 2
    if verb == "--version":
        _print(__version__)
        return 0
    if verb not in VERBS:
        raise UsageError(f"unknown verb {verb!r}; verbs are {', '.join(VERBS)} (refcocom --help)")
    if any(word in {"--help", "-h"} for word in words[1:]):
        _print(_help(verb))
        return 0
    from refcocom_gpu.overrides import parse

    config = parse(verb, words[1:])
    verbs: dict[str, Callable[[Any], None]] = {"score": _score, "cache": _cache}
    verbs[verb](config)
    return 0


def _score(config: ScoreConfig) -> None:
    from refcocom_gpu.results import check_output
    from refcocom_gpu.scorer import score
    from refcocom_gpu.store import MaskStore

    if config.predictions is None:
        raise UsageError("no predictions: refcocom score PREDS (refcocom score --help lists the keys)")
    if config.precision not in {"ge", "gt"}:
        raise UsageError(f"precision must be ge or gt, not {config.precision!r}")
    if config.threads < 0:
        raise UsageError(f"threads must be 0 or more, not {config.threads}")
    output = None if config.output_dir is None else Path(config.output_dir).expanduser()
    if output is not None:
        check_output(output, overwrite=config.overwrite)
    from refcocom_gpu.devices import resolve_device

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
    if output is not None:
        result.save(output, overwrite=config.overwrite)
    if config.json:
        _print(json.dumps(result.summary(), ensure_ascii=False, indent=2))
    elif not config.quiet:
        from refcocom_gpu.table import score_table

        _print(score_table(result))
        if output is None:
            _print("\nNothing was written; output_dir=DIR keeps the summary and every example's counts.")
        else:
            _print(f"\nWrote {output / 'summary.json'}\n      {output / 'per_example.parquet'}")


def _load(config: DatasetConfig) -> Dataset:
    from refcocom_gpu.dataset import KEY_KINDS, load_dataset

    if config.key not in KEY_KINDS:
        raise UsageError(f"dataset.key must be {' or '.join(KEY_KINDS)}, not {config.key!r}")
    source: str | Path = config.name
    if config.path is not None:
        source = Path(config.path).expanduser()
        if not source.exists():
            raise UsageError(f"dataset.path {source} is not there")
    return load_dataset(
        source,
        revision=config.revision,
        split=config.split,
        key=config.key,  # type: ignore[arg-type]
    )


def _cache(config: CacheConfig) -> None:
    from refcocom_gpu.cache import cache_dir

    root = cache_dir()
    if config.action == "path":
        _print(str(root))
    elif config.action == "build":
        from refcocom_gpu.store import MaskStore

        store = MaskStore.build(_load(config.dataset), threads=config.threads)
        store.pack()
        if not config.quiet:
            _print(f"{store!r}\n{store.folder}")
    elif config.action == "list":
        entries = sorted(p for p in root.glob("*/*") if p.is_dir())
        for entry in entries:
            size = sum(p.stat().st_size for p in entry.rglob("*") if p.is_file())
            _print(f"{size / 1e6:10.1f} MB  {entry}")
        if not entries and not config.quiet:
            _print(f"nothing is cached in {root}")
    elif config.action == "clear":
        # Only what this package puts there: a mistyped REFCOCOM_CACHE must not delete somebody's home.
        for name in ("stores", "numba"):
            shutil.rmtree(root / name, ignore_errors=True)
        if not config.quiet:
            _print(f"cleared {root}")
    else:
        raise UsageError(f"action must be list, path, build or clear, not {config.action!r}")


@contextlib.contextmanager
def _progress(total: int, *, shown: bool) -> Iterator[Callable[[int], None] | None]:
    if not (shown and sys.stderr.isatty()):
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=" examples", leave=False, delay=0.5) as bar:
        yield bar.update


def _overview() -> str:
    lines = ["refcocom VERB [files…] [key=value …]", "", "The exact batch scorer for RefCOCO-M.", ""]
    lines += [f"  {verb:<8}{(config.__doc__ or '').strip()}" for verb, (config, _) in VERBS.items()]
    return "\n".join([*lines, "", "refcocom VERB --help lists the keys of a verb."])


def _help(verb: str) -> str:
    """Every key with its default and meaning; imports neither Hydra nor torch."""
    config, main_key = VERBS[verb]
    lines = [f"refcocom {verb} [{main_key}…] [key=value …]", "", (config.__doc__ or "").strip(), ""]
    used = {key.name.split(".")[0] for key in keys_of(config)}
    for group, options in groups().items():
        if group in used:
            lines.append(f"  {group}={'|'.join(options)}")
    rows = [
        (f"{key.name}={'null' if key.default is None else str(key.default).lower() if isinstance(key.default, bool) else key.default}", key.meaning)
        for key in keys_of(config)
    ]
    width = max(len(left) for left, _ in rows) + 2
    lines += [f"  {left:<{width}}{right}" for left, right in rows]
    lines += ["", f"{main_key} may stand without its name. Exit codes: 0 done, 2 usage, 3 data, 1 other."]
    return "\n".join(lines)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _say(f"warning: {str(message).removeprefix('refcocom: ')}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
