"""`match_terms`: what MetaCLIP's substring matching finds, by the definition, and in a run."""

import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_job, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.operator import Batch
from curation.operators.match_terms import MatchTerms, spaced
from curation.plan import build_plan
from schemas.errors import InputError, RunError
from schemas.manifest import read_manifest
from schemas.pipeline import CurationSpec

repeatably = settings(deadline=None, derandomize=True, max_examples=60)
texts = st.text("ab A.,`\t\n\r-é犬", max_size=14)


def operator(tmp_path: Path, terms: list[str] | str, name: str = "terms.txt") -> MatchTerms:
    (tmp_path / name).write_text(terms if isinstance(terms, str) else "".join(f"{term}\n" for term in terms))
    return MatchTerms(terms=str(tmp_path / name))


def matched(step: MatchTerms, *captions: str | None) -> list[list[str]]:
    step.check()
    table = pa.table({"key": [str(n) for n in range(len(captions))], "caption": pa.array(captions, pa.string())})
    return list(step.run(Batch(table), step.open()).values["matched_terms"])


def slow_spaced(text: str) -> str:
    """The rule, character by character."""
    wrapped = "".join(f" {c} " if c in ",.;:?!`" else " " if c in "\t\n\r" else c for c in text)
    return f" {wrapped} "


@repeatably
@given(terms=st.lists(texts.filter(bool), min_size=1, max_size=8), captions=st.lists(texts, max_size=5))
def test_the_terms_are_those_that_stand_between_spaces(
    tmp_path_factory: Any, terms: list[str], captions: list[str]
) -> None:
    step = operator(tmp_path_factory.mktemp("terms"), json.dumps(terms), "terms.json")
    expected = [sorted({term for term in terms if f" {term} " in slow_spaced(caption)}) for caption in captions]
    assert matched(step, *captions) == expected


def test_terms_are_whole_words_case_sensitive_and_may_overlap(tmp_path: Path) -> None:
    step = operator(tmp_path, ["dog", "Dog", "hot dog", "dog show", "a", "é", "dog"])
    assert matched(step, "A hot dog show", "a Dog!", "hotdog, dog-show", "hot\tdog\nshow; é", "dog") == [
        ["dog", "dog show", "hot dog"],
        ["Dog", "a"],
        [],
        ["dog", "dog show", "hot dog", "é"],
        ["dog"],
    ]


def test_a_term_with_punctuation_never_occurs_as_in_the_reference(tmp_path: Path) -> None:
    assert matched(operator(tmp_path, ["e.g.", "St. Ives", "rock'n'roll"]), "e.g. St. Ives, rock'n'roll") == [
        ["rock'n'roll"]
    ]
    assert spaced("a.b") == " a . b "


def test_a_missing_caption_is_an_empty_one(tmp_path: Path) -> None:
    assert matched(operator(tmp_path, ["a"]), None, "", "a") == [[], [], ["a"]]


def test_lines_and_json_give_the_same_terms(tmp_path: Path) -> None:
    lines = operator(tmp_path, "a\r\n\n  hot dog \nb")
    as_json = operator(tmp_path, json.dumps(["a", "hot dog", "b", ""]), "terms.json")
    assert matched(lines, "a b hot dog") == matched(as_json, "a b hot dog") == [["a", "b", "hot dog"]]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("terms.txt", b"\n \n", "holds no term; write one a line"),
        ("terms.json", b'{"a": 1}', "holds no JSON list of texts"),
        ("terms.json", b"[1]", "holds no JSON list of texts"),
        ("terms.json", b"[", "terms.json cannot be read: Expecting value"),
        ("terms.txt", b"\xff", "terms.txt cannot be read: 'utf-8' codec"),
        ("no.txt", None, "no.txt cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_is_no_list_of_terms_is_refused_when_the_step_is_planned(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as refusal:
        planned({"match_terms": {"terms": str(tmp_path / name)}})
    assert "steps[0] match_terms: terms: " in str(refusal.value)
    assert said in str(refusal.value)


def planned(step: dict[str, Any]) -> Any:
    spec = CurationSpec.model_validate({"name": "x", "source": {"table": "x.parquet"}, "steps": [step]})
    return build_plan(spec, {}, captured=False).steps[0]


def test_the_fingerprint_is_that_of_the_files_content_and_not_of_its_path(tmp_path: Path) -> None:
    def fingerprint(name: str) -> str:
        return planned({"match_terms": {"terms": str(tmp_path / name)}}).base_fingerprint

    for name, terms in (("a.txt", "dog\n"), ("b.txt", "dog\n"), ("c.txt", "cat\n")):
        (tmp_path / name).write_text(terms)
    assert fingerprint("a.txt") == fingerprint("b.txt") != fingerprint("c.txt")


def test_a_file_that_changed_after_the_plan_stops_the_run(tmp_path: Path) -> None:
    step = operator(tmp_path, ["dog"])
    built = pickle.loads(pickle.dumps(planned({"match_terms": {"terms": step.terms}}))).operator
    built.open()
    operator(tmp_path, ["dog", "cat"])
    with pytest.raises(RunError, match=r"terms\.txt has SHA-256 .* must not change during a run"):
        built.open()


def test_a_wrong_digest_in_the_specification_is_refused(tmp_path: Path) -> None:
    step = operator(tmp_path, ["dog"])
    with pytest.raises(InputError, match="terms_sha256"):
        planned({"match_terms": {"terms": step.terms, "terms_sha256": "0" * 64}})


def test_lists_go_through_a_run_to_sql_to_shards_and_to_the_next_run(tmp_path: Path) -> None:
    captions = ["a hot dog", "two cats", None, "dog", "a dog, a cat"]
    rows = [{"url": f"http://127.0.0.1/{n}.jpg", "caption": text} for n, text in enumerate(captions)]
    operator(tmp_path, ["dog", "hot dog", "cat", "a"])
    match = {"match_terms": {"terms": str(tmp_path / "terms.txt")}}
    keeps = [{"keep": "len(matched_terms) > 0"}, {"keep": "list_contains(matched_terms, 'dog')"}]
    again = {"derive": {"again": "matched_terms"}}
    source = {"table": write_table(tmp_path / "pairs.parquet", rows), "rows_per_part": 2}
    spec = {"name": "s", "store": str(tmp_path / "store"), "source": source, "shards": {"format": "parquet"}}
    result = run_job(spec | {"steps": [match, *keeps, again]})
    assert [entry["rows_out"] for entry in result.funnel] == [5, 5, 3, 3, 3]
    manifest = read_manifest(result.manifest)
    table = pq.read_table(result.manifest.parent / manifest.shards[0].parquet)
    assert table.schema.field("matched_terms").type == pa.list_(pa.string())
    assert dict(zip(table["caption"].to_pylist(), table["matched_terms"].to_pylist(), strict=True)) == {
        "a hot dog": ["a", "dog", "hot dog"],
        "dog": ["dog"],
        "a dog, a cat": ["a", "cat", "dog"],
    }
    assert table["again"].to_pylist() == table["matched_terms"].to_pylist()
    assert run_job(spec | {"steps": [match, *keeps, again]}).version == result.version
    next_source = {"manifest": str(result.manifest)}
    next_steps = [{"keep": "len(matched_terms) > 1"}]
    assert run_job(spec | {"name": "t", "source": next_source, "steps": next_steps}).curated == 2


def test_the_terms_of_another_column_are_matched_where_reads_says_so(tmp_path: Path) -> None:
    rows = [{"url": "http://127.0.0.1/0.jpg", "caption": "dog", "vlm_caption": "a cat"}]
    operator(tmp_path, ["dog", "cat"])
    match = {"match_terms": {"terms": str(tmp_path / "terms.txt")}, "reads": {"caption": "vlm_caption"}}
    source = {"table": write_table(tmp_path / "pairs.parquet", rows)}
    spec = {"name": "s", "store": str(tmp_path / "store"), "source": source, "shards": {"format": "parquet"}}
    result = run_job(spec | {"steps": [match]})
    table = pq.read_table(result.manifest.parent / read_manifest(result.manifest).shards[0].parquet)
    assert table["matched_terms"].to_pylist() == [["cat"]]
