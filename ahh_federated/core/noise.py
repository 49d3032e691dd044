"""Noise: the discrete Gaussian on the integers, exact and drawn in blocks.

The proof is docs/proofs/noise.md. The shape of the sampler: blocks of width sigma / 8 are chosen from
one table of 128-bit thresholds that serves every sigma, a uniform place in the block is proposed, and
kept with the probability that turns the staircase into the curve. Floating point decides only when it
is sure; otherwise the decision is made with as many digits and random bits as it takes.
"""

from __future__ import annotations

from bisect import bisect_right
from decimal import Context, Decimal
from functools import cache
from operator import index

import numpy as np
from numpy.typing import NDArray

from ahh_federated.core.entropy import Entropy

MIN_SIGMA = 2**10
MAX_SIGMA = 2**44

_PER_SIGMA = 8  # blocks to one sigma
_BLOCKS = 13 * _PER_SIGMA  # the mass beyond 13 sigma is below 2^-124
_EXPONENT_UNIT = 2 * _PER_SIGMA**2
_CHUNK = 2**15  # values drawn together: the arrays stay in the processor's cache
_BAND = 2.0**-40  # floating point is off by less than 2^-41


def discrete_gaussian(sigma: int, size: int, entropy: Entropy) -> NDArray[np.int64]:
    """`size` independent integers k with probability proportional to exp(-k^2 / (2 sigma^2)).

    `sigma` is in grid steps, from 2^10 to 2^44; the result has shape (size,), and |k| < 13 sigma + 1.
    Given uniform words, each value is within total variation 2^-120 of the exact law, and the amount
    of work depends on `size` alone.

    Raises ValueError when sigma is outside its range or size is negative, TypeError when one of them
    is not an integer.

    Source: the law is that of Canonne, Kamath and Steinke (NeurIPS 2020), arXiv:2004.00010; the sampler
    and its error bound are in docs/proofs/noise.md, section 1.
    """
    sigma, size = index(sigma), index(size)
    if not MIN_SIGMA <= sigma <= MAX_SIGMA:
        raise ValueError(
            f"sigma = {sigma} grid steps is outside 2^10 to 2^44, where the noise is proven; choose a finer or a coarser grid"
        )
    if size < 0:
        raise ValueError(f"size = {size} is negative; ask for zero values or more")
    values = np.empty(size, dtype=np.int64)
    for start in range(0, size, _CHUNK):
        part = values[start : start + _CHUNK]
        part[:] = _exactly(sigma, len(part), entropy)
    return values


def _exactly(sigma: int, count: int, entropy: Entropy) -> NDArray[np.int64]:
    """The first `count` accepted proposals; valid for every sigma >= 1, at a poorer rate below 2^10."""
    kept = _accepted(sigma, _proposals(count), entropy)
    while len(kept) < count:
        kept = np.concatenate([kept, _accepted(sigma, _proposals(count), entropy)])
    return kept[:count]


def _proposals(count: int) -> int:
    # More than 94.5 % are accepted, so that one round is too few less than once in 2^100.
    return count + count // 8 + 64


def _accepted(sigma: int, proposals: int, entropy: Entropy) -> NDArray[np.int64]:
    """Propose so many values at once and return those that are accepted, in order."""
    block_words, place_words, coin_words = entropy.words(3 * proposals).reshape(3, proposals)
    block = _blocks(block_words, entropy)
    edges = (np.arange(_BLOCKS + 1, dtype=np.int64) * sigma + (_PER_SIGMA - 1)) // _PER_SIGMA
    widest = -(-sigma // _PER_SIGMA)

    magnitude = edges[block] + (place_words % np.uint64(widest)).astype(np.int64)
    unbiased = place_words <= np.uint64(2**64 - 1 - 2**64 % widest)
    inside = magnitude < edges[block + 1]

    negative = (coin_words & np.uint64(1)).astype(np.bool_)
    one_zero = (magnitude != 0) | ~negative

    possible = np.flatnonzero(unbiased & inside & one_zero)
    magnitude = magnitude[possible]
    under = _under_curve(coin_words[possible], magnitude, block[possible] * sigma, sigma, entropy)
    return np.where(negative[possible], -magnitude, magnitude)[under]


def _blocks(words: NDArray[np.uint64], entropy: Entropy) -> NDArray[np.int64]:
    """The block that each 128-bit number falls in; its lower word is drawn only when it matters."""
    thresholds, upper = _table()
    block = np.searchsorted(upper, words, side="right").astype(np.int64)
    tied = np.flatnonzero(upper[np.maximum(block - 1, 0)] == words)
    for i in tied:
        low = int(entropy.words(1)[0])
        block[i] = bisect_right(thresholds, int(words[i]) << 64 | low)
    return block


@cache
def _table() -> tuple[list[int], NDArray[np.uint64]]:
    """2^128 times the chance of a block before block 1, 2, ...; and the upper words of these."""
    context = Context(prec=60, traps=[])
    heights = [context.exp(context.divide(Decimal(-j * j), Decimal(_EXPONENT_UNIT))) for j in range(_BLOCKS)]
    sums = [Decimal(0)]
    for height in heights:
        sums.append(context.add(sums[-1], height))
    scale = context.divide(Decimal(2**128), sums[-1])
    thresholds = [int(context.multiply(part, scale)) for part in sums[1:-1]]
    return thresholds, np.array([t >> 64 for t in thresholds], dtype=np.uint64)


def _under_curve(
    coin_words: NDArray[np.uint64],
    magnitude: NDArray[np.int64],
    block_sigma: NDArray[np.int64],
    sigma: int,
    entropy: Entropy,
) -> NDArray[np.bool_]:
    """Whether U < exp(-(x - x0)(x + x0) / (2 sigma^2)), where x0 = block_sigma / 8 is the block's start.

    U has the upper 53 bits of the coin word and, when in doubt, as many more as it takes.
    """
    above = _PER_SIGMA * magnitude - block_sigma
    around = _PER_SIGMA * magnitude + block_sigma
    chance = np.exp(-(above / sigma) * (around / sigma) / _EXPONENT_UNIT)
    head = coin_words >> np.uint64(11)
    coin = head * 2.0**-53
    under = coin < chance
    for i in np.flatnonzero(np.abs(coin - chance) <= _BAND):
        under[i] = _below(int(head[i]), int(above[i]) * int(around[i]), _EXPONENT_UNIT * sigma**2, entropy)
    return under


def _below(head: int, numerator: int, denominator: int, entropy: Entropy) -> bool:
    """Whether U < exp(-numerator / denominator), for a U whose first 53 bits are `head`."""
    known = 53
    while True:
        head, known = head << 64 | int(entropy.words(1)[0]), known + 64
        context = Context(prec=known // 3 + 10, traps=[])
        chance = context.exp(context.divide(Decimal(-numerator), Decimal(denominator)))
        scaled = int(context.multiply(chance, Decimal(2**known)))  # within 1 below and 2 above
        if head + 1 <= scaled - 1:
            return True
        if head >= scaled + 2:
            return False
