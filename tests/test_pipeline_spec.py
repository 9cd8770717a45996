"""What a curation specification may say, the JSON Schema that editors get, and the examples that we ship."""

import os
from pathlib import Path

import jsonschema
import pyarrow as pa
import pytest
from pydantic import ValidationError

from curation.plan import build_plan, shards_wanted
from curation.registry import Registry, dataset_steps
from schemas.pipeline import CurationSpec, Step, spec_schema
from schemas.reading import read_yaml
from schemas.yaml_text import parse

EXAMPLES = sorted((Path(__file__).parent.parent / "pipelines" / "curation").glob("*.yaml"))
SMALLEST = {"name": "demo", "source": {"table": "a.parquet"}}


def spec(**more) -> CurationSpec:
    return CurationSpec.model_validate(SMALLEST | more)


def schema() -> dict:
    registry = Registry()
    operators = {name: registry.operator(name).operator_class() for name in registry.operators}
    return spec_schema(dataset_steps() | operators)


def test_what_is_left_out_has_the_defaults_of_the_contract():
    found = spec()
    assert (found.source.table, found.source.kind, found.source.rows_per_part) == (("a.parquet",), "table", 10_000)
    assert (found.shards.format, found.shards.rows, found.shards.seed) == ("webdataset", 10_000, 0)
    assert (found.shards.caption, found.shards.columns, found.shards.holdout) == ("caption", None, None)
    assert found.steps == ()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("language", {"name": "language"}),
        ({"language": None}, {"name": "language"}),
        ({"keep": "a > 1"}, {"name": "keep", "parameters": "a > 1"}),
        ({"top": {"rows": 5}, "as": "d"}, {"name": "top", "parameters": {"rows": 5}, "as_prefix": "d"}),
        ({"top": {"rows": 5, "as": "d", "id": "h"}}, {"name": "top", "parameters": {"rows": 5}, "as": "d", "id": "h"}),
        ({"top": {}, "reads": {"a": "b"}}, {"name": "top", "parameters": {}, "reads": {"a": "b"}}),
        ({"derive": {"id": "uid"}, "id": "one"}, {"name": "derive", "parameters": {"id": "uid"}, "id": "one"}),
    ],
)
def test_a_step_is_a_name_or_a_name_with_parameters(written, meant):
    assert spec(steps=[written]).steps == (Step(**meant),)


def test_steps_survive_the_way_through_a_manifest():
    steps = spec(steps=["language", {"image_hash": {"kind": "dhash"}, "as": "d"}, {"keep": "a"}]).steps
    for step in steps:
        assert Step.model_validate(step.model_dump(mode="json", exclude_defaults=True)) == step


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "Demo"}, "should match pattern"),
        ({"name": "demo\n"}, "should match pattern"),
        ({"source": {}}, "name exactly one of table, manifest, webdataset, folder, img2dataset (here: none)"),
        ({"source": {"table": "a", "folder": "b"}}, "(here: table, folder)"),
        ({"source": {"table": []}}, "at least 1 item"),
        ({"source": {"table": "a", "vectors": {}}}, "Extra inputs are not permitted"),
        ({"source": {"table": "a", "rows_per_part": 0}}, "greater than or equal to 1"),
        ({"shards": {"rows": 0}}, "greater than or equal to 1"),
        ({"shards": {"format": "tar"}}, "'webdataset' or 'parquet'"),
        ({"shards": {"holdout": {"rows": 0}}}, "greater than or equal to 1"),
        ({"execution": {"download": {"cpus": 0}}}, "greater than 0"),
        ({"steps": [{"keep": "a", "top": {}}]}, "a step has one name, beside id, as, reads (here: keep, top)"),
        ({"steps": [{"id": "x"}]}, "a step has one name, beside id, as, reads (here: none)"),
        ({"steps": [["keep"]]}, "a step is a name, or a name with its parameters"),
        ({"steps": [{"top": {"id": "a"}, "id": "b"}]}, "'id' stands beside the parameters and among them"),
        ({"steps": [{"keep": "a", "id": "x"}, {"keep": "b", "id": "x"}]}, "the id 'x' is also that of steps[0]"),
        ({"steps": [{"keep": "a", "id": "source"}]}, "the id 'source' has a meaning of its own"),
        ({"steps": [{"keep": "a", "id": "shards"}]}, "the id 'shards' has a meaning of its own"),
        ({"steps": [{"keep": "a", "id": "language"}, "language"]}, "the id 'language' is the name of another step"),
        ({"steps": [{"keep": "a", "id": "9a"}]}, "should match pattern"),
    ],
)
def test_what_the_contract_does_not_allow_is_refused(change, said):
    with pytest.raises(ValidationError) as raised:
        spec(**change)
    assert said in str(raised.value)


def test_a_specification_cannot_be_changed():
    with pytest.raises(ValidationError):
        spec().name = "other"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_our_examples_can_be_read_and_fit_the_json_schema(path):
    read_yaml(path, CurationSpec)
    jsonschema.validate(parse(path.read_text(), str, os.environ).value, schema())


@pytest.mark.parametrize(
    ("name", "source_columns"),
    [("pictures", {}), ("metadata_only", {"clip_score": pa.float32(), "phash": pa.uint64()})],
)
def test_our_examples_can_be_planned_where_their_source_has_what_they_say(name, source_columns):
    path = next(path for path in EXAMPLES if path.stem == name)
    found = read_yaml(path, CurationSpec).spec
    plan = build_plan(found, source_columns, captured=False)
    assert len(plan.steps) == len(found.steps)
    assert shards_wanted(found, plan).rows == found.shards.rows


@pytest.mark.parametrize(
    "step",
    [
        "language",
        {"language": None},
        {"download": {"shortest_side_px": 256}, "id": "fetch"},
        {"dedup": {"by": "phash", "within": 4, "id": "near"}},
        {"derive": {"aspect": "width_px / height_px", "one": 1}},
        {"keep": "width_px > 3"},
    ],
)
def test_the_json_schema_takes_what_is_right(step):
    jsonschema.validate(SMALLEST | {"steps": [step]}, schema())


@pytest.mark.parametrize(
    "step",
    [
        "langauge",
        "dedup",
        {"langauge": None},
        {"download": {"shortest_side": 256}},
        {"image_hash": {"kind": "xhash"}},
        {"keep": {"a": 1}},
        {"keep": "a", "ids": "x"},
        {"dedup": {"within": 4}},
        {"derive": {"a": ["b"]}},
        5,
    ],
)
def test_the_json_schema_refuses_what_is_wrong(step):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(SMALLEST | {"steps": [step]}, schema())


def test_the_json_schema_takes_operators_of_ones_own_where_their_folders_are_named():
    own = SMALLEST | {"operators": ["ops"]}
    for step in ("shout", {"shout": {"loud": True}, "id": "x"}, {"shout": None}, "language"):
        jsonschema.validate(own | {"steps": [step]}, schema())
    for step in ({"download": {"shortest_side": 256}}, "dedup", {"keep": 1}, {}, 5):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(own | {"steps": [step]}, schema())


def test_every_reference_of_the_json_schema_leads_somewhere():
    found = schema()
    text = str(found)
    jsonschema.Draft202012Validator.check_schema(found)
    names = {part.split("'")[0] for part in text.split("#/$defs/")[1:]}
    assert names <= set(found["$defs"])
