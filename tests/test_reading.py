"""Reading a YAML file: numbers as people write them, and every error with its file, line and what is allowed."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from schemas.errors import SpecError
from schemas.pipeline import CurationSpec
from schemas.reading import Read, read_yaml

SPEC = """\
name: demo
store: ${BASE}/demo
source:
  table: pairs.parquet
  rows_per_part: 12_800
steps:
  - keep: length(caption) > 3
  - language
  - dedup: {by: phash, within: 4, id: near_dup}
  - image_hash: {kind: dhash}
    as: d
"""


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")


def read(folder: Path, text: str | bytes, *overrides: str, model: type[BaseModel] = CurationSpec, **env: str) -> Read:
    path = folder / "spec.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(path, model, overrides=overrides, environment={"BASE": "/data"} | env)


def error(folder: Path, text: str | bytes, *overrides: str, **env: str) -> str:
    with pytest.raises(SpecError) as raised:
        read(folder, text, *overrides, **env)
    return str(raised.value).replace(f"{folder}/", "")


def values(folder: Path, text: str, **env: str) -> dict:
    return read(folder, text, model=Anything, **env).spec.model_extra


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("12_800_000", 12_800_000),
        ("1e-3", 0.001),
        ("1.5e3", 1500.0),
        ("-.5", -0.5),
        ("0x1F", 31),
        ("010", 10),
        ("true", True),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_a", "1_a"),
        ("'5'", "5"),
        ("=", "="),
        ("language = 'no'", "language = 'no'"),
    ],
)
def test_a_value_is_what_people_mean_by_it(tmp_path, written, meant):
    found = values(tmp_path, f"x: {written}")["x"]
    assert found == meant
    assert type(found) is type(meant)


def test_variables_are_replaced_in_any_text_and_two_dollars_are_one(tmp_path):
    text = "a: ${BASE}/x\nb: ['${BASE}${BASE}', {c: \"$${BASE}\"}]\nd: 'a$'\ne: $HOME\nf: 5$$"
    assert values(tmp_path, text) == {
        "a": "/data/x",
        "b": ["/data/data", {"c": "${BASE}"}],
        "d": "a$",
        "e": "$HOME",
        "f": "5$",
    }


def test_what_a_variable_holds_is_not_read_as_yaml(tmp_path):
    assert values(tmp_path, "a: ${EVIL}", EVIL="x: [1, 2") == {"a": "x: [1, 2"}
    assert values(tmp_path, "a: ${EVIL}", EVIL="${BASE}") == {"a": "${BASE}"}


def test_an_unset_variable_is_named_with_its_line(tmp_path):
    assert error(tmp_path, SPEC.replace("BASE", "NOPE")) == (
        "spec.yaml:2: ${NOPE}: the environment has no NOPE; set it, or write $${NOPE}"
    )
    assert "'${' begins a variable" in error(tmp_path, SPEC.replace("${BASE}", "${BASE"))


def test_a_specification_knows_where_its_pieces_stand(tmp_path):
    found = read(tmp_path, SPEC)
    assert found.where("steps", 2, "dedup", "within") == f"{tmp_path}/spec.yaml:9"
    assert found.where("steps", 3, "as") == f"{tmp_path}/spec.yaml:11"
    assert found.where("steps", 3, "nothing of that name") == f"{tmp_path}/spec.yaml:10"
    assert found.where("shards") == f"{tmp_path}/spec.yaml:1"
    assert found.located("steps[1] language: is wrong") == f"{tmp_path}/spec.yaml:8: steps[1] language: is wrong"
    assert found.located("the table is not there") == f"{tmp_path}/spec.yaml: the table is not there"


def test_every_error_of_a_file_is_told_at_once_with_its_line(tmp_path):
    wrong = SPEC.replace("store:", "stor:").replace("12_800", "0\n  rowsperpart: 3").replace("  - language", "  - 5")
    assert error(tmp_path, wrong).split("\n") == [
        "spec.yaml:5: source.rows_per_part: must be at least 1 (here: 0)",
        "spec.yaml:6: source.rowsperpart: there is no 'rowsperpart'; did you mean 'rows_per_part'? allowed: arrays, "
        "columns, folder, img2dataset, manifest, rows_per_part, table, webdataset",
        "spec.yaml:9: steps[1]: a step is a name, or a name with its parameters, as in `download: {timeout_s: 20}` "
        "(here: 5)",
        "spec.yaml:2: stor: there is no 'stor'; did you mean 'store'? allowed: execution, name, operators, shards, "
        "source, steps, store",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "spec.yaml: is empty"),
        ("# only a comment", "spec.yaml: is empty"),
        ("[1]", "spec.yaml:1: a specification is a mapping of names to values, this is a list"),
        ("\n\nhello", "spec.yaml:3: a specification is a mapping of names to values, this is a value: 'hello'"),
        ("a: [1", "spec.yaml:1: is no YAML: expected ',' or ']'"),
        ("a: 1\n b: 2", "spec.yaml:2: is no YAML: mapping values are not allowed here"),
        ("a: 1\na: 2", "spec.yaml:2: 'a' is there twice; keep one"),
        ("a: {b: {c: 1,\n c: 2}}", "spec.yaml:2: 'c' is there twice; keep one"),
        ("a:\n  b: \0", "spec.yaml:2: is no YAML: the character U+0000 is not allowed"),
        (b"a: \xff\xfe", "spec.yaml: is not UTF-8 text (byte 3)"),
        ("---\na: 1\n---\nb: 2", "spec.yaml:3: is no YAML: but found another document"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "spec.yaml:1: the tag !!python/object/apply:os.system is not taken",
        ),
        ("a: !secret x", "spec.yaml:1: the tag !secret is not taken"),
        ("a: !!binary aGk=", "spec.yaml:1: the tag !!binary is not taken"),
        ("a: !!int x", "spec.yaml:1: 'x' cannot be read"),
        ("{<<: {a: 1}}", "spec.yaml:1: '<<' (merging mappings) is not taken"),
        ("? [a, b]\n: 1", "spec.yaml:1: a name must be plain text"),
        ("a: *b", "spec.yaml:1: is no YAML: found undefined alias 'b'"),
        ("a: &a [*a]", "spec.yaml:1: is nested deeper than 40 levels"),
        ("a: " + "[" * 5_000, "spec.yaml:1: is nested deeper than 40 levels"),
        ("a: 1" + " " * (1 << 20), "spec.yaml: has more than 1,048,576 bytes"),
        ("a: " + "9" * 5_000, "spec.yaml:1: '999"),
    ],
)
def test_what_is_no_specification_gets_a_sentence(tmp_path, text, said):
    assert error(tmp_path, text).startswith(said)


def test_aliases_of_aliases_cannot_fill_the_memory(tmp_path):
    lines = ["a: &a [" + ", ".join("1" * 10) + "]"]
    for above, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [" + ", ".join([f"*{above}"] * 10) + "]")
    assert "stands for more than 100,000 values" in error(tmp_path, "\n".join(lines))


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "pictures.yaml").write_text(SPEC)
    for path, said in [
        (tmp_path / "picture.yaml", f"there is no such file; did you mean {tmp_path}/pictures.yaml?"),
        (tmp_path / "no" / "such.yaml", "there is no such file"),
        (tmp_path, "is a folder; name the YAML file in it"),
        ("a\0b", "cannot be read: embedded null byte"),
    ]:
        with pytest.raises(SpecError) as raised:
            read_yaml(path, CurationSpec)
        assert str(raised.value) == f"{path}: {said}"


def test_overrides_change_values_by_place_by_id_and_in_sections_that_the_file_leaves_out(tmp_path):
    found = read(
        tmp_path,
        SPEC,
        "steps[0].keep=width_px >= 64",
        "near_dup.within=2",
        "steps[1].language.id=lang",
        "shards.holdout.rows=5",
        "execution.download.concurrency=3",
        "source.table=[a.csv, b.csv]",
    )
    spec = found.spec
    assert spec.steps[0].parameters == "width_px >= 64"
    assert (spec.steps[2].parameters["within"], spec.steps[1].id) == (2, "lang")
    assert (spec.shards.holdout.rows, spec.execution["download"].concurrency) == (5, 3)
    assert spec.source.table == ("a.csv", "b.csv")
    assert found.where("steps", 2, "dedup", "within") == "--set near_dup.within=2"
    assert found.where("steps", 2, "dedup", "by") == f"{tmp_path}/spec.yaml:9"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("shards", "write it as name=value, for example shards.rows=1000"),
        ("a b=1", "'a b' is no name"),
        ("near_dub.within=2", "there is no 'near_dub'; did you mean 'near_dup'?"),
        ("steps[9].keep=x", "steps has 4 entries, from [0] to [3]; there is no [9]"),
        (
            "steps[0].keep.x=1",
            "steps[0].keep is 'length(caption) > 3', which has no names in it; write --set steps[0].keep=…",
        ),
        ("near_dup.dedup.within=2", "'near_dup' stands for what is said of dedup; write --set near_dup.within=…"),
        ("worded.keep=x", "'worded' stands for what is said of keep; write --set worded=<SQL>"),
        ("steps[2].dedupe.within=1", "steps[2] has no dedupe; it has: dedup"),
        ("shards.rows=ten", "shards.rows: must be a whole number (here: 'ten')"),
        ("shards.rowz=1", "shards.rowz: there is no 'rowz'; did you mean 'rows'?"),
        ("store=[", "is no YAML"),
        ("store=", "store: must be text"),
        ("steps[1].language.id=Not This", "steps[1].id: must match"),
    ],
)
def test_a_wrong_override_is_named_as_it_was_written(tmp_path, override, said):
    spec = SPEC.replace("- keep:", "- id: worded\n    keep:", 1)
    assert error(tmp_path, spec, override).startswith(f"--set {override}: {said}")
