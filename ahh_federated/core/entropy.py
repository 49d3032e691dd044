"""Entropy: the only source of random words on a release path."""

from __future__ import annotations

import hmac
import os
from operator import index
from typing import NoReturn, final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

_ZERO_COUNTER = bytes(16)  # every stream has a key of its own, so all may start at counter zero
_SEED_SPACE = b"ahh_federated/entropy/1"
_STREAM, _CHILD = b"\x00", b"\x01"

_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):  # where it is missing a process cannot fork
    os.register_at_fork(after_in_child=_count_fork)


def _process() -> tuple[int, int]:
    # A process id may be reused by a grandchild and the fork hook is missed by a fork made in C:
    # together they notice either.
    return os.getpid(), _forks


@final
class Entropy:
    """A stream of uniform 64-bit words: the AES-256-CTR key stream (NIST SP 800-38A, section 6.5).

    Make one with `system` (a node) or `seeded` (the laboratory), and `derive` one for each release.
    A system stream takes a new key from the operating system in every forked process. It cannot be
    copied or pickled, since two holders of one stream would add the same noise to two sums, whose
    difference is then exact. Not for use by two threads at once.
    """

    __slots__ = ("_cipher", "_owner", "_root")

    def __init__(self, root: bytes | None) -> None:
        """A stream below a 32-byte `root`; None takes a key from the operating system."""
        self._root = root
        self._rekey()

    @classmethod
    def system(cls) -> Entropy:
        """A stream nobody can foresee: 32 fresh bytes of `os.urandom` are its key."""
        return cls(None)

    @classmethod
    def seeded(cls, seed: int) -> Entropy:
        """A repeatable stream, for the laboratory only: whoever knows the seed sees through the noise."""
        return cls(hmac.digest(_SEED_SPACE, str(index(seed)).encode(), "sha256"))

    @property
    def private(self) -> bool:
        """Whether nobody can repeat this stream; False when seeded."""
        return self._root is None

    def derive(self, label: bytes) -> Entropy:
        """An independent stream for one release.

        Below a seed it is fixed by the seed and the label (HMAC-SHA-256 as a pseudo-random function),
        however much was drawn before. Below the system it has a fresh key, and the label only names it.
        """
        if self._root is None:
            return Entropy.system()
        return Entropy(hmac.digest(self._root, _CHILD + label, "sha256"))

    def words(self, n: int) -> NDArray[np.uint64]:
        """The next `n` words, shape (n,), read-only; the same stream whatever the size of the calls.

        Raises ValueError when n is negative.
        """
        if n < 0:
            raise ValueError(f"words: n = {n} is negative; ask for zero or more")
        if self._root is None and self._owner != _process():
            self._rekey()
        return np.frombuffer(self._cipher.update(bytes(8 * n)), dtype="<u8").astype(np.uint64, copy=False)

    def _rekey(self) -> None:
        self._owner = _process()
        key = os.urandom(32) if self._root is None else hmac.digest(self._root, _STREAM, "sha256")
        self._cipher: CipherContext = Cipher(algorithms.AES(key), modes.CTR(_ZERO_COUNTER)).encryptor()

    def __repr__(self) -> str:
        return f"Entropy(private={self.private})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("Entropy cannot be copied or pickled: it would repeat its noise; derive a new stream")
