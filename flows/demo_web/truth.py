"""The funnel held against what was planted: precision and recall of every step."""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from flows.demo_web.shares import KINDS
from schemas.manifest import read_manifest

# Which kinds of pairs a step of pipelines/curation/demo.yaml is there to take out.
STEPS: dict[str, tuple[str, ...]] = {
    "worded": ("no_content",),
    "english": ("foreign_language",),
    "steps[4] download": tuple(name for name, kind in KINDS.items() if kind.cure == "download"),
    "big_enough": ("tiny_image",),
    "exact": ("exact_duplicate", "second_caption"),
    "near": ("near_duplicate",),
    "matching": ("wrong_caption",),
}


@dataclass(frozen=True)
class StepTruth:
    """One step: rows that it took out, those of them that it should, and those planted that reached it."""

    step: str
    kinds: tuple[str, ...]
    taken_out: int
    rightly: int
    planted: int

    @property
    def precision(self) -> float | None:
        """The part of the rows taken out that was planted for this step."""
        return self.rightly / self.taken_out if self.taken_out else None

    @property
    def recall(self) -> float | None:
        """The part of the planted rows that reached the step which it took out."""
        return self.rightly / self.planted if self.planted else None


def held_against_truth(truth: Path, manifest_path: Path) -> list[StepTruth]:
    """Every step of the demo's curation against the truth about its web.

    Of a duplicate and its original one must go, and it is right whichever does: a row taken out as a duplicate counts
    as right where the row that was kept instead shows the same picture.
    """
    manifest = read_manifest(manifest_path)
    samples = [str(manifest_path.parent / sample.parquet) for sample in manifest.samples]
    labels = [entry.step for entry in manifest.funnel]
    found = []
    with duckdb.connect(":memory:") as database:
        database.execute(
            """
            CREATE TABLE fates AS
            SELECT key, fate, fate_step, duplicate_of, kind, picture
            FROM read_parquet($samples) AS s JOIN read_parquet($truth) AS t
              ON coalesce(s.url, '') = coalesce(t.url, '') AND coalesce(s.caption, '') = coalesce(t.caption, '')
            """,
            {"samples": samples, "truth": str(truth)},
        )
        for step, kinds in STEPS.items():
            later = [*labels[labels.index(step) :], ""]
            query = """
                SELECT count(*) FILTER (fate_step = $step),
                       count(*) FILTER (fate_step = $step AND (kind IN (SELECT unnest($kinds))
                                        OR picture = (SELECT picture FROM fates AS o WHERE o.key = f.duplicate_of))),
                       count(*) FILTER (kind IN (SELECT unnest($kinds)) AND fate_step IN (SELECT unnest($later)))
                FROM fates AS f
                """
            asked = {"step": step, "kinds": list(kinds), "later": later}
            ((taken_out, rightly, planted),) = database.execute(query, asked).fetchall()
            found.append(StepTruth(step, kinds, taken_out, rightly, planted))
    return found
