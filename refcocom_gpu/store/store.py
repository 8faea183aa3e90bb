"""A dataset in, `MaskStore` out: masks are parsed once, packed, cached on disk, mapped back and moved to a device.

A mask is kept once per sample (2,080 in RefCOCO-M), not once per expression, in these forms. *Runs* (run ends down the
columns) serve RLE predictions. *Bits* (row-major, low bit first, each mask begins with a 64-bit word) serve dense masks
and logits. *Boundaries*, in bits too and drawn on demand, serve boundary measures. Each form has its own file, so that
one can be opened without the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from refcocom_kernels import cpu, rle_status

from refcocom_gpu.dataset.table import Dataset, load_dataset
from refcocom_gpu.errors import SHOWN, DatasetError, UsageError
from refcocom_gpu.masks import rle
from refcocom_gpu.masks.boxes import run_boxes
from refcocom_gpu.masks.perimeter import perimeters
from refcocom_gpu.masks.squash import SquashedMasks, squash
from refcocom_gpu.store.boundaries import TrueBoundaries, draw_boundaries, opened
from refcocom_gpu.store.others import other_samples
from refcocom_gpu.utils.cache import Arrays, Built, Pieces, cache_root, cached, held
from refcocom_gpu.utils.html import table_html

if TYPE_CHECKING:
    import torch

    from refcocom_gpu.store.device import DeviceStore

LAYOUT_VERSION = "2"
"""Changes with the meaning of the arrays below; a new cache is then built beside the old one."""

PIECE_WORDS = 2**19
"""Words packed and written at a time, 4 MB, so that they stay in the processor's cache on their way to the file."""


class MaskStore:
    """The ground truth of a dataset, ready to be counted against.

    `MaskStore.build` makes it. `M` samples, `N` examples, `R` runs.

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
        folder: Where it is cached; None if it is only in memory.
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
        # All are filled when first needed; the copies that `to` makes share them.
        self._bits: Arrays = {}
        self._boundaries: Arrays = {}
        self._tensors: dict[str, DeviceStore] = {}

    @classmethod
    def build(
        cls, dataset: Dataset, *, cache: bool | str | Path = True, threads: int = 0
    ) -> MaskStore:
        """Open a dataset's store; make it if there is none.

        Args:
            dataset: From `load_dataset`.
            cache: True for the user's cache folder, a path for another, False to keep nothing on disk.
            threads: 0 for all cores.

        Raises:
            DatasetError: When masks of the dataset are not valid RLE, or have no pixel although their sample does not
                say `no_target`, or the reverse; the message names the samples.

        >>> import refcocom_gpu as rc
        >>> store = rc.MaskStore.build(rc.load_dataset("sample"), cache=False)
        >>> len(store) == store.dataset.n_examples
        True
        """
        root = cache_root(cache)
        folder = root and root / "stores" / f"{dataset.fingerprint}-v{LAYOUT_VERSION}"
        store = cls(dataset, _runs(dataset, folder, threads), folder, threads, "cpu")
        _check_no_target(dataset, store.areas)
        return store

    def to(self, device: str) -> MaskStore:
        """Return the same store for counting on another device; the copies share the tensors of each device.

        Raises:
            UsageError: When the device is not there.
        """
        from refcocom_gpu.utils.devices import resolve_device

        moved = object.__new__(MaskStore)
        moved.__dict__.update(self.__dict__)
        moved.device = resolve_device(device)
        return moved

    def detached(self) -> MaskStore:
        """Return the same store without its folder; pickled, it carries its arrays to machines without that folder.

        It carries the bits if they are packed already (`pack`), and boundaries if they were needed; otherwise the
        receiver makes them when needed.
        """
        detached = object.__new__(MaskStore)
        detached.__dict__.update(self.__dict__, folder=None)
        return detached

    def __len__(self) -> int:
        return self.dataset.n_examples

    def __repr__(self) -> str:
        return (
            f"MaskStore({self.dataset.source!r}, {len(self.areas):,} masks, "
            f"{len(self):,} examples, device={self.device!r})"
        )

    def _repr_html_(self) -> str:
        rows = [
            ("masks", f"{len(self.areas):,}"),
            ("examples", f"{len(self):,}"),
            ("device", self.device),
            ("cache", "in memory only" if self.folder is None else str(self.folder)),
        ]
        return table_html(f"MaskStore of {self.dataset.source}", rows)

    def __deepcopy__(self, memo: dict[int, Any]) -> MaskStore:
        # Nothing in a store changes, so copies share its memory.
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the place of the cache where there is one, and the arrays otherwise."""
        arrays = drawn = None
        if self.folder is None:
            arrays = {"ends": self.ends, "run_offsets": self.run_offsets, "areas": self.areas}
            drawn = self._bits, self._boundaries
        return _restore, (self.dataset, arrays, drawn, self.folder, self._threads, self.device)

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Return the true mask of one example.

        Args:
            index: Row number 0…N−1.

        Returns:
            [H, W] bool.

        Raises:
            IndexError: When there is no such row, such as the −1 that `index_of` returns for an unknown key.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is not a row number 0…{len(self) - 1}")
        sample = int(self.example_sample[index])
        ends = self.ends[self.run_offsets[sample] : self.run_offsets[sample + 1]]
        return rle.decode_ends(ends, int(self.heights[sample]), int(self.widths[sample]))

    def tensors(self, device: torch.device | None = None) -> DeviceStore:
        """Return the arrays as tensors on a device; every copy that `to` made shares them.

        Args:
            device: By default the device of the store.
        """
        import torch

        from refcocom_gpu.store.device import DeviceStore

        # `cuda` means the current device; a tensor made there has its number.
        device = torch.empty(0, device=self.device if device is None else device).device
        return self._tensors.setdefault(str(device), DeviceStore(self, device))

    @property
    def words(self) -> NDArray[np.uint64]:
        """[P] packed bits of all masks; they are built, or opened and verified, at first use."""
        self.pack()
        return self._bits["words"]

    def pack(self) -> None:
        """Build the packed bits, or open and verify them, now instead of at their first use."""
        if not self._bits:
            self._bits.update(_cached(self.folder, "bits", self.dataset, self._packed))

    @cached_property
    def word_offsets(self) -> NDArray[np.int64]:
        """[M + 1] where the words of each mask begin."""
        return cpu.word_offsets_for(self.pixels)

    @cached_property
    def perimeters(self) -> NDArray[np.int64]:
        """[M] the perimeter of each mask in pixel edges, from its runs; computed at first use."""
        return perimeters(
            self.ends, self.run_offsets, self.heights, self.widths, threads=self._threads
        )

    @cached_property
    def others(self) -> NDArray[np.int64]:
        """[M, most others] samples of the same image that show another object, then −1; compared at first use."""
        return other_samples(
            self.dataset.counts,
            self.ends,
            self.run_offsets,
            self.areas,
            self.heights,
            self.widths,
            self.dataset.sample_image,
            threads=self._threads,
        )

    @cached_property
    def boxes(self) -> NDArray[np.int64]:
        """[M, 4] the tight box of each mask, from its runs; see `masks.boxes`. Computed at first use."""
        return run_boxes(self.ends, self.run_offsets, self.heights)

    @cached_property
    def squashed(self) -> SquashedMasks:
        """All masks squashed to 480², from their runs; see `masks.squash`. Computed at first use."""
        return squash(self.ends, self.run_offsets, self.heights, self.widths)

    @property
    def boundaries(self) -> TrueBoundaries:
        """Boundaries and contours of all masks; they are drawn, or opened and verified, at first use."""
        sizes = self.heights, self.widths
        if not self._boundaries:
            self._boundaries.update(
                _cached(
                    self.folder,
                    "boundaries",
                    self.dataset,
                    lambda: draw_boundaries(
                        self.words, self.word_offsets, *sizes, self._pieces(), self._threads
                    ),
                )
            )
        return opened(self._boundaries, *sizes)

    def _pieces(self) -> Iterator[tuple[int, int]]:
        """Yield the first and last mask of each piece that is packed at a time."""
        # Every mask begins with a new word, so pieces of whole masks can be joined as they are.
        steps = np.arange(0, self.word_offsets[-1], PIECE_WORDS)
        last = len(self.pixels)
        bounds = np.unique(np.append(np.searchsorted(self.word_offsets, steps), last))
        yield from pairwise(bounds.tolist())

    def _packed(self) -> Built:
        def pieces() -> Iterator[NDArray[np.uint64]]:
            for start, stop in self._pieces():
                offsets = self.run_offsets[start : stop + 1]
                yield cpu.rle_pack(
                    self.ends[offsets[0] : offsets[-1]],
                    offsets - offsets[0],
                    self.heights[start:stop],
                    self.widths[start:stop],
                    threads=self._threads,
                )

        return {"words": Pieces(int(self.word_offsets[-1]), np.dtype(np.uint64), pieces)}


def as_store(truth: MaskStore | Dataset | str | Path) -> MaskStore:
    """Return a store as it is, or build that of a dataset.

    Args:
        truth: A store, a dataset, or what `load_dataset` loads: the name or the path of one.

    Raises:
        UsageError: For anything else, or when there is no such dataset.
        DatasetError: When the dataset cannot be used.

    >>> as_store("sample")
    MaskStore('sample', 105 masks, 297 examples, device='cpu')
    """
    if isinstance(truth, MaskStore):
        return truth
    if isinstance(truth, str | Path):
        truth = load_dataset(truth)
    if not isinstance(truth, Dataset):
        raise UsageError(
            f"ground truth is a MaskStore, a Dataset, or the name or path of one, not {type(truth).__name__}"
        )
    return MaskStore.build(truth)


def _cached(folder: Path | None, name: str, dataset: Dataset, build: Callable[[], Built]) -> Arrays:
    if folder is None:
        return held(build())
    identity = {"fingerprint": dataset.fingerprint, "layout": LAYOUT_VERSION, "holds": name}
    return cached(folder / f"{name}.safetensors", identity, build)


def _restore(
    dataset: Dataset,
    arrays: Arrays | None,
    drawn: tuple[Arrays, Arrays] | None,
    folder: Path | None,
    threads: int,
    device: str,
) -> MaskStore:
    """Make a store from its pickle."""
    runs = _runs(dataset, folder, threads) if arrays is None else arrays
    store = MaskStore(dataset, runs, folder, threads, device)
    if drawn is not None:
        store._bits, store._boundaries = drawn
    return store


def _check_no_target(dataset: Dataset, areas: NDArray[np.int64]) -> None:
    """Refuse masks without a pixel that are not declared, and declared ones with pixels. The cache cannot tell them."""
    wrong = np.flatnonzero((areas == 0) != dataset.no_target)
    if not len(wrong):
        return
    shown = [
        f"sample {dataset.sample_ids[row]}: "
        + ("no_target is true, but its mask has pixels" if areas[row] else "its mask has no pixel")
        for row in wrong[:SHOWN].tolist()
    ]
    more = f"; and {len(wrong) - SHOWN:,} more" if len(wrong) > SHOWN else ""
    raise DatasetError(
        f"{len(wrong):,} masks of {dataset.source} do not fit their samples; no_target: true in a sample says that its "
        f"expressions refer to nothing in the image: {'; '.join(shown)}{more}"
    )


def _runs(dataset: Dataset, folder: Path | None, threads: int) -> Arrays:
    return _cached(folder, "runs", dataset, lambda: _parse(dataset, threads))


def _parse(dataset: Dataset, threads: int) -> Built:
    """Parse and check every mask of a dataset."""
    pixels = dataset.heights * dataset.widths
    strings = dataset.counts
    runs = cpu.rle_parse(strings.data, strings.offsets, pixels, threads=threads)
    # Divided, because the product of two absurd sides would overflow to a small number.
    too_large = dataset.heights > rle.MAX_PIXELS // dataset.widths
    bad = np.flatnonzero((runs.status != rle_status.OK) | too_large)
    if len(bad):
        ids = dataset.samples.column("sample_id")
        shown = []
        for row in bad[:SHOWN]:
            if too_large[row]:
                size = f"{dataset.heights[row]}×{dataset.widths[row]}"
                reason = f"size {size} exceeds the cap of {rle.MAX_PIXELS:,} pixels"
            else:
                status, detail = int(runs.status[row]), int(runs.detail[row])
                reason = rle_status.explain(status, detail, int(pixels[row]))
            shown.append(f"sample {ids[int(row)].as_py()}: {reason}")
        more = f"; and {len(bad) - SHOWN:,} more" if len(bad) > SHOWN else ""
        raise DatasetError(
            f"{len(bad):,} masks of {dataset.source} are not valid RLE: {'; '.join(shown)}{more}"
        )
    # The runs of a mask alternate, so the set pixels are its runs of odd number.
    lengths = np.diff(runs.ends, prepend=np.int32(0))
    starts = runs.offsets[:-1]
    lengths[starts] = runs.ends[starts]
    first_of_run = np.repeat(starts, np.diff(runs.offsets))
    odd = ((np.arange(len(lengths)) - first_of_run) & 1).astype(bool)
    areas = np.add.reduceat(np.where(odd, lengths, 0).astype(np.int64), starts)
    return {"ends": runs.ends, "run_offsets": runs.offsets, "areas": areas}
