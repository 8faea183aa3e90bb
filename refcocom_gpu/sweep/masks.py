"""Masks of scored sets in, `masks/{key}.parquet` below the folder of a sweep out: native predictions, one file per set.

The name is that under which the ledger keeps the counts of the set; it also keeps the hash of the file. A file that is
absent or damaged is no longer known, and its set is scored again. Equal sets share a file.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xxhash

from refcocom_gpu.errors import UsageError
from refcocom_gpu.scores.example_table import per_example
from refcocom_gpu.scores.no_target import PRED_NO_TARGET
from refcocom_gpu.scores.saved_masks import masks_bytes
from refcocom_gpu.scores.sweep_folder import MASKS, Product
from refcocom_gpu.store.store import MaskStore
from refcocom_gpu.sweep.ledger import Ledger
from refcocom_gpu.sweep.task import FileResult
from refcocom_gpu.utils.files import TEMPORARY, replacing


class MaskFiles:
    """The masks that a sweep keeps.

    Args:
        ledger: Of the sweep.
        store: Ground truth.
        wanted: Whether sets without masks are scored again; otherwise masks that are there are kept.
        verify: Compare the content of every file, also where its size and times are as before.
    """

    def __init__(self, ledger: Ledger, store: MaskStore, *, wanted: bool, verify: bool) -> None:
        self._ledger, self._store, self._wanted, self._verify = ledger, store, wanted, verify
        self._root = ledger.folder / MASKS

    def put(self, key: str, result: FileResult) -> None:
        """Keep the masks of a set that was scored.

        Raises:
            UsageError: When they cannot be written.
        """
        assert result.masks is not None
        assert result.counts is not None
        absent = np.zeros(0, np.int64) if result.absent is None else result.absent
        labels = {PRED_NO_TARGET} & {*result.measured}
        table = per_example(
            self._store, result.counts, absent, {name: result.measured[name] for name in labels}
        )
        fingerprint = self._store.dataset.fingerprint
        content = masks_bytes(table, result.masks, fingerprint, result.header_model)
        try:
            self._root.mkdir(exist_ok=True)
            with replacing(self._root / f"{key}.parquet") as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise UsageError(f"cannot write to {self._root}: {error.strerror or error}") from None
        self._ledger.note([(_file(key), "", xxhash.xxh3_128_hexdigest(content))])

    def get(self, key: str) -> Product | None:
        """Return the file of a set; None if there is none or it is damaged."""
        file = _file(key)
        digest = self._ledger.kept_digest(file, verify=self._verify)
        if digest is None and not self._wanted:
            # It is deleted, not made again.
            self._ledger.damaged.discard(file)
        return None if digest is None else Product(file, digest)

    def lacks(self, product: Product | None) -> bool:
        """Return whether a set with this file must be scored for its masks."""
        return self._wanted and product is None

    def keep_only(self, products: Iterable[Product | None]) -> None:
        """Delete the files of sets that the sweep no longer has."""
        expected = {product.file for product in products if product is not None}
        below = f"{MASKS}/"
        self._ledger.forget(
            [f for f in self._ledger.known if f.startswith(below) and f not in expected]
        )
        if not self._root.is_dir():
            return
        try:
            for path in self._root.iterdir():
                if f"{below}{path.name}" not in expected and path.suffix in (".parquet", TEMPORARY):
                    path.unlink()
            if not any(self._root.iterdir()):
                self._root.rmdir()
        except OSError as error:
            raise UsageError(f"cannot write to {self._root}: {error.strerror or error}") from None


def _file(key: str) -> str:
    return f"{MASKS}/{key}.parquet"
