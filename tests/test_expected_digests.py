"""`expect_sha256` is a policy over what was fetched: it costs no fetch, and plans that differ in it share the bytes."""

import hashlib
import tarfile
from pathlib import Path
from typing import Any

from conftest import SmallWeb, run_job, textured_jpeg, write_table

from curation.analytics.query import asked


def spec_of(folder: Path, rows: list[dict[str, Any]], steps: list[Any], name: str = "s") -> dict[str, Any]:
    table = write_table(folder / f"{name}.parquet", rows)
    source = {"table": table, "rows_per_part": 4}
    return {"name": name, "store": str(folder / "store"), "source": source, "steps": steps}


def pairs(web: SmallWeb) -> list[dict[str, Any]]:
    """Six pictures, the last of which is not what the source saw."""
    bodies = [textured_jpeg(i) for i in range(6)]
    digests = [hashlib.sha256(body).hexdigest() for body in bodies[:5]] + ["0" * 64]
    return [
        {"url": web.put(f"/{i}.jpg", body), "caption": f"picture {i}", "expected": digest}
        for i, (body, digest) in enumerate(zip(bodies, digests, strict=True))
    ]


def statuses(folder: Path, name: str = "s") -> list[tuple[str, str, str]]:
    text = "SELECT caption, status, fate FROM samples ORDER BY caption"
    with asked(folder / "store", text, name=name) as answer:
        return [(row["caption"], row["status"], row["fate"]) for row in answer.records()]


DOWNLOAD = {"allow_networks": ["127.0.0.0/8"], "retries": 0}


def test_another_digest_fails_the_row_and_no_later_step_sees_it(web: SmallWeb, tmp_path: Path) -> None:
    steps = [{"download": DOWNLOAD | {"expect_sha256": "expected"}}, "inspect_image", {"keep": "status = 'ok'"}]
    result = run_job(spec_of(tmp_path, pairs(web), steps))
    found = statuses(tmp_path)
    assert found[:5] == [(f"picture {i}", "ok", "curated") for i in range(5)]
    assert found[5] == ("picture 5", "sha256_mismatch", "failed")
    assert (result.pool, result.curated) == (6, 5)
    assert [step["reason"] for step in result.funnel if step["kind"] == "download"] == ["sha256_mismatch 1"]


def test_a_policy_that_comes_or_goes_fetches_nothing(web: SmallWeb, tmp_path: Path) -> None:
    rows = pairs(web)
    strict, lenient = [{"download": DOWNLOAD | {"expect_sha256": "expected"}}], [{"download": DOWNLOAD}]
    run_job(spec_of(tmp_path, rows, strict))
    assert run_job(spec_of(tmp_path, rows, lenient)).curated == 6
    assert run_job(spec_of(tmp_path, rows, strict)).curated == 5
    assert set(web.asked.values()) == {1}


def test_two_halves_of_a_source_share_what_the_whole_has_fetched(web: SmallWeb, tmp_path: Path) -> None:
    rows = pairs(web)
    steps = [{"download": DOWNLOAD | {"expect_sha256": "expected"}}]
    run_job(spec_of(tmp_path, rows, steps))
    run_job(spec_of(tmp_path, rows[::2], steps, "half"))
    changed = [row | {"expected": "f" * 64} for row in rows[:1]]
    assert run_job(spec_of(tmp_path, changed, steps, "other")).curated == 0
    assert set(web.asked.values()) == {1}


def test_originals_lie_beside_the_pictures_that_were_made_of_them(web: SmallWeb, tmp_path: Path) -> None:
    rows = pairs(web)
    step = {"download": DOWNLOAD | {"store_original": True, "longest_side_px": 32}}
    store = Path(run_job(spec_of(tmp_path, rows, [step])).manifest).parents[2]
    found = {}
    for tar in set(store.rglob("*.tar")) - set((store / "curated").rglob("*")):
        with tarfile.open(tar) as opened:
            found |= {member.name: opened.extractfile(member).read() for member in opened}
    originals = {name: data for name, data in found.items() if name.endswith(".original")}
    addresses = {hashlib.sha256(row["url"].encode()).hexdigest()[:32]: i for i, row in enumerate(rows)}
    assert {addresses[name[:32]]: data for name, data in originals.items()} == dict(
        enumerate(map(textured_jpeg, range(6)))
    )
    assert len(originals) == len(web.asked) == 6
