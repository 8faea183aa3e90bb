"""A dataset in, `MaskStore` out: its masks parsed once, packed, cached on disk, mapped back, moved to a device.

Masks are kept once per sample (2,080 in RefCOCO-M), not once per expression. Two forms, a file each, so that one is
opened without the other: *runs* (run ends down the columns) for RLE predictions, and *bits* (row-major, low bit
first, each mask from a 64-bit word on) for dense masks and logits. Bits of a large set are sharded by image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu, rle_status

from refcocom_gpu.errors import SHOWN, DatasetError
from refcocom_gpu.masks import rle
from refcocom_gpu.utils.cache import Arrays, Built, Pieces, cache_root, cached, held

if TYPE_CHECKING:
    import torch

    from refcocom_gpu.dataset.table import Dataset
    from refcocom_gpu.store.device import DeviceStore

LAYOUT_VERSION = "1"
"""Changes whenever the arrays below mean something else; an old cache is then built anew beside the new one."""

PIECE_WORDS = 2**19
"""Words packed and written at a time, 4 MB: they stay in the cache on their way to the file."""

SHARD_BYTES = 2**30
"""Largest file of packed bits; RefCOCO-M (76 MB) is one."""


class Packed(NamedTuple):
    """Packed bits of the masks that some rows need.

    Attributes:
        shard: Its number.
        first: The store's first mask in it.
        rows: [K] positions in the samples asked for.
        sample: [K] the mask of each row, counted from the start of this shard.
        words: [P] uint64 packed bits.
        word_offsets: [m + 1] where each mask of the shard begins.
    """

    shard: int
    first: int
    rows: NDArray[np.int64]
    sample: NDArray[np.int64]
    words: NDArray[np.uint64]
    word_offsets: NDArray[np.int64]


class MaskStore:
    """The ground truth of a dataset, ready to be counted against.

    Made by `MaskStore.build`. `M` samples, `N` examples, `R` runs.

    Attributes:
        dataset: What the masks belong to.
        ends: [R] int32 run ends of all masks.
        run_offsets: [M + 1] int64 where a mask's runs begin.
        areas: [M] int64 set pixels.
        heights: [M] int64 H.
        widths: [M] int64 W.
        pixels: [M] int64 H·W.
        example_sample: [N] int64 the sample of each example.
        device: Where predictions are counted: `cpu`, `cuda` or `cuda:i`.
        folder: Where it is cached; None when it is kept in memory only.
    """

    def __init__(
        self, dataset: Dataset, arrays: Arrays, folder: Path | None, threads: int, device: str
    ) -> None:
        self.dataset = dataset
        self.ends: NDArray[np.int32] = arrays["ends"]
        self.run_offsets: NDArray[np.int64] = arrays["run_offsets"]
        self.areas: NDArray[np.int64] = arrays["areas"]
        self.heights = dataset.heights
        self.widths = dataset.widths
        self.pixels = self.heights * self.widths
        self.example_sample = dataset.example_sample
        self.device = device
        self.folder = folder
        self._threads = threads
        self._bits: dict[int, NDArray[np.uint64]] = {}
        self._tensors: dict[str, DeviceStore] = {}

    @classmethod
    def build(
        cls, dataset: Dataset, *, cache: bool | str | Path = True, threads: int = 0
    ) -> MaskStore:
        """Open a dataset's store, making it on first use.

        Args:
            dataset: From `load_dataset`.
            cache: True for the user's cache folder, a path for another, False to keep nothing on disk.
            threads: 0 for all cores.

        Raises:
            DatasetError: When a mask of the dataset is not valid RLE; names the samples.

        >>> import refcocom_gpu as rc
        >>> store = rc.MaskStore.build(rc.load_dataset("sample"), cache=False)
        >>> len(store) == store.dataset.n_examples
        True
        """
        root = cache_root(cache)
        folder = root and root / "stores" / f"{dataset.fingerprint}-v{LAYOUT_VERSION}"
        return cls(dataset, _runs(dataset, folder, threads), folder, threads, "cpu")

    def to(self, device: str) -> MaskStore:
        """The same store, counted on another device; what was moved there is shared by every store of this dataset.

        Raises:
            UsageError: When the device is not there.
        """
        from refcocom_gpu.utils.devices import resolve_device

        moved = object.__new__(MaskStore)
        moved.__dict__.update(self.__dict__)
        moved.device = resolve_device(device)
        return moved

    def detached(self) -> MaskStore:
        """The same store without its folder: pickled, it carries its arrays, for machines that lack that folder.

        Bits go along where they are packed (`pack`); otherwise whoever needs them packs them anew.
        """
        alone = object.__new__(MaskStore)
        alone.__dict__.update(self.__dict__, folder=None)
        return alone

    def __len__(self) -> int:
        return self.dataset.n_examples

    def __repr__(self) -> str:
        return (
            f"MaskStore({self.dataset.source!r}, {len(self.areas):,} masks, "
            f"{len(self):,} examples, device={self.device!r})"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> MaskStore:
        # Nothing in a store changes, so that copies of what holds one share its memory.
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """What another process needs: where there is a cache it maps the arrays there, as this one does."""
        arrays = bits = None
        if self.folder is None:
            arrays = {"ends": self.ends, "run_offsets": self.run_offsets, "areas": self.areas}
            bits = self._bits
        return _restore, (self.dataset, arrays, bits, self.folder, self._threads, self.device)

    def mask(self, index: int) -> NDArray[np.bool_]:
        """The true mask of one example.

        Args:
            index: Row number 0…N−1.

        Returns:
            [H, W] bool.

        Raises:
            IndexError: When there is no such row; −1, which `index_of` gives for an unknown key, is none.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is not a row number 0…{len(self) - 1}")
        sample = int(self.example_sample[index])
        ends = self.ends[self.run_offsets[sample] : self.run_offsets[sample + 1]]
        return rle.decode_ends(ends, int(self.heights[sample]), int(self.widths[sample]))

    def tensors(self, device: torch.device | None = None) -> DeviceStore:
        """The arrays as tensors on a device, one set for all stores that `to` made of this one.

        Args:
            device: The store's own by default.
        """
        import torch

        from refcocom_gpu.store.device import DeviceStore

        # `cuda` is the current device, and predictions that are there say which number that is.
        device = torch.empty(0, device=self.device if device is None else device).device
        return self._tensors.setdefault(str(device), DeviceStore(self, device))

    def packed(self, samples: NDArray[np.int64]) -> Iterator[Packed]:
        """Packed bits for some samples, a shard at a time.

        Args:
            samples: [K] rows of the samples table.

        Yields:
            One `Packed` per shard touched; together their `rows` are 0…K−1.
        """
        shard_of = np.searchsorted(self._shard_bounds, samples, side="right") - 1
        for shard in np.unique(shard_of):
            rows = np.flatnonzero(shard_of == shard)
            first, last = self._shard_bounds[shard : shard + 2]
            yield Packed(
                int(shard),
                int(first),
                rows,
                samples[rows] - first,
                self._words(int(shard)),
                cpu.word_offsets_for(self.pixels[first:last]),
            )

    @cached_property
    def _shard_bounds(self) -> NDArray[np.int64]:
        """[S + 1] first sample of each shard: whole images, at most `SHARD_BYTES` unless one image is larger."""
        image = self.dataset.sample_image
        stops = np.append(np.flatnonzero(np.diff(image)) + 1, len(image))
        ends = 8 * cpu.word_offsets_for(self.pixels)[stops]
        bounds, used = [0], 0
        for k, end in enumerate(ends):
            if end - used > SHARD_BYTES and k > 0 and stops[k - 1] > bounds[-1]:
                bounds.append(int(stops[k - 1]))
                used = int(ends[k - 1])
        return np.array([*bounds, len(image)], np.int64)

    def pack(self) -> None:
        """Build or verify the packed bits of every shard now instead of at their first use."""
        for shard in range(len(self._shard_bounds) - 1):
            self._words(shard)

    def _words(self, shard: int) -> NDArray[np.uint64]:
        if shard not in self._bits:
            first, last = self._shard_bounds[shard : shard + 2]
            self._bits[shard] = _cached(
                self.folder,
                f"bits-{shard:05d}-of-{len(self._shard_bounds) - 1:05d}",
                self.dataset,
                lambda: self._pack(int(first), int(last)),
            )["words"]
        return self._bits[shard]

    def _pack(self, first: int, last: int) -> Built:
        word_offsets = cpu.word_offsets_for(self.pixels[first:last])

        def pieces() -> Iterator[NDArray[np.uint64]]:
            # Every mask begins with a word, so pieces of whole masks follow each other without a seam.
            steps = np.arange(0, word_offsets[-1], PIECE_WORDS)
            bounds = np.unique(np.append(np.searchsorted(word_offsets, steps), last - first))
            for start, stop in zip(first + bounds[:-1], first + bounds[1:], strict=True):
                offsets = self.run_offsets[start : stop + 1]
                yield cpu.rle_pack(
                    self.ends[offsets[0] : offsets[-1]],
                    offsets - offsets[0],
                    self.heights[start:stop],
                    self.widths[start:stop],
                    threads=self._threads,
                )

        return {"words": Pieces(int(word_offsets[-1]), np.dtype(np.uint64), pieces)}


def _cached(folder: Path | None, name: str, dataset: Dataset, build: Callable[[], Built]) -> Arrays:
    if folder is None:
        return held(build())
    identity = {"fingerprint": dataset.fingerprint, "layout": LAYOUT_VERSION, "holds": name}
    return cached(folder / f"{name}.safetensors", identity, build)


def _restore(
    dataset: Dataset,
    arrays: Arrays | None,
    bits: dict[int, NDArray[np.uint64]] | None,
    folder: Path | None,
    threads: int,
    device: str,
) -> MaskStore:
    """A store that was pickled."""
    runs = _runs(dataset, folder, threads) if arrays is None else arrays
    store = MaskStore(dataset, runs, folder, threads, device)
    store._bits = dict(bits or {})
    return store


def _runs(dataset: Dataset, folder: Path | None, threads: int) -> Arrays:
    return _cached(folder, "runs", dataset, lambda: _parse(dataset, threads))


def _parse(dataset: Dataset, threads: int) -> Built:
    """Parse and check every mask of a dataset."""
    pixels = dataset.heights * dataset.widths
    strings = dataset.counts
    runs = cpu.rle_parse(strings.data, strings.offsets, pixels, threads=threads)
    # Divided, because the product of two absurd sides overflows to something small.
    too_large = dataset.heights > rle.MAX_PIXELS // dataset.widths
    bad = np.flatnonzero((runs.status != rle_status.OK) | too_large)
    if len(bad):
        ids = dataset.samples.column("sample_id")
        shown = []
        for row in bad[:SHOWN]:
            reason = (
                f"size {dataset.heights[row]}×{dataset.widths[row]} exceeds the cap of {rle.MAX_PIXELS:,} pixels"
                if too_large[row]
                else rle_status.explain(
                    int(runs.status[row]), int(runs.detail[row]), int(pixels[row])
                )
            )
            shown.append(f"sample {ids[int(row)].as_py()}: {reason}")
        more = f"; and {len(bad) - SHOWN:,} more" if len(bad) > SHOWN else ""
        raise DatasetError(
            f"{len(bad):,} masks of {dataset.source} are not valid RLE: {'; '.join(shown)}{more}"
        )
    # The set pixels are the runs of odd number, and runs alternate within each mask.
    lengths = np.diff(runs.ends, prepend=np.int32(0))
    starts = runs.offsets[:-1]
    lengths[starts] = runs.ends[starts]
    first_of_run = np.repeat(starts, np.diff(runs.offsets))
    odd = ((np.arange(len(lengths)) - first_of_run) & 1).astype(bool)
    areas = np.add.reduceat(np.where(odd, lengths, 0).astype(np.int64), starts)
    return {"ends": runs.ends, "run_offsets": runs.offsets, "areas": areas}
