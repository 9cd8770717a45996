"""Versions of curated sets: which there are, what a text means, and tags that never move."""

import pytest
from small_store import add_version, new_store, pair, start_run, usual_pairs

from curation.storage import layout
from curation.storage.store import Store
from curation.versions import names, read_runs, read_tags, resolve, tag, versions
from schemas.errors import InputError


@pytest.fixture
def store(tmp_path) -> Store:
    return new_store(tmp_path)


@pytest.fixture
def two(store) -> tuple[str, str]:
    """An older and a newer version of `demo`."""
    return add_version(store, usual_pairs()), add_version(store, [*usual_pairs(), pair(40)], plan="plan1")


def test_versions_are_listed_newest_first_with_their_counts(store, two):
    found = versions(store, "demo")
    assert [(v.version, v.newest, v.rows, v.pool) for v in found] == [(two[1], True, 8, 13), (two[0], False, 7, 12)]
    assert found[0].finished_at > found[1].finished_at


def test_the_newest_is_what_the_last_started_run_made(store, two):
    """A second run of the older specification makes the older version the newest again."""
    number = start_run(store, "demo", "plan0")
    assert resolve(store, "demo").manifest.version == two[1]  # not before the run has finished
    store.put(layout.finished(number), {"name": "demo", "version": two[0], "plan": "plan0", "at": 1.8e9})
    assert resolve(store, "demo").manifest.version == two[0]
    assert [v.version for v in versions(store, "demo")] == [two[0], two[1]]


def test_a_run_that_never_finished_hides_nothing(store, two):
    start_run(store, "demo", "plan9")
    newest = add_version(store, usual_pairs()[:5], plan="plan2")
    assert resolve(store, "demo").manifest.version == newest
    assert [run.version is None for run in read_runs(store)] == [False, False, True, False]


def test_a_slow_run_that_started_earlier_is_not_the_newest(store):
    slow = start_run(store, "demo", "slow")
    quick = add_version(store, usual_pairs(), plan="quick")
    other = add_version(store, usual_pairs()[:4], plan="late")
    store.put(layout.finished(slow), {"name": "demo", "version": quick, "plan": "slow", "at": 2e9})
    assert resolve(store, "demo").manifest.version == other


def test_a_version_is_named_whole_by_its_beginning_or_by_a_tag(store, two):
    tag(store, f"demo@{two[0]}", "v1")
    for text in (f"demo@{two[0]}", f"demo@{two[0][:6]}", "demo@v1"):
        assert resolve(store, text).label == f"demo@{two[0]}"
    assert resolve(store).label == resolve(store, "demo").label == f"demo@{two[1]}"


def test_an_unknown_version_names_those_there_are(store, two):
    tag(store, f"demo@{two[0]}", "v1")
    with pytest.raises(InputError, match=rf"no version or tag 'zz'; it has {two[1]}, {two[0]} \(v1\)"):
        resolve(store, "demo@zz")


def test_a_beginning_of_several_versions_is_refused(store):
    made = [add_version(store, usual_pairs()[:n], plan=f"plan{n}") for n in range(1, 12)]
    shared = next(a for i, v in enumerate(made) for a in v[:1] if any(w[0] == a for w in made[:i]))
    with pytest.raises(InputError, match=f"several versions of demo start with '{shared}'"):
        resolve(store, f"demo@{shared}")


def test_an_unknown_set_names_those_there_are(store, two):
    with pytest.raises(
        InputError, match=r"'other': the store .* has no finished version of it; it has the data set demo"
    ):
        versions(store, "other")
    assert names(store) == ["demo"]


def test_an_empty_store_says_how_to_fill_it(store):
    with pytest.raises(InputError, match="pairmill run SPEC"):
        resolve(store)


def test_a_version_whose_manifest_was_pruned_is_not_listed(store, two):
    store.path(layout.curated("demo", f"{two[0]}.json")).unlink()
    assert [v.version for v in versions(store, "demo")] == [two[1]]


def test_tags_are_listed_and_stay(store, two):
    tag(store, f"demo@{two[0]}", "v1")
    tag(store, "demo", "paper")
    tag(store, "demo", "v2")
    assert read_tags(store, "demo") == {"v1": two[0], "paper": two[1], "v2": two[1]}
    assert {v.version: v.tags for v in versions(store, "demo")} == {two[0]: ("v1",), two[1]: ("paper", "v2")}


def test_tagging_the_same_again_is_no_error(store, two):
    tag(store, "demo", "v1")
    assert tag(store, "demo", "v1").manifest.version == two[1]
    assert len(read_tags(store, "demo")) == 1


def test_a_tag_is_never_moved(store, two):
    tag(store, f"demo@{two[0]}", "v1")
    with pytest.raises(InputError, match=f"names demo@{two[0]} already, and a tag is never moved"):
        tag(store, "demo", "v1")
    assert read_tags(store, "demo") == {"v1": two[0]}


@pytest.mark.parametrize("text", ["", "V1", "../x", "a b", "-x", "0123456789abcdef", "a/b", "v1\n"])
def test_what_cannot_be_a_tag_is_refused(store, two, text):
    with pytest.raises(InputError, match="a tag has lower-case letters"):
        tag(store, "demo", text)


def test_of_two_who_tag_at_once_both_tags_stay(store, two, monkeypatch):
    """Another process puts its tag between our reading and our put: we read again and come after it."""
    put = Store.put
    late = []

    def put_after_another(self, name, record):
        if "tags/" in name and not late:
            late.append(name)
            put(self, name, {"tag": "theirs", "version": two[0]})
        return put(self, name, record)

    monkeypatch.setattr(Store, "put", put_after_another)
    tag(store, "demo", "ours")
    assert read_tags(store, "demo") == {"theirs": two[0], "ours": two[1]}


def test_no_folder_is_listed(store, two, monkeypatch):
    import os

    def refuse(*_):
        raise AssertionError("a folder was listed")

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "listdir", refuse)
    tag(store, "demo", "v1")
    assert len(versions(store, "demo")) == 2
    assert resolve(store, "demo@v1").manifest.version == two[1]
