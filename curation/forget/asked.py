"""What somebody asks to forget: keys, URLs and hosts in files, or rows by SQL; checked before anything is written."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from curation import sql_expression
from curation.analytics.query import connect
from curation.fetch.block_lists import domains_in
from curation.forget.tombstones import TABLE, hash_of
from curation.storage.store import Store
from curation.versions import resolve
from schemas.errors import InputError

_KEY = re.compile(r"[0-9a-f]{32}\Z")
_SHOWN = 5


@dataclass(frozen=True)
class Asked:
    """One selector and its value, and the set whose newest version `where` is over (None: the only one)."""

    selector: str  # keys, urls, hosts or where
    value: str
    name: str | None = None

    @classmethod
    def of(cls, given: Mapping[str, str | None], name: str | None = None) -> "Asked | None":
        """The only selector that was given; None where there is none. Raises InputError for several."""
        said = {selector: value for selector, value in given.items() if value is not None}
        if len(said) > 1:
            options = " and ".join(f"--{selector}" for selector in said)
            raise InputError(f"forget: {options} are given together; give one at a time")
        if name is not None and "where" not in said:
            raise InputError("forget: --name says which set --where is over; without --where it has no meaning")
        return next((cls(selector, value, name) for selector, value in said.items()), None)

    def tombstones(self, store: Store) -> pa.Table:
        """The tombstones that are asked for, before any row is looked for. Raises InputError."""
        if self.selector == "urls":
            return _table("url", [hash_of(url) for url in _lines("--urls", self.value)])
        if self.selector == "hosts":
            return _table("host", [hash_of(host) for host in _hosts(self.value)])
        return _table("key", self._keys_where(store) if self.selector == "where" else _keys(self.value))

    def _keys_where(self, store: Store) -> list[str]:
        """The keys of the samples for which a predicate is true."""
        version = resolve(store, self.name)
        name, _, _ = version.label.partition("@")
        with connect(store.root, name, version.manifest.version, downloads=False, evaluations=False) as samples:
            names = [row[0] for row in samples.execute("DESCRIBE samples").fetchall()]
            try:
                sql_expression.require_function_of_row(self.value, names)
                kind = samples.execute(f"DESCRIBE SELECT (\n{self.value}\n) FROM samples").fetchall()[0][1]
                if kind != "BOOLEAN":
                    raise InputError(f"is no predicate: {self.value} is {kind}; compare it with something")
                found = samples.execute(f"SELECT key FROM samples WHERE (\n{self.value}\n) ORDER BY key").fetchall()
            except InputError as error:
                raise InputError(f"forget: --where: {error}") from error
            except duckdb.Error as error:
                said = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
                raise InputError(f"forget: --where: {said.partition(' LINE ')[0]}") from error
        if not found:
            raise InputError(
                f"forget: --where {self.value}: is true for no row of {version.label}; nothing is forgotten"
            )
        return [key for (key,) in found]


def _table(kind: str, hashes: list[str]) -> pa.Table:
    return pa.table([pa.array([kind] * len(hashes), pa.string()), pa.array(hashes, pa.string())], schema=TABLE)


def _lines(option: str, path: str) -> list[str]:
    """The lines of a file, each once, without empty ones. Raises InputError."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise InputError(
            f"forget: {option} {path}: cannot be read: {said}; name a text file, one entry a line"
        ) from error
    lines = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    _require_any(option, path, lines)
    return lines


def _require_any(option: str, path: str, found: Sequence[str]) -> None:
    if not found:
        raise InputError(f"forget: {option} {path}: holds nothing; write one entry a line")


def _hosts(path: str) -> list[str]:
    _lines("--hosts", path)
    try:
        hosts = sorted(domains_in(path))
    except InputError as error:
        raise InputError(f"forget: --hosts {error}") from error
    _require_any("--hosts", path, hosts)
    return hosts


def _keys(path: str) -> list[str]:
    lines = [line.lower() for line in _lines("--keys", path)]
    wrong = [line for line in lines if not _KEY.match(line)]
    if wrong:
        raise InputError(f"forget: --keys {path}: {few(wrong)}: a key is 32 hex digits, one a line")
    return lines


def few(found: Sequence[str]) -> str:
    """The first of many, and how many more there are."""
    more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more
