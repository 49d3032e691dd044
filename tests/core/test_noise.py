"""Entropy and the discrete Gaussian, value by value. The distribution is tested under tests/statistics."""

from __future__ import annotations

import ast
import copy
import inspect
import os
import pickle
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, cast

import mpmath
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from ahh_federated.core import entropy as entropy_module
from ahh_federated.core import noise
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.noise import discrete_gaussian

U64 = NDArray[np.uint64]
FULL = 2**64 - 1
GOLDEN_WORDS = [170946066771761399, 12872262366220098769, 10270660760501485706]
GOLDEN_DERIVED = [9274200613434065830, 8163904832583533206, 14805879817175571013]
GOLDEN_NOISE = {
    2**10: [54, 1045, 862, -684],
    1_234_567: [76622, 1341243, 1064990, -866504],
    2**44: [1256627189814, 18595605235989, 13747759067998, -13096963708460],
}


class Script:
    """Stands in for Entropy: says the words it was given, one call after the other."""

    def __init__(self, *answers: Iterable[int] | U64) -> None:
        self.answers = [np.array(list(answer), dtype=np.uint64) for answer in answers]

    def words(self, n: int) -> U64:
        answer = self.answers.pop(0)
        assert len(answer) == n
        return answer

    @classmethod
    def of(cls, *answers: Iterable[int] | U64) -> Entropy:
        return cast(Entropy, cls(*answers))


class Counting:
    """An entropy that remembers how many words were asked for."""

    def __init__(self, inner: Entropy) -> None:
        self.inner, self.asked = inner, 0

    def words(self, n: int) -> U64:
        self.asked += n
        return self.inner.words(n)


# --- Entropy ---------------------------------------------------------------------------------------


def test_seeded_words_never_change() -> None:
    assert Entropy.seeded(7).words(3).tolist() == GOLDEN_WORDS
    assert Entropy.seeded(7).derive(b"study/1").words(3).tolist() == GOLDEN_DERIVED


def test_words_are_the_cipher_of_a_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    key = bytes(range(32))
    monkeypatch.setattr(os, "urandom", lambda n: key[:n])
    words = Entropy.system().words(201)
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    stream = b"".join(block.update(counter.to_bytes(16, "big")) for counter in range(101))
    assert words.tolist() == [int.from_bytes(stream[i : i + 8], "little") for i in range(0, 8 * 201, 8)]


def test_words_do_not_depend_on_the_size_of_the_calls() -> None:
    parts = Entropy.seeded(1)
    together = np.concatenate([parts.words(n) for n in (1, 0, 2, 5, 1000)])
    assert together.dtype == np.uint64
    assert np.array_equal(together, Entropy.seeded(1).words(1008))


def test_a_negative_number_of_words_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Entropy.seeded(1).words(-1)


def test_streams_share_no_word() -> None:
    root, system = Entropy.seeded(3), Entropy.system()
    streams = [root, Entropy.seeded(3 + 2**32), Entropy.seeded(-3), Entropy.seeded(3 + 2**64)]
    streams += [root.derive(b""), root.derive(b"a"), root.derive(b"b"), root.derive(b"a").derive(b"b")]
    streams += [root.derive(b"ab"), system, system.derive(b"a"), system.derive(b"a"), Entropy.system()]
    words = np.concatenate([stream.words(2000) for stream in streams])
    assert len(np.unique(words)) == len(words)


def test_derived_streams_depend_on_seed_and_label_alone() -> None:
    fresh, used = Entropy.seeded(5), Entropy.seeded(5)
    used.words(999)
    used.derive(b"other").words(5)
    assert np.array_equal(fresh.derive(b"x").words(9), used.derive(b"x").words(9))


def test_each_release_of_the_system_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [bytes([i]) * 32 for i in (3, 2, 1)]
    monkeypatch.setattr(os, "urandom", lambda n: keys.pop())
    system = Entropy.system()
    one, two = system.derive(b"x"), system.derive(b"x")
    assert keys == []
    assert set(one.words(9).tolist()).isdisjoint(two.words(9).tolist())


def test_only_the_system_is_private() -> None:
    for entropy, private in ((Entropy.system(), True), (Entropy.seeded(1), False)):
        assert entropy.private is private
        assert entropy.derive(b"x").private is private
        assert repr(entropy) == f"Entropy(private={private})"


@pytest.mark.parametrize("make", [Entropy.system, lambda: Entropy.seeded(1)])
@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_cannot_be_duplicated(make: Callable[[], Entropy], duplicate: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        duplicate(make())


def _words_of_a_fork(entropy: Entropy, n: int) -> bytes:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(entropy.words(n).tobytes())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        received = pipe.read()
    os.waitpid(child, 0)
    return received


@pytest.mark.parametrize("same_process_id", [False, True])
def test_forked_processes_share_no_word(monkeypatch: pytest.MonkeyPatch, same_process_id: bool) -> None:
    if same_process_id:
        monkeypatch.setattr(os, "getpid", lambda: 4242)
    entropy = Entropy.system()
    entropy.words(1)
    received = _words_of_a_fork(entropy, 20_000) + _words_of_a_fork(entropy, 20_000)
    words = np.concatenate([np.frombuffer(received, "<u8"), entropy.words(20_000)])
    assert len(words) == 60_000
    assert len(np.unique(words)) == 60_000


def test_a_new_process_id_alone_takes_a_new_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [bytes(32), bytes([1]) * 32]
    monkeypatch.setattr(os, "urandom", lambda n: keys.pop(0))
    entropy = Entropy.system()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    entropy.words(1)
    assert keys == []


# --- the sampler's contract ------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [-1, 0, 2**10 - 1, 2**44 + 1])
def test_a_scale_outside_the_proof_is_refused(sigma: int) -> None:
    with pytest.raises(ValueError, match=f"sigma = {sigma} grid steps"):
        discrete_gaussian(sigma, 1, Entropy.seeded(0))


def test_only_whole_numbers_are_taken() -> None:
    with pytest.raises(TypeError):
        discrete_gaussian(cast(int, 2048.0), 1, Entropy.seeded(0))
    with pytest.raises(TypeError):
        Entropy.seeded(cast(int, 1.5))
    with pytest.raises(ValueError, match="size = -1"):
        discrete_gaussian(2048, -1, Entropy.seeded(0))


@pytest.mark.parametrize("size", [0, 1, 2**15, 2**15 + 1, 100_000])
def test_shape(size: int) -> None:
    values = discrete_gaussian(2**20, size, Entropy.seeded(0))
    assert values.shape == (size,)
    assert values.dtype == np.int64


@pytest.mark.parametrize("sigma", [2**10, 1_234_567, 2**44])
def test_seeded_values_never_change(sigma: int) -> None:
    assert discrete_gaussian(sigma, 4, Entropy.seeded(7)).tolist() == GOLDEN_NOISE[sigma]


def test_work_depends_on_the_size_alone() -> None:
    for size, words in ((1, 3 * 65), (945, 3 * 1127), (40_000, 3 * (36_928 + 8_200))):
        for seed in range(20):
            counting = Counting(Entropy.seeded(seed))
            discrete_gaussian(1025 + seed * 10**9, size, cast(Entropy, counting))
            assert counting.asked == words


def test_generators_of_numpy_are_not_used() -> None:
    for module in (noise, entropy_module):
        tree = ast.walk(ast.parse(inspect.getsource(module)))
        names = {node.attr for node in tree if isinstance(node, ast.Attribute)}
        assert "random" not in names
        assert not hasattr(module, "random")
        assert not hasattr(module, "secrets")


# --- the steps of the proof ------------------------------------------------------------------------


def test_table_is_within_one_of_the_exact_thresholds() -> None:
    with mpmath.workprec(400):
        heights = [mpmath.exp(-mpmath.mpf(j * j) / 128) for j in range(104)]
        exact = [2**128 * mpmath.fsum(heights[:j]) / mpmath.fsum(heights) for j in range(1, 104)]
        thresholds, upper = noise._table()
        assert len(thresholds) == 103
        assert all(abs(t - e) <= 1 for t, e in zip(thresholds, exact, strict=True))
    assert upper.tolist() == [t >> 64 for t in thresholds]
    assert thresholds == sorted(set(thresholds))


def test_blocks_are_exact_at_both_edges() -> None:
    thresholds, upper = noise._table()
    edges = [0, *thresholds, 2**128]
    numbers = edges[:-1] + [edge - 1 for edge in edges[1:]]
    drawn = set(upper.tolist())
    lower = [[number & FULL] for number in numbers if number >> 64 in drawn]
    words = np.array([number >> 64 for number in numbers], dtype=np.uint64)
    script = Script(*lower)
    assert noise._blocks(words, cast(Entropy, script)).tolist() == [*range(104), *range(104)]
    assert script.answers == []


@pytest.mark.parametrize("sigma", [8, 1024, 1027, 2**44 - 1])
def test_every_integer_has_one_place_and_the_exact_exponent(monkeypatch: pytest.MonkeyPatch, sigma: int) -> None:
    """Block weight times chance of acceptance is exp(-k^2 / 2 sigma^2), as fractions, for every place."""
    seen: list[Fraction] = []

    def record(head: int, numerator: int, denominator: int, entropy: Entropy) -> bool:
        seen.append(Fraction(numerator, denominator))
        return True

    monkeypatch.setattr(noise, "_BAND", 2.0)
    monkeypatch.setattr(noise, "_below", record)
    widest = -(-sigma // 8)
    places = range(widest) if widest < 1000 else [0, 1, widest // 3, widest - 2, widest - 1]
    block = np.repeat(np.arange(104), len(places))
    monkeypatch.setattr(noise, "_blocks", lambda words, entropy: block)
    proposals = len(block)
    words = [*[0] * proposals, *list(places) * 104, *[0] * proposals]
    values = noise._accepted(sigma, proposals, Script.of(words)).tolist()

    assert values == sorted(set(values))
    if widest < 1000:
        assert values == list(range(13 * sigma))
    assert all(type(value) is int and 0 <= value < 13 * sigma for value in values)
    for value, exponent in zip(values, seen, strict=True):
        start = Fraction((8 * value // sigma) ** 2, 128)
        assert exponent >= 0
        assert start + exponent == Fraction(value * value, 2 * sigma * sigma)


@pytest.mark.parametrize(
    ("place", "coin", "expected"),
    [
        (0, 0, [0]),
        (0, 1, []),  # minus zero
        (5, 0, [5]),
        (5, 1, [-5]),
        (128, 0, [128]),  # 1025 / 8 = 128.125: the last place of block 0
        (2**64 - 128, 0, [128]),  # 2^64 = 127 modulo 129: the last 127 words would favour 0 to 126
        (2**64 - 127, 0, []),
        (2**64 - 1, 0, []),
        (128, FULL - 1, []),  # U close to 1, above the curve
    ],
)
def test_fate_of_a_proposal(place: int, coin: int, expected: list[int]) -> None:
    assert noise._accepted(1025, 1, Script.of([0, place, coin])).tolist() == expected


def test_a_place_beyond_a_narrow_block_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "_blocks", lambda words, entropy: np.array([1]))
    # block 1 of sigma 1025 is 129 to 256; place 128 would be 257, the start of block 2
    assert noise._accepted(1025, 1, Script.of([0, 127, 0])).tolist() == [256]
    assert noise._accepted(1025, 1, Script.of([0, 128, 0])).tolist() == []


def test_exponential_is_far_better_than_the_band_asks() -> None:
    points = -np.linspace(0.0, 1.7, 20_001)
    got = np.exp(points)
    with mpmath.workprec(200):
        ratios = [mpmath.mpf(g) / mpmath.exp(mpmath.mpf(p)) for g, p in zip(got, points, strict=True)]
        error = max(abs(ratio - 1) for ratio in ratios)
    assert error < 2.0**-50


@pytest.mark.parametrize("sigma", [2**10, 1_234_567, 2**44])
def test_floating_point_and_long_digits_agree(monkeypatch: pytest.MonkeyPatch, sigma: int) -> None:
    fast = noise._accepted(sigma, 3000, Entropy.seeded(11))
    calls = 0
    below = noise._below

    def counted(head: int, numerator: int, denominator: int, entropy: Entropy) -> bool:
        nonlocal calls
        calls += 1
        return below(head, numerator, denominator, entropy)

    monkeypatch.setattr(noise, "_BAND", 1.0)
    monkeypatch.setattr(noise, "_below", counted)
    slow = noise._accepted(sigma, 3000, Entropy.seeded(11))
    assert calls > 2900
    assert 2700 < len(fast) < calls
    assert np.array_equal(fast, slow)


@pytest.mark.parametrize(("steps", "doubted"), [(-(2**14), 0), (-(2**12), 1), (0, 1), (2**12, 1), (2**14, 0)])
def test_a_coin_within_the_band_is_doubted(monkeypatch: pytest.MonkeyPatch, steps: int, doubted: int) -> None:
    """Steps of 2^-53 away from the curve at place 100 of block 0; the band is 2^13 of them wide."""
    asked: list[tuple[int, int, int]] = []

    def record(head: int, numerator: int, denominator: int, entropy: Entropy) -> bool:
        asked.append((head, numerator, denominator))
        return steps > 0

    monkeypatch.setattr(noise, "_below", record)
    head = int(np.exp(-((800 / 1024) ** 2) / 128) * 2**53) + steps
    accepted = noise._accepted(1024, 1, Script.of([0, 100, head << 11])).tolist()
    assert asked == [(head, 800 * 800, 128 * 1024**2)] * doubted
    assert accepted == ([100] if (steps > 0) == bool(doubted) and steps != 0 else [])


@pytest.mark.parametrize("digits", [1, 2, 5])
@pytest.mark.parametrize(("nudge", "expected"), [(-1, True), (1, False)])
def test_doubt_is_settled_by_more_random_bits(digits: int, nudge: int, expected: bool) -> None:
    """U agrees with exp(-1/3) to 53 + 64 * digits bits and differs after that."""
    with mpmath.workprec(1000):
        bits = int(mpmath.floor(mpmath.exp(-mpmath.mpf(1) / 3) * 2 ** (53 + 64 * (digits + 1))))
    bits += nudge * 2**32
    head, *words = bits >> 64 * (digits + 1), *((bits >> 64 * i) & FULL for i in reversed(range(digits + 1)))
    script = Script(*([word] for word in words))
    assert noise._below(head, 1, 3, cast(Entropy, script)) is expected
    assert script.answers == []


def test_certainty_is_accepted_whatever_the_coin() -> None:
    assert noise._below(2**53 - 1, 0, 1, Script.of([FULL], [FULL], [FULL - 2**40]))
