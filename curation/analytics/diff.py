"""What two versions have apart: keys, fates by step, and the steps themselves."""

import difflib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curation.analytics.query import connect, question
from curation.storage.store import Store
from curation.versions import resolve
from schemas.manifest import Manifest

_EXAMPLES = 3
_SHOWN_MOVES = 30


@dataclass(frozen=True)
class Move:
    """Rows that ended otherwise in B than in A; fate and step are None where the version does not have the key."""

    fate_a: str | None
    step_a: str | None
    fate_b: str | None
    step_b: str | None
    rows: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """Two versions side by side; `spec` is a unified diff of the declared steps and shards."""

    a: str
    b: str
    counts: Mapping[str, int]
    moves: tuple[Move, ...]
    spec: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """The difference as JSON values."""
        return asdict(self)

    def text(self) -> str:
        """The difference for people."""
        lines = [f"a: {self.a}", f"b: {self.b}", "", f"{'':10}{'both':>14}{'only a':>14}{'only b':>14}"]
        for what in ("pool", "curated"):
            row = [self.counts[f"{what}_{column}"] for column in ("both", "only_a", "only_b")]
            lines.append(f"{what:10}" + "".join(f"{count:>14,}" for count in row))
        lines += ["", "Rows that ended otherwise:" if self.moves else "Every row of both ended alike."]
        lines += moves_text(self.moves)
        lines += ["", "Steps and shards:" if self.spec else "Steps and shards are declared alike."]
        return "\n".join([*lines, *(f"  {line}" for line in self.spec)])


def moves_text(moves: Sequence[Move]) -> list[str]:
    """Moves for people, a line each; of very many the first."""
    lines = []
    for move in moves[:_SHOWN_MOVES]:
        before, after = _ended(move.fate_a, move.step_a), _ended(move.fate_b, move.step_b)
        lines.append(f"  {move.rows:>12,}  {before} -> {after}   {', '.join(move.examples)}")
    return lines + ([f"  and {len(moves) - _SHOWN_MOVES} kinds more"] if len(moves) > _SHOWN_MOVES else [])


def diff(store_path: Path | str, a: str, b: str) -> Difference:
    """Compare two versions, each as `name`, `name@version` or `name@tag`. Raises InputError."""
    store = Store.existing(store_path)
    one, two = resolve(store, a), resolve(store, b)
    both = {"a": one.label, "b": two.label}
    name, version = one.manifest.name, one.manifest.version
    with (
        tempfile.TemporaryDirectory() as folder,
        connect(store_path, name, version, both, downloads=False, spill=Path(folder)) as connection,
    ):
        counts = connection.execute(question("diff_counts"))
        names = [column[0] for column in counts.description or []]
        totals = dict(zip(names, counts.fetchone() or (), strict=True))
        found = connection.execute(question("diff_moves"), {"examples": _EXAMPLES}).fetchall()
    moves = tuple(Move(fa, sa, fb, sb, rows, tuple(keys)) for fa, sa, fb, sb, rows, keys in found)
    return Difference(one.label, two.label, totals, moves, tuple(_spec_lines(one.manifest, two.manifest)))


def _spec_lines(a: Manifest, b: Manifest) -> list[str]:
    """The declared steps and shards as a unified diff without its head."""
    lines = difflib.unified_diff(_declared(a), _declared(b), lineterm="", n=1)
    return [line for line in lines if not line.startswith(("---", "+++"))]


def _declared(manifest: Manifest) -> list[str]:
    """One line per step, then one per setting of the shards."""
    steps = manifest.spec.get("steps", [])
    shards = manifest.spec.get("shards", {})
    lines = [json.dumps(step, ensure_ascii=False, sort_keys=True) for step in steps]
    return lines + [f"shards.{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in sorted(shards.items())]


def _ended(fate: str | None, step: str | None) -> str:
    return "not there" if fate is None else f"{fate} at {step}" if step else fate
