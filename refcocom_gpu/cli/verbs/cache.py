"""`refcocom cache`: a config in; the cache on disk is shown, built or cleared."""

from __future__ import annotations

from pathlib import Path

from refcocom_gpu.cli.config import CacheConfig
from refcocom_gpu.cli.verbs import load, print_
from refcocom_gpu.errors import UsageError


def run(config: CacheConfig) -> None:
    """Do what `action` says."""
    from refcocom_gpu.utils.cache import cache_dir, clear, entries

    root = cache_dir()
    text = ""
    if config.action == "path":
        text = str(root)
    elif config.action == "list":
        text = "\n".join(f"{_megabytes(entry):10.1f} MB  {entry}" for entry in entries())
        text = text or f"nothing is cached in {root}"
    elif config.action == "build":
        from refcocom_gpu.store.store import MaskStore

        if config.threads < 0:
            raise UsageError(f"threads must be 0 (all cores) or more, not {config.threads}")
        store = MaskStore.build(load(config.dataset), threads=config.threads)
        store.pack()
        text = f"{store!r}\n{store.folder}"
    elif config.action == "clear":
        freed = sum(_megabytes(entry) for entry in entries())
        try:
            clear()
        except OSError as error:
            raise UsageError(f"cannot clear {root}: {error}") from None
        text = f"cleared {freed:.1f} MB from {root}"
    else:
        raise UsageError(f"action must be list, path, build or clear, not {config.action!r}")
    if not config.quiet:
        print_(text)


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
