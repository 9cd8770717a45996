"""`join`: columns from a table outside, published lists of ids, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_job, write_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curation.selection.join import Join
from schemas.columns import embedding
from schemas.errors import InputError, RunError
from schemas.manifest import read_manifest
from schemas.pipeline import CurationSpec
from schemas.reading import read_yaml

repeatably = settings(
    deadline=None, derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ids = st.one_of(st.none(), st.integers(0, 12))


def outside(tmp_path: Path, columns: dict[str, Any], name: str = "outside.parquet") -> str:
    pq.write_table(pa.table(columns), tmp_path / name)
    return str(tmp_path / name)


def pool(values: list[Any], kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"key": [f"{n * 7 % 32:032x}" for n in range(len(values))], "on_0": pa.array(values, kind)})


def kept(step: Join, values: list[Any]) -> list[bool]:
    return list(step.decide(pool(values)).kept.tolist())


@repeatably
@given(st.lists(ids, max_size=20), st.lists(ids, max_size=12, unique=True), st.booleans(), st.integers(1, 3))
def test_every_row_gets_what_its_partner_has_or_null_and_is_kept_if_it_has_one(
    tmp_path: Path, ours: list[int | None], theirs: list[int | None], keep_only: bool, files: int
) -> None:
    for old in tmp_path.glob("t*.parquet"):
        old.unlink()
    for n, some in enumerate(np.array_split(np.array(theirs, object), files)):
        uid = pa.array(some.tolist(), pa.int32())
        outside(tmp_path, {"uid": uid, "twice": pa.compute.multiply(uid, 2)}, f"t{n}.parquet")
    step = Join(table=str(tmp_path / "t*.parquet"), on="uid", columns=["twice"], keep_only=keep_only)
    decision = step.decide(pool(ours, pa.int64()))
    has_partner = [value is not None and value in theirs for value in ours]
    assert decision.columns["twice"].to_pylist() == [
        2 * value if there else None  # type: ignore[operator]
        for value, there in zip(ours, has_partner, strict=True)
    ]
    assert decision.kept.tolist() == (has_partner if keep_only else [True] * len(ours))


def test_a_published_list_keeps_the_rows_that_it_names(tmp_path: Path) -> None:
    step = Join(table=outside(tmp_path, {"uid": ["b", "d", None, "x"]}), on="uid", keep_only=True)
    assert step.adds == ()
    assert kept(step, ["a", "b", None, "d", "b"]) == [False, True, False, True, True]
    assert step.decide(pool(["a"])).reason == "no row of the table has its uid"


def test_an_id_twice_in_the_table_is_an_error_that_names_it_whoever_comes_first(tmp_path: Path) -> None:
    step = Join(table=outside(tmp_path, {"uid": ["c", "a", "b", "b", "a", "z", "z"]}), on="uid", keep_only=True)
    with pytest.raises(RunError, match="the table has several rows with uid 'b'; leave one of them there"):
        step.decide(pool(["c", "b", "a"]))
    with pytest.raises(RunError, match="uid 'b'"):
        step.decide(pool(["c", "b", "a"]).take([2, 1, 0]))
    assert kept(step, ["c"]) == [True]  # what no row of the pool asks for harms nobody


def test_columns_keep_their_types_and_take_the_names_that_are_given(tmp_path: Path) -> None:
    vectors = embedding("vec", 2, "")
    halves = pa.array([np.array([1, 2], np.float16).tobytes(), None], vectors.type)
    table = {
        "uid": [1, 2],
        "score": pa.array([0.5, None], pa.float32()),
        "words": pa.array([["a"], []], pa.list_(pa.string())),
        "kind": pa.array(["x", "y"]).dictionary_encode(),
    }
    path = tmp_path / "typed.parquet"
    fields = [*pa.table(table).schema, vectors.field]
    pq.write_table(pa.table([*table.values(), halves], schema=pa.schema(fields)), path)
    names = {"laion_score": "score", "words": "words", "kind": "kind", "vec": "vec"}
    step = Join(table=str(path), on="uid", columns=names)
    types = {column.name: column.type for column in step.adds}
    assert types["laion_score"] == pa.float32()
    assert types["words"] == pa.list_(pa.string())
    assert types["vec"] == vectors.type
    found = step.decide(pool([2, 1, 3])).columns
    assert {name: column.type for name, column in found.items()} == types
    assert found["words"].to_pylist() == [[], ["a"], None]
    assert found["vec"].to_pylist() == [None, halves[0].as_py(), None]


def test_a_path_that_looks_like_a_glob_is_the_file_of_that_name(tmp_path: Path) -> None:
    outside(tmp_path, {"uid": [9]}, "ids1.parquet")
    step = Join(table=outside(tmp_path, {"uid": [1]}, "ids[1].parquet"), on="uid", keep_only=True)
    assert kept(step, [1, 9]) == [True, False]


@pytest.mark.parametrize(
    ("ours", "theirs", "fits"),
    [
        (pa.int64(), pa.uint64(), True),
        (pa.int8(), pa.int64(), True),
        (pa.string(), pa.large_string(), True),
        (pa.string(), pa.int64(), False),
        (pa.int64(), pa.string(), False),
        (pa.float64(), pa.int64(), False),
        (pa.binary(), pa.string(), False),
        (pa.timestamp("us"), pa.timestamp("us"), True),
    ],
    ids=str,
)
def test_types_to_match_by_must_agree(tmp_path: Path, ours: pa.DataType, theirs: pa.DataType, fits: bool) -> None:
    step = Join(table=outside(tmp_path, {"uid": pa.array([None], theirs)}), on="uid", keep_only=True)
    if fits:
        step.check({"on_0": ours})
    else:
        with pytest.raises(
            InputError, match=r"on: column .uid. is of type \S+ in the pool and of type \S+ in the table"
        ):
            step.check({"on_0": ours})


def test_a_table_that_is_not_there_or_lacks_a_column_is_refused_with_what_there_is(tmp_path: Path) -> None:
    path = outside(tmp_path, {"uid": [1], "score": [0.5]})
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(InputError, match=r"table: there is no file .*outsid\.parquet.*did you mean 'outside\.parquet'"):
        Join(table=str(tmp_path / "outsid.parquet"), on="uid", keep_only=True).check({"on_0": pa.int64()})
    with pytest.raises(InputError, match="there is no 'uidd'; did you mean 'uid'"):
        Join(table=path, on="uidd", keep_only=True).check({"on_0": pa.int64()})
    with pytest.raises(InputError, match="there is no 'scor'; did you mean 'score'"):
        _ = Join(table=path, on="uid", columns=["scor"]).adds
    with pytest.raises(InputError, match=r"text\.parquet"):
        Join(table=str(tmp_path / "text.parquet"), on="uid", keep_only=True).check({"on_0": pa.int64()})
    outside(tmp_path, {"uid": ["1"]}, "other.parquet")
    with pytest.raises(InputError, match="column 'uid' is of type int64, but string in other files"):
        Join(table=(str(path), str(tmp_path / "other.parquet")), on="uid", keep_only=True).check({"on_0": pa.int64()})


@pytest.mark.parametrize("parameters", [{}, {"columns": []}, {"columns": ["a"], "mark": "m"}, {"keep_only": "maybe"}])
def test_parameters_that_make_no_sense_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Join.model_validate({"table": "t.parquet", "on": "uid"} | parameters)


def spec(tmp_path: Path, *steps: Any, **more: Any) -> dict[str, Any]:
    rows = [{"url": f"http://h.example/{n}.jpg", "caption": f"caption {n}", "uid": n} for n in range(12)]
    source = {"table": write_table(tmp_path / "pairs.parquet", rows), "rows_per_part": 5}
    shards = {"format": "parquet"}
    return {"name": "set", "store": str(tmp_path / "store"), "source": source, "steps": list(steps), "shards": shards}


def curated(result: Any) -> dict[int, dict[str, Any]]:
    manifest = read_manifest(result.manifest)
    tables = [pq.read_table(result.manifest.parent / shard.parquet).to_pylist() for shard in manifest.shards]
    return {row["uid"]: row for table in tables for row in table}


def test_joined_columns_feed_later_steps_and_stand_in_the_shards(tmp_path: Path) -> None:
    scores = {"uid": list(range(1, 12)), "score": [n / 4 for n in range(1, 12)]}
    join = {"join": {"table": outside(tmp_path, scores), "on": "uid", "columns": ["score"]}}
    steps = ({"keep": "uid <> 11"}, join, {"derive": {"double": "2 * score"}}, {"top": {"by": "double", "rows": 3}})
    result = run_job(spec(tmp_path, *steps))
    found = curated(result)
    assert {uid: (row["score"], row["double"]) for uid, row in found.items()} == {
        uid: (uid / 4, uid / 2) for uid in (8, 9, 10)
    }
    again = run_job(spec(tmp_path, *steps))
    assert again.version == result.version


def test_keep_only_drops_with_a_reason_and_another_list_is_another_plan(tmp_path: Path) -> None:
    path = outside(tmp_path, {"uid": [3, 4, 99]})
    join = {"join": {"table": path, "on": "uid", "keep_only": True}}
    result = run_job(spec(tmp_path, join))
    assert sorted(curated(result)) == [3, 4]
    (sample,) = read_manifest(result.manifest).samples
    rows = {row["uid"]: row for row in pq.read_table(result.manifest.parent / sample.parquet).to_pylist()}
    assert (rows[5]["fate"], rows[5]["fate_step"]) == ("dropped", "steps[0] join")
    assert rows[5]["fate_reason"] == "no row of the table has its uid"
    outside(tmp_path, {"uid": [5]})
    assert sorted(curated(run_job(spec(tmp_path, join)))) == [5]


def test_a_joined_column_that_is_there_already_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = outside(tmp_path, {"uid": [1], "caption": ["another"]})
    with pytest.raises(InputError, match=r"steps\[0\] join: adds column 'caption'.*columns: \{another_name: "):
        run_job(spec(tmp_path, {"join": {"table": path, "on": "uid", "columns": ["caption"]}}))
    renamed = {"join": {"table": path, "on": "uid", "columns": {"other": "caption"}}}
    assert curated(run_job(spec(tmp_path, renamed)))[1]["other"] == "another"


def test_an_error_while_joining_names_the_step(tmp_path: Path) -> None:
    path = outside(tmp_path, {"uid": [1, 1]})
    with pytest.raises(RunError, match=r"steps\[0\] join: the table has several rows with uid 1"):
        run_job(spec(tmp_path, {"join": {"table": path, "on": "uid", "keep_only": True}}))


def test_it_is_written_in_yaml_as_people_write_it(tmp_path: Path) -> None:
    text = "name: x\nsource: {table: x.parquet}\nsteps:\n  - join: {table: ids.parquet, on: uid, keep_only: true}\n"
    (tmp_path / "spec.yaml").write_text(text)
    (step,) = read_yaml(tmp_path / "spec.yaml", CurationSpec).spec.steps
    assert Join.model_validate(step.parameters) == Join(table="ids.parquet", on="uid", keep_only=True)
