"""Device functions that the mask kernels share: bytes of pixels in, bits out.

A dense mask may begin at any address. It is read in chunks of 16 bytes that begin at multiples of 16. The mask begins
`shift` bytes into chunk 0, so bit `i` of chunk `c` is pixel `16·c + i - shift`. A chunk wholly inside the mask is one
load. The chunks of its first and last pixels are loaded byte by byte, since the bytes beside them may not be allocated.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def popcount(x):
    """Set bits of each uint32, as uint32. LLVM makes this one instruction; libdevice is missing in the interpreter."""
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return (x * 0x01010101) >> 24


@triton.jit
def both_counts(bits, target):
    """Area plus 65,536 times the intersection: one integer, so that one reduction serves both."""
    hits = popcount(bits & target)
    # Not area + (hits << 16): LLVM merges that shift with the last one of `popcount` and no longer recognises it.
    return popcount(bits & (target ^ 0xFFFFFFFF)) + hits * 65537


@triton.jit
def shift_of(mask):
    """Bytes from the last multiple of 16 to the mask's first byte, as int32."""
    return (mask.to(tl.int64) & 15).to(tl.int32)


@triton.jit
def chunk_pointers(mask, shift, chunk):
    """[N, 4] pointers to the uint32 of chunks [N], as `chunk_bits` takes them."""
    aligned = tl.multiple_of((mask - shift).to(tl.pointer_type(tl.uint32)), 16)
    return aligned + chunk[:, None] * 4 + tl.arange(0, 4)[None, :]


@triton.jit
def chunk_bits(pointers, inside):
    """Bits of chunks wholly inside a mask.

    Args:
        pointers: [N, 4].
        inside: [N] bool; other chunks are not read and give 0.

    Returns:
        [N] uint32, 16 bits each.
    """
    x = tl.load(pointers, mask=inside[:, None], other=0, eviction_policy="evict_first")
    # The top bit of each byte that is not 0; the product gathers the four bits at the top of the word, low byte first.
    nonzero = (((x & 0x7F7F7F7F) + 0x7F7F7F7F) | x) & 0x80808080
    return tl.sum(((nonzero * 0x00204081) >> 28) << (tl.arange(0, 4)[None, :] * 4), axis=1)


@triton.jit
def edge_bits(mask, shift, pixels):
    """Bits of the chunks that lie partly inside a mask.

    Args:
        mask: Pointer to the mask's first byte.
        shift: Its `shift_of`.
        pixels: H·W.

    Returns:
        [2] int32 chunks, [2] bool whether the chunk exists, [2] uint32 bits.
    """
    last = (shift + pixels) >> 4
    edge = tl.arange(0, 2)
    chunk = edge * last
    # If the mask begins with chunk 0, that chunk is whole. A mask within one chunk has one edge, not two.
    exists = (edge == 0) & (shift > 0) | (edge == 1) & ((last > 0) | (shift == 0))
    exists = exists & (chunk * 16 < shift + pixels)
    bit = tl.arange(0, 16)[None, :]
    pixel = chunk[:, None] * 16 + bit - shift
    inside = exists[:, None] & (pixel >= 0) & (pixel < pixels)
    byte = tl.load(mask + pixel, mask=inside, other=0)
    return chunk, exists, tl.sum((byte != 0).to(tl.uint32) << bit, axis=1)


@triton.jit
def _word_at(words, place, n_words):
    x = tl.load(words + place, mask=(place >= 0) & (place < n_words), other=0)
    return x.to(tl.uint32, bitcast=True).to(tl.uint64)


@triton.jit
def bits32_at(words, position, n_words):
    """32 bits of a packed string that begin at any position; bits outside its words are 0.

    Args:
        words: Pointer to int32.
        position: [N] int32 first bit; it may be negative.
        n_words: int32 words.

    Returns:
        [N] uint32.
    """
    place = position >> 5
    pair = _word_at(words, place, n_words) | (_word_at(words, place + 1, n_words) << 32)
    return (pair >> (position & 31).to(tl.uint64)).to(tl.uint32)


@triton.jit
def bits64_at(words, position, n_words):
    """The same for 64 bits: [N] uint64."""
    place = position >> 5
    shift = (position & 31).to(tl.uint64)
    pair = _word_at(words, place, n_words) | (_word_at(words, place + 1, n_words) << 32)
    # Two shifts, because a shift by 64 is undefined.
    return (pair >> shift) | ((_word_at(words, place + 2, n_words) << 1) << (63 - shift))


@triton.jit
def columns_between(word, low, high):
    """Ones at the bits of word `word` of a row whose columns are at least `low` and less than `high`, as uint32."""
    ones = tl.full(word.shape, 0xFFFFFFFF, tl.uint64)
    below = tl.minimum(tl.maximum(low - word * 32, 0), 32)
    above = tl.minimum(tl.maximum(high - word * 32, below), 32)
    return ((ones << below.to(tl.uint64)) ^ (ones << above.to(tl.uint64))).to(tl.uint32)


@triton.jit
def stored_bits(words, word_offsets, target, row, word, height, width):
    """32 bits of a row of a stored mask, from word `word` of the row on."""
    n_words = ((height * width + 63) >> 6) * 2
    start = words + tl.load(word_offsets + target) * 2
    return bits32_at(start, row * width + word * 32, n_words)


@triton.jit
def add_counts(counts, mask, area_column, shared_column, bits, stored):
    """Add the area of bits, and of those that are stored too, to two columns of `counts` [B, 5]."""
    total = tl.sum(both_counts(bits, stored))
    area, shared = (total & 0xFFFF).to(tl.int64), (total >> 16).to(tl.int64)
    row = counts + mask.to(tl.int64) * 5
    tl.atomic_add(row + area_column, area, mask=area > 0, sem="relaxed")
    tl.atomic_add(row + shared_column, shared, mask=shared > 0, sem="relaxed")
