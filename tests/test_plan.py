"""What is wrong with a specification is known before anything runs, and said by step."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.against import pin_against
from curation.ingest import Snapshot
from curation.plan import build_plan, name_plan
from curation.stage import OperatorStep, Plan
from curation.storage.store import FileRef
from schemas.errors import InputError
from schemas.pipeline import CurationSpec

DOWNLOAD = {"download": {"shortest_side_px": 64}}


def plan_of(steps: list, extra: dict | None = None, **more) -> Plan:
    spec = {"name": "x", "source": {"table": "t.parquet"}, "steps": steps} | more
    return build_plan(CurationSpec.model_validate(spec), extra or {}, captured=False)


def fingerprints(plan: Plan) -> dict[str, str]:
    return {step.name: step.base_fingerprint for step in plan.steps if isinstance(step, OperatorStep)}


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (["clip_score"], r"steps\[0\] clip_score: reads column 'clip_image', .*so far: key, url, caption.*clip_embed"),
        (["clip_scor"], r"steps\[0\] clip_scor: .*no operator is called 'clip_scor'; did you mean 'clip_score'"),
        ([{"keep": "captio = 'x'"}], r'steps\[0\] keep: Referenced column "captio" not found.*Candidates: "caption"'),
        ([{"keep": "length(caption)"}], r"steps\[0\] keep: .*is no predicate"),
        ([{"keep": "random() > 0.5"}], r"steps\[0\] keep: random\(\) does not give the same value every time"),
        (["inspect_image"], r"steps\[0\] inspect_image: reads column 'image'.*added by: download"),
        ([DOWNLOAD, DOWNLOAD], r"steps\[1\] download: adds column 'http_status', which an earlier step added"),
        ([DOWNLOAD, {"inspect_image": 5}], r"steps\[1\] inspect_image: wants its parameters as names and values"),
        ([{"download": {"shortest_side": 64}}], r"steps\[0\] download: .*did you mean 'shortest_side_px'"),
        ([{"dedup": {"by": "caption", "within": 4}}], r"steps\[0\] dedup: .*string"),
        ([{"top": {"by": "captions", "rows": 3}}], r"steps\[0\] top: .*captions"),
        ([{"keep": "true", "as": "foo"}], r"steps\[0\] keep: as: stands beside operators only"),
        ([{"dedup": {"by": "caption"}, "reads": {"a": "b"}}], r"steps\[0\] dedup: reads: stands beside operators only"),
    ],
)
def test_a_wrong_step_is_refused_by_a_sentence_that_names_it(steps, said):
    with pytest.raises(InputError, match=said):
        plan_of(steps, shards={"format": "parquet"})


def test_every_step_that_is_wrong_is_named_at_once_without_what_only_follows():
    steps = [
        {"download": {"shortest_side": 64}},  # would have brought pictures
        "inspect_image",
        {"keep": "width_px >= 64"},
        "clip_score",
        "clip_scor",
        {"keep": "clip_scor > 0.3 and download_status = 'ok'"},
        {"keep": "captio = ''"},
        {"derive": {"ratio": "width_px / height"}},
        {"top": {"by": "ratio", "rows": 3, "mark": "best", "rank": 1}},
        {"keep": "best and ratio > 2"},
    ]
    with pytest.raises(InputError) as caught:
        plan_of(steps)
    lines = str(caught.value).split("\n")
    assert [line.split(":")[0] for line in lines] == [
        "steps[0] download", "steps[3] clip_score", "steps[4] clip_scor", "steps[5] keep", "steps[6] keep",
        "steps[8] top",
    ]  # fmt: skip


def test_after_a_step_that_nobody_knows_missing_columns_are_not_blamed_on_others():
    with pytest.raises(InputError) as caught:
        plan_of(["zzzz", {"keep": "quality > 3"}, {"keep": "length(caption)"}])
    assert [line.split(":")[0] for line in str(caught.value).split("\n")] == ["steps[0] zzzz", "steps[2] keep"]


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (
            [{"top": {"by": "n", "rows": 3, "mark": "n"}}],
            "which the source has already; read the source's under another",
        ),
        (
            [{"top": {"by": "n", "rows": 3, "mark": "url"}}],
            "'url', which every row has; write another name behind `mark:`",
        ),
        ([{"derive": {"key": "n"}}], "'key', which every row has; call yours otherwise"),
        ([{"derive": {"a": "n"}}, {"derive": {"a": "n"}}], "'a', which an earlier step added; call yours otherwise"),
        (["caption_stats", "caption_stats"], "which an earlier step added; write `as: <prefix>` beside caption_stats"),
    ],
)
def test_a_column_that_is_there_already_is_refused_with_what_helps(steps, said):
    with pytest.raises(InputError) as caught:
        plan_of(steps, {"n": pa.int64()})
    assert said in str(caught.value)


def test_a_column_that_the_source_has_is_not_added_again_and_the_mapping_to_write_is_said():
    with pytest.raises(InputError, match=r"columns: \{source_phash: phash\}"):
        plan_of([DOWNLOAD, "image_hash"], {"phash": pa.uint64()})


def test_resources_for_what_no_step_names_are_refused():
    with pytest.raises(InputError, match="execution: there is no 'downlod'; did you mean 'download'"):
        plan_of([DOWNLOAD], execution={"downlod": {"concurrency": 4}})


def test_resources_reach_the_operator_and_change_no_fingerprint():
    plain, busy = plan_of([DOWNLOAD]), plan_of([DOWNLOAD], execution={"download": {"concurrency": 7}})
    assert busy.steps[0].operator.concurrency == 7
    assert fingerprints(plain) == fingerprints(busy)


def test_a_setting_changes_no_fingerprint_and_a_result_changes_that_of_all_that_read_it():
    steps = [DOWNLOAD, "inspect_image", "caption_stats"]
    slow = [{"download": {"shortest_side_px": 64, "timeout_s": 99}}, *steps[1:]]
    other = [{"download": {"shortest_side_px": 65}}, *steps[1:]]
    assert fingerprints(plan_of(steps)) == fingerprints(plan_of(slow))
    changed, before = fingerprints(plan_of(other)), fingerprints(plan_of(steps))
    assert {name for name in before if before[name] != changed[name]} == {"download", "inspect_image"}


def test_stages_are_cut_at_barriers_and_a_filter_changes_no_fingerprint():
    steps = [DOWNLOAD, {"keep": "length(caption) > 3"}, "image_hash", {"dedup": {"by": "phash"}}, "inspect_image"]
    plan = plan_of(steps)
    assert [len(stage.steps) for stage in plan.stages] == [3, 1]
    assert fingerprints(plan) == fingerprints(plan_of([step for step in steps if step != steps[1]]))


def test_two_uses_of_an_operator_take_a_prefix_and_share_their_sidecar():
    plan = plan_of(["caption_stats", {"caption_stats": None, "as": "again"}])
    assert plan.columns["again_caption_words"].step == 1
    assert plan.steps[0].base_fingerprint == plan.steps[1].base_fingerprint


def test_what_an_operator_reads_and_how_its_columns_are_called_name_another_plan():
    extra = {"alt": pa.string(), "title": pa.string()}
    snapshot = Snapshot("0" * 64, 0, (), FileRef("", 0, ""), 0, pa.schema([]))
    steps = [
        {"caption_stats": None, "reads": {"caption": "alt"}},
        {"caption_stats": None, "reads": {"caption": "title"}},
    ]
    steps.append({"caption_stats": None, "reads": {"caption": "alt"}, "as": "alt"})
    names = set()
    for step in steps:
        spec = CurationSpec.model_validate({"name": "x", "source": {"table": "t.parquet"}, "steps": [step]})
        names.add(name_plan(build_plan(spec, extra, captured=False), spec, snapshot, 0))
    assert len(names) == 3


@pytest.mark.parametrize(
    ("against", "said"),
    [
        ("nonesuch.parquet", "there is no 'nonesuch.parquet'; in {folder} there are: evaluation.parquet, other"),
        ("evaluaton.parquet", "there is no 'evaluaton.parquet'; did you mean 'evaluation.parquet'?"),
        ("evaluation.parquet", "{folder}/evaluation.parquet: there is no 'phash'; did you mean 'phsh'?"),
    ],
)
def test_what_is_wrong_with_against_is_said_by_step_with_what_exists(tmp_path, against, said):
    pq.write_table(pa.table({"phsh": pa.array([1], pa.uint64())}), tmp_path / "evaluation.parquet")
    (tmp_path / "other").mkdir()
    plan = plan_of([DOWNLOAD, "image_hash", {"dedup": {"by": "phash", "against": str(tmp_path / against)}}])
    with pytest.raises(InputError) as caught:
        pin_against(plan, "x")
    assert str(caught.value).startswith("steps[2] dedup: against: ")
    assert said.format(folder=tmp_path) in str(caught.value)
