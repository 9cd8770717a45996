"""The user's own lists of what must never be stored: domains, and pictures by the SHA-256 or the PDQ of their bytes.

A list is a text file, one entry a line, `#` begins a comment. Hashes are 64 hex digits: `sha256:…` (or nothing before
the digits) of the bytes as they were fetched, `pdq:…` of the picture. PDQ (Meta, ThreatExchange) is a perceptual hash
of 256 bits; pictures within a Hamming distance of 31 count as the same there, and so they do here.
"""

import contextlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from curation.pdq import pdq_and_quality
from schemas.errors import InputError
from schemas.pixels import DecodeError, decode

PDQ_RADIUS = 31
_HASH = re.compile(r"(?:(sha256|pdq):)?([0-9a-f]{64})")
_DOMAIN = re.compile(r"[^\s/:@]+")


@dataclass(frozen=True, eq=False)
class BlockLists:
    """What is blocked."""

    domains: frozenset[str] = frozenset()
    sha256: frozenset[str] = frozenset()
    pdq_NB: np.ndarray | None = None  # uint8, N hashes of 32 bytes

    def host(self, host: str) -> str:
        """The entry that blocks a host: the host itself or a domain above it; empty where none does."""
        if not self.domains:
            return ""
        labels = host.rstrip(".").split(".")
        return next((name for i in range(len(labels)) if (name := ".".join(labels[i:])) in self.domains), "")

    def picture(self, stored: bytes) -> bool:
        """Whether a picture looks like a blocked one."""
        if self.pdq_NB is None:
            return False
        try:
            pdq, _ = pdq_and_quality(decode(stored))
        except DecodeError:
            return False
        distances_N = np.bitwise_count(self.pdq_NB ^ np.frombuffer(pdq, np.uint8)).sum(axis=1)
        return bool((distances_N <= PDQ_RADIUS).any())


@lru_cache(8)
def load_block_lists(domains: str | None, hashes: str | None) -> BlockLists:
    """The lists in two files, read once per process. Raises InputError."""
    digests: set[str] = set()
    pdq: list[bytes] = []
    for where, line in _lines(hashes):
        found = _HASH.fullmatch(line.lower())
        if found is None:
            raise InputError(f"{where}: {line!r} is no hash; write 64 hex digits, with sha256: or pdq: before them")
        if found[1] == "pdq":
            pdq.append(bytes.fromhex(found[2]))
        else:
            digests.add(found[2])
    pdq_NB = np.frombuffer(b"".join(pdq), np.uint8).reshape(-1, 32) if pdq else None
    return BlockLists(domains_in(domains), frozenset(digests), pdq_NB)


def domains_in(path: str | None) -> frozenset[str]:
    """The domains of a list as they are compared, read anew each time. Raises InputError."""
    names: set[str] = set()
    for where, line in _lines(path):
        name = line.lower().strip(".").removeprefix("*.")
        with contextlib.suppress(UnicodeError):
            name = name if name.isascii() else name.encode("idna").decode()
        if not _DOMAIN.fullmatch(name) or not name.isascii():
            raise InputError(f"{where}: {line!r} is no domain; write one a line, such as example.com")
        names.add(name)
    return frozenset(names)


def _lines(path: str | None) -> list[tuple[str, str]]:
    """(where, line) of a list, without comments and empty lines."""
    if path is None:
        return []
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: this block list cannot be read: {error}") from error
    lines = [(f"{path}, line {i}", line.partition("#")[0].strip()) for i, line in enumerate(text.splitlines(), 1)]
    return [(where, line) for where, line in lines if line]
