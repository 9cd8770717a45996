"""A report on a version: counts that agree with the rows, three formats with one content, a page that needs nothing."""

import base64
import hashlib
import html.parser
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import browser as headless
from conftest import SmallWeb, run_job, textured_jpeg, write_table
from selenium.webdriver.support.wait import WebDriverWait
from small_store import STEPS, add_version, new_store, usual_pairs

import curation.analytics.report as package
from curation.analytics.query import connect
from curation.analytics.report.page import written
from curation.analytics.report.write import write_report
from curation.storage.store import Store
from schemas.errors import InputError

HOSTILE = "<script>window.hacked = 1</script><img src=x onerror=window.hacked=1> | ]]> `x` {{ 7 * 7 }}"
ODD = "a.b[0]"  # a column that Vega would take for a path
SIGNALS = ["caption_words", "width_px", "score", ODD]


@pytest.fixture(scope="module")
def served() -> Iterator[SmallWeb]:
    from conftest import web

    yield from web.__wrapped__()


@pytest.fixture(scope="module")
def store(served: SmallWeb, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Twenty rows: two near duplicates, a dead link, a NULL score, small pictures, short captions, a hostile one."""
    folder = tmp_path_factory.mktemp("report")
    rows: list[dict[str, Any]] = []
    for i in range(18):
        size = (60, 50) if i in (4, 5, 6) else (140 + i, 120)
        caption = "short" if i in (5, 7) else HOSTILE if i == 8 else f"a picture of number {i}"
        url = served.put(f"/{i}.jpg", textured_jpeg(3 if i == 9 else i, *size))
        rows.append({"url": url, "caption": caption, "score": None if i == 10 else i / 20, ODD: i % 5})
    rows.append({"url": f"{served.base_url}/dead.jpg", "caption": "a dead link here", "score": 0.9, ODD: 2})
    rows.append({"url": "", "caption": "a row without URL", "score": 0.1, ODD: 1})
    steps = [
        "caption_stats",
        "language",
        {"download": {"allow_networks": ["127.0.0.0/8"], "retries": 0, "isolate": False}},
        "inspect_image",
        {"image_hash": {"kind": "phash"}},
        {"keep": "caption_words >= 3", "id": "worded"},
        {"keep": "width_px >= 100 and coalesce(score, 1) > 0.05", "id": "big"},
        {"dedup": {"by": "phash", "within": 4, "prefer": ["score"]}, "id": "near"},
        {"top": {"by": "score", "fraction": 0.5}, "id": "best"},
    ]
    source = {"table": write_table(folder / "pairs.parquet", rows), "rows_per_part": 7}
    run_job({"name": "demo", "store": str(folder / "store"), "source": source, "steps": steps, "shards": {"rows": 5}})
    return Store(folder / "store")


@pytest.fixture(scope="module")
def data(store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report's data, as its JSON has it."""
    return json.loads(write_report(store.root, None, tmp_path_factory.mktemp("json"), "json").read_text())


@pytest.fixture(scope="module")
def page(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report as a page."""
    return write_report(store.root, "demo", tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def rows(store: Store) -> list[dict[str, Any]]:
    """The samples."""
    with connect(store.root) as connection:
        found = connection.execute("FROM samples ORDER BY key")
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def table(data: dict[str, Any], section: str, name: str) -> list[dict[str, Any]]:
    return data["sections"][section]["tables"][name]


def test_the_funnel_tells_what_the_rows_tell(data, rows):
    steps = table(data, "funnel", "steps")
    assert [step["step"] for step in steps[-4:]] == ["worded", "big", "near", "best"]
    for step in steps:
        assert step["gone"] == sum(row["fate_step"] == step["step"] for row in rows)
    assert data["facts"]["curated"] == steps[-1]["rows_out"] == sum(row["fate"] == "curated" for row in rows)
    failed = table(data, "funnel", "failures")
    assert {(row["step"], row["class"], row["rows"]) for row in failed} == {
        ("source", "the row has no URL", 1),
        ("steps[2] download", "http_404", 1),
    }


def outcomes(row: dict[str, Any], best: float) -> list[bool | None]:
    """How a row that did not fail fares at worded, big, near and best, each for itself; None: nobody knows."""
    place = ["worded", "big", "near", "best", ""].index(row["fate_step"])
    score = row["score"]
    known = [
        row["caption_words"] >= 3,
        row["width_px"] >= 100 and (1 if score is None else score) > 0.05,
        None if place < 2 else place > 2,
        score is not None and score >= best if place < 3 else place > 3,
    ]
    return [True if place > i else False if place == i else value for i, value in enumerate(known)]


def test_what_filters_drop_alone_and_together_is_what_the_values_say(data, rows):
    alive = [row for row in rows if row["fate"] != "failed"]
    best = min(row["score"] for row in rows if row["fate"] == "curated")
    found = [outcomes(row, best) for row in alive]
    names = ["worded", "big", "near", "best"]
    effects = {row["step"]: row for row in table(data, "filters", "filters")}
    assert list(effects) == names
    for i, name in enumerate(names):
        mine = [row[:i] + row[i + 1 :] for row in found if row[i] is False]
        assert effects[name]["fails"] == len(mine)
        assert effects[name]["shared"] == sum(False in others for others in mine)
        assert effects[name]["alone"] == sum(False not in others for others in mine)
        assert effects[name]["all_known"] == sum(all(others) for others in mine)
    assert effects["worded"]["shared"] == 2  # both score too low, and one is too small as well
    pairs = {(row["filter"], row["other"]): row for row in data["sections"]["filters"]["plots"]["overlap"]["rows"]}
    for i, one in enumerate(names):
        for j, other in enumerate(names):
            first, second = min(i, j), max(i, j)
            compared = [row for row in found if row[first] is False and row[second] is not None]
            both = sum(row[second] is False for row in compared)
            assert pairs[one, other]["compared"] == len(compared)
            assert pairs[one, other]["rows"] == (both if compared else None)
    assert pairs["worded", "near"]["rows"] is None


def test_the_threshold_of_top_is_the_value_of_the_last_row_that_passed(data, rows):
    best = min(row["score"] for row in rows if row["fate"] == "curated")
    plot = data["sections"]["signals"]["plots"]["histogram_score"]
    assert plot["thresholds"] == [{"step": "best", "operator": ">=", "value": best}]
    plot = data["sections"]["signals"]["plots"]["histogram_width_px"]
    assert [line["value"] for line in plot["thresholds"]] == [100]


def test_signals_that_steps_add_come_before_those_that_ride_along(data):
    order = [row["signal"] for row in table(data, "signals", "signals")]
    assert order.index("height_px") < order.index(ODD)


@pytest.mark.parametrize("name", SIGNALS)
def test_a_histogram_counts_every_known_value_once(data, rows, name):
    plot = data["sections"]["signals"]["plots"][f"histogram_{name}"]
    known = [row for row in rows if row[name] is not None]
    assert plot["known"] == len(known)
    assert plot["total"] == len(rows)
    for fate in ("curated", "dropped", "failed"):
        counted = sum(row["rows"] for row in plot["rows"] if row["fate"] == fate)
        assert counted == sum(row["fate"] == fate for row in known)
    for place in plot["rows"]:
        inside = [row for row in known if place["start"] <= row[name] < place["end"] and row["fate"] == place["fate"]]
        assert place["rows"] == len(inside)


def test_the_nearest_rows_of_both_sides_stand_at_the_edge_of_a_threshold(data, rows):
    edge = data["sections"]["edges"]["pictures"]["big: width_px >= 100"]
    passed = sorted((row["width_px"] - 100, row["key"]) for row in rows if row["fate_step"] in ("near", "best", ""))
    dropped = sorted(
        (100 - row["width_px"], row["key"]) for row in rows if row["fate_step"] == "big" and row["width_px"] < 100
    )
    assert [picture["key"] for picture in edge["passed"]] == [key for _, key in passed][:6]
    assert [picture["key"] for picture in edge["dropped"]] == [key for _, key in dropped]
    assert edge["dropped"][0]["said"] == "60"


def test_a_group_of_duplicates_begins_with_the_row_that_was_kept(data, rows):
    (group,) = data["sections"]["duplicates"]["pictures"].values()
    (dropped,) = [row for row in rows if row["fate_step"] == "near"]
    assert [picture["key"] for picture in group["kept"]] == [dropped["duplicate_of"]]
    assert [picture["key"] for picture in group["dropped"]] == [dropped["key"]]
    assert table(data, "duplicates", "sizes of near") == [{"size": 2, "groups": 1}]


def test_origins_and_costs_are_counted(data, store):
    assert table(data, "hosts", "hosts")[0] | {"curated": 0, "share": 0} == {
        "host": "127.0.0.1", "rows": 19, "curated": 0, "share": 0, "failed": 1,
    }  # fmt: skip
    outcomes = {row["status"]: row["urls"] for row in table(data, "downloads", "downloads")}
    assert outcomes == {"ok": 18, "http_404": 1}
    assert [(row["caption"], row["rows"]) for row in table(data, "captions", "captions")] == [("short", 2)]
    stages = table(data, "cost", "stages")
    assert [(row["rows"], row["runs"]) for row in stages] == [(19, 1)]
    assert stages[0]["stage"].endswith("worded, big, near")
    assert sum(row["rows"] for row in data["sections"]["sizes"]["plots"]["sizes"]["rows"]) == 18
    assert sum(row["rows"] for row in table(data, "languages", "language")) == 19


def test_correlations_are_those_of_scipy(data, rows):
    from scipy.stats import spearmanr

    pairs = data["sections"]["correlations"]["plots"]["correlations"]["rows"]
    found = {(pair["signal"], pair["other"]): pair for pair in pairs}
    both = [(row["score"], row["width_px"]) for row in rows if None not in (row["score"], row["width_px"])]
    assert found["score", "width_px"]["value"] == pytest.approx(spearmanr(both).statistic, abs=6e-4)
    assert found["score", "width_px"]["rows"] == len(both)


def test_the_same_version_gives_the_same_bytes(store, data, page, tmp_path):
    assert json.loads(write_report(store.root, None, tmp_path, "json").read_text()) == data
    assert write_report(store.root, None, tmp_path).read_bytes() == page.read_bytes()
    first = write_report(store.root, None, tmp_path / "a.md", "markdown").read_bytes()
    assert write_report(store.root, None, tmp_path / "b.md", "markdown").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.md", "b.md", page.name, page.stem + ".json"])


class _Tags(html.parser.HTMLParser):
    """Tags with their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag in self.inline and "type" not in dict(attributes):
            self.inline[tag].append("")

    def handle_data(self, text: str) -> None:
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        if tag in self.inline and "type" not in attributes and self.inline[tag][-1] == "":
            self.inline[tag][-1] = text


def test_the_page_names_its_scripts_by_digest_and_refers_to_nothing_outside(page):
    tags = _Tags(page.read_text())
    policy = next(a["content"] for t, a in tags.tags if a.get("http-equiv") == "Content-Security-Policy") or ""
    allowed = {entry.split()[0]: entry.split()[1:] for entry in policy.split("; ")}
    assert allowed["default-src"] == ["'none'"]
    assert allowed["img-src"] == ["data:"]
    for tag in ("script", "style"):
        digests = [
            f"'sha256-{base64.b64encode(hashlib.sha256(t.encode()).digest()).decode()}'" for t in tags.inline[tag]
        ]
        assert digests == [source for source in allowed[f"{tag}-src"] if source.startswith("'sha256")]
    for _, attributes in tags.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/jpeg;base64,"))


def test_captions_stay_text_in_every_format(page, data, store, tmp_path):
    assert HOSTILE not in page.read_text()
    assert "{{" not in page.read_text().split("<main>")[1].split("</main>")[0].replace("{{ 7 * 7 }}", "")
    assert HOSTILE in json.dumps(data, ensure_ascii=False)
    text = write_report(store.root, None, tmp_path, "markdown").read_text()
    assert "<script" not in re.sub(r"\\<", "", text)
    assert all(
        line.count("|") - line.count("\\|") == 4
        for line in text.splitlines()
        if "window.hacked" in line and line[0] == "|"
    )


def test_a_browser_draws_every_plot_asks_nobody_and_runs_no_caption(page):
    with headless() as browser:
        browser.get("about:blank")
        browser.get_log("performance")  # of the browser's own first page
        browser.get(page.as_uri())
        WebDriverWait(browser, 60).until(lambda b: b.execute_script("return document.documentElement.dataset.drawn"))
        colours = {}
        for scheme in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": scheme}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            colours[scheme] = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        drawn = browser.execute_script("return document.querySelectorAll('.vega svg').length")
        assert drawn == browser.execute_script("return document.querySelectorAll('.vega').length") > 5
        assert browser.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert browser.execute_script("return document.images.length") > 5
        assert browser.execute_script("return window.hacked") is None
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        assert colours["light"] != colours["dark"]
        assert browser.get_log("browser") == []
        sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        urls = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
        assert [url for url in urls if not url.startswith("data:image/jpeg")] == [page.as_uri()]


def test_a_set_without_pictures_downloads_and_hosts_says_so(tmp_path):
    store = new_store(tmp_path)
    add_version(store, [row | {"url": None} for row in usual_pairs()])
    text = write_report(store.root, None, tmp_path / "r.md", "markdown").read_text()
    assert "The store has no record of downloads for this version." in text
    assert "No row has a URL." in text
    assert "No run of this store recorded how long a stage of this version took." in text
    assert "no pictures of these rows" in write_report(store.root, None, tmp_path / "r.html").read_text()


def test_a_version_of_zero_rows_has_a_report(tmp_path):
    store = new_store(tmp_path)
    add_version(store, [])
    found = json.loads(write_report(store.root, None, tmp_path / "r.json", "json").read_text())
    assert found["facts"] == {"pool": 0, "curated": 0, "shards": 0, "tar_bytes": 0}
    assert "0 of 0 image" in write_report(store.root, None, tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("name", "output", "form", "said"),
    [
        ("demo", ".", "pdf", "there is no format 'pdf'; there are html, markdown, json"),
        ("other", ".", "html", "data set 'other': the store"),
        ("demo", "no/such/report.html", "html", "there is no folder"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(store, tmp_path, name, output, form, said):
    with pytest.raises(InputError, match=re.escape(said)):
        write_report(store.root, name, tmp_path / output, form)
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_a_set_says_so(tmp_path):
    with pytest.raises(InputError, match="finished"):
        write_report(new_store(tmp_path).root, None, tmp_path)


def test_every_question_says_in_words_what_it_asks():
    files = sorted(Path(str(package.__file__)).parent.glob("*.sql"))
    code = "".join(path.read_text() for path in files[0].parent.glob("*.py"))
    assert len(files) > 10
    for file in files:
        assert file.read_text().startswith("-- ")
        assert f'"{file.stem}"' in code


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (None, "count", "–"), (1234567, "count", "1,234,567"), (0.1234, "share", "12.3 %"), (0, "bytes", "0 bytes"),
        (4_210_000, "bytes", "4.2 MB"), (12.34, "seconds", "12.3 s"), (0.30000001192, "number", "0.3"),
    ],
)  # fmt: skip
def test_values_are_written_for_people(value, kind, expected):
    assert written(value, kind) == expected


def test_steps_that_mark_are_no_filters_and_a_top_of_groups_has_no_threshold(tmp_path):
    store = new_store(tmp_path)
    steps = [
        {"name": "keep", "parameters": "length(caption) >= 3"},
        {"name": "download", "parameters": {}},
        {"name": "top", "parameters": {"by": "clip_score", "fraction": 0.5, "mark": "best"}, "id": "big_enough"},
        {"name": "top", "parameters": {"by": "clip_score", "fraction": 0.5, "per": "licence"}},
    ]
    labels = ["source", "steps[0] keep", "steps[1] download", "big_enough", "steps[3] dedup"]
    kinds = ["source", "keep", "download", "top", "top"]
    funnel = [
        {"step": step, "kind": kind, "rows_in": 1, "rows_out": 1} for step, kind in zip(labels, kinds, strict=True)
    ]
    add_version(store, usual_pairs(), spec={"steps": steps, "shards": {}}, funnel=funnel)
    found = json.loads(write_report(store.root, None, tmp_path / "r.json", "json").read_text())["sections"]
    assert [row["step"] for row in found["filters"]["tables"]["filters"]] == ["steps[0] keep", "steps[3] dedup"]
    assert found["edges"]["text"][-1] == "Thresholds that steps[3] dedup found for each group are not drawn."
    assert list(found["edges"]["pictures"]) == ["steps[0] keep: length(caption) >= 3"]


@pytest.mark.parametrize(
    ("by", "expected"),
    [("width_px * 2", "width_px * 2 >= 400"), ("DATE '2020-01-01' + width_px", None), ("list_sum(clip_image)", None)],
)
def test_a_top_has_a_threshold_where_it_ranks_numbers_that_samples_have(tmp_path, by, expected):
    store = new_store(tmp_path)
    steps = [*STEPS[:3], {"name": "top", "parameters": {"by": by, "rows": 8}}]
    kinds = ["source", "keep", "download", "keep", "top"]
    labels = ["source", "steps[0] keep", "steps[1] download", "big_enough", "steps[3] dedup"]
    counts = {"rows_in": 12, "rows_out": 12}
    funnel = [{"step": step, "kind": kind} | counts for step, kind in zip(labels, kinds, strict=True)]
    pairs = [row for row in usual_pairs() if row["fate_step"] != "steps[3] dedup"]
    add_version(store, pairs, spec={"steps": steps, "shards": {}}, funnel=funnel)
    found = json.loads(write_report(store.root, None, tmp_path / "r.json", "json").read_text())["sections"]
    edges = [name for name in found["edges"]["pictures"] if name.startswith("steps[3]")]
    assert edges == ([f"steps[3] dedup: {expected}"] if expected else [])


def test_a_filter_over_what_samples_do_not_have_is_known_by_its_fate_only(tmp_path):
    store = new_store(tmp_path)
    steps = [{"name": "keep", "parameters": "list_sum(clip_image) > 0"}, *STEPS[1:]]
    added = {"caption": "source", "width_px": "steps[1] download", "clip_image": "source"}
    columns = [{"name": name, "type": "t", "meaning": "m", "step": step} for name, step in added.items()]
    add_version(store, usual_pairs(), spec={"steps": steps, "shards": {}}, columns=columns)
    found = json.loads(write_report(store.root, None, tmp_path / "r.json", "json").read_text())["sections"]
    effects = {row["step"]: row for row in found["filters"]["tables"]["filters"]}
    assert (effects["steps[0] keep"]["fails"], effects["steps[0] keep"]["alone"]) == (1, 1)


def test_long_captions_are_cut_and_control_characters_blanked(tmp_path):
    store = new_store(tmp_path)
    add_version(store, [row | {"caption": "\x1b[31m" + "x" * 1000} for row in usual_pairs()])
    found = json.loads(write_report(store.root, None, tmp_path / "r.json", "json").read_text())["sections"]
    (repeated,) = found["captions"]["tables"]["captions"]
    assert repeated["caption"] == " [31m" + "x" * 294 + "…"
    assert repeated["rows"] == 12
