"""`explain` and `diff`: what is known of one pair, and what two versions have apart."""

import json

import pytest
from small_store import LABELS, STEPS, add_downloads, add_version, key_of, new_store, pair, usual_pairs

from curation.analytics.diff import diff
from curation.analytics.explain import explain
from curation.storage.store import Store
from curation.versions import tag, versions
from schemas.errors import InputError
from schemas.pins import put_pin


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An older version, tagged v1, and a newer one in which row 20 is dropped, row 3 is gone and row 40 is new."""
    store = new_store(tmp_path_factory.mktemp("explain"))
    add_downloads(store, usual_pairs())
    add_version(store, usual_pairs())
    tag(store, "demo", "v1")
    newer = [row for row in usual_pairs() if row["key"] not in (key_of(3), key_of(20))]
    add_version(store, [*newer, pair(40), pair(20, 2)], plan="plan1", spec={"steps": STEPS[:3], "shards": {"rows": 4}})
    return store


def outcomes(explanation) -> list[str]:
    return [step.outcome for step in explanation.steps]


def test_a_curated_pair_passed_every_step_and_stands_in_a_shard(store):
    (found,) = explain(store.root, key_of(21))
    assert outcomes(found) == ["passed"] * 4
    assert (found.fate, found.fate_step, found.duplicate_of) == ("curated", "", None)
    assert found.source["caption"] == "caption 21"
    for place in found.places:
        keys = store.path(f"curated/demo/{place.tar}").read_bytes()
        assert key_of(21).encode() in keys[::1]
        assert place.parquet.startswith(place.version)


def test_position_is_the_row_of_the_shard(store):
    import pyarrow.parquet as pq

    for number in (21, 22, 26):
        for place in explain(store.root, key_of(number))[0].places:
            table = pq.read_table(store.path(f"curated/demo/{place.parquet}"))
            assert table["key"][place.position].as_py() == key_of(number)


def test_who_uses_the_version_that_a_pair_stands_in_is_told(store):
    (newest, *_) = versions(store, "demo")
    put_pin(newest.path, newest.version, "the training run clip")
    (found,) = explain(store.root, key_of(22))
    assert next(p for p in found.places if p.version == newest.version).used_by == ("the training run clip",)
    assert "; used by the training run clip" in found.text()


def test_a_dropped_pair_tells_the_step_its_reason_and_what_the_step_saw(store):
    (found,) = explain(store.root, key_of(4))
    assert outcomes(found) == ["passed", "passed", "dropped", "not reached"]
    assert found.steps[2].values == {"width_px": 40}
    assert found.steps[2].reason == "width_px >= 64"
    assert found.steps[3].values == {}


def test_a_failed_pair_tells_status_and_error(store):
    (found,) = explain(store.root, key_of(2))
    assert outcomes(found) == ["passed", "failed", "not reached", "not reached"]
    assert found.steps[1].values["status"] == "http_404"
    assert found.steps[1].reason == "http_404: Not Found"
    assert [line["status"] for line in found.downloads] == ["http_404"]


def test_a_duplicate_names_the_row_that_was_kept(store):
    (found,) = explain(store.root, key_of(30))
    assert (found.fate_step, found.duplicate_of) == (LABELS[3], key_of(20))


def test_versions_may_judge_one_pair_differently(store):
    (found,) = explain(store.root, key_of(20))
    assert [(place.fate, place.tags) for place in found.places] == [("dropped", ()), ("curated", ("v1",))]


def test_a_key_that_only_an_older_version_has_is_explained_by_that_one(store):
    (found,) = explain(store.root, key_of(3))
    assert [place.tags for place in found.places] == [("v1",)]
    assert found.version == found.places[0].version


def test_the_beginning_of_a_key_is_enough_where_it_is_unique(store):
    assert explain(store.root, key_of(21)[:8])[0].key == key_of(21)


def test_a_beginning_of_several_keys_is_refused_with_the_keys(tmp_path):
    store = new_store(tmp_path)
    rows = [pair(n) for n in range(40)]
    add_version(store, rows)
    with pytest.raises(InputError, match="several keys of demo begin so"):
        explain(store.root, key_of(0)[:1])


@pytest.mark.parametrize("key", ["0" * 32, "f" * 31])
def test_an_unknown_key_is_a_sentence(store, key):
    with pytest.raises(InputError, match="no version of demo has such a key"):
        explain(store.root, key)


@pytest.mark.parametrize("key", ["", "XYZ", "' OR true --", "a" * 33, "0x"])
def test_what_is_no_key_is_refused(store, key):
    with pytest.raises(InputError, match="32 lower-case hex digits"):
        explain(store.root, key)


def test_every_set_that_has_the_key_explains_it(tmp_path):
    store = new_store(tmp_path)
    add_version(store, usual_pairs(), name="one")
    add_version(store, usual_pairs(), name="two", plan="plan1")
    assert [found.name for found in explain(store.root, key_of(21))] == ["one", "two"]
    assert [found.name for found in explain(store.root, key_of(21), "two")] == ["two"]


def test_an_explanation_is_text_and_json(store):
    (found,) = explain(store.root, key_of(30))
    text = found.text()
    assert "steps[3] dedup: dropped" in text
    assert f"duplicate of: {key_of(20)}" in text
    assert json.loads(json.dumps(found.record()))["fate"] == "dropped"


def test_diff_counts_keys_and_tells_which_rows_ended_otherwise(store):
    found = diff(store.root, "demo@v1", "demo")
    assert found.counts == {
        "pool_both": 11,
        "pool_only_a": 1,
        "pool_only_b": 1,
        "curated_both": 6,
        "curated_only_a": 1,
        "curated_only_b": 1,
    }
    moves = {(move.step_a, move.step_b): move for move in found.moves}
    assert set(moves) == {("", LABELS[2]), (LABELS[1], None), (None, "")}
    assert moves["", LABELS[2]].examples == (key_of(20),)
    assert sum(move.rows for move in found.moves) == 3


def test_diff_shows_the_steps_that_were_changed(store):
    found = diff(store.root, "demo@v1", "demo")
    assert [line for line in found.spec if line.startswith(("-", "+"))] == [
        '-{"name": "dedup", "parameters": {"by": "phash", "within": 4}}',
        "-shards.seed: 0",
    ]
    assert "dropped at big_enough" in found.text()
    assert json.loads(json.dumps(found.record()))["a"] == found.a


def test_a_version_differs_in_nothing_from_itself(store):
    found = diff(store.root, "demo", "demo")
    assert (found.moves, found.spec) == ((), ())
    assert "Every row of both ended alike." in found.text()


def test_diff_backwards_is_the_mirror_image(store):
    forth, back = diff(store.root, "demo@v1", "demo"), diff(store.root, "demo", "demo@v1")
    assert {(m.step_a, m.step_b, m.rows) for m in forth.moves} == {(m.step_b, m.step_a, m.rows) for m in back.moves}
    assert forth.counts["curated_only_a"] == back.counts["curated_only_b"]
