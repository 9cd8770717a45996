"""The explorer's page in a real browser: pictures, filters, thresholds, keys, stories, and captions that attack it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import browser
from explored_store import HOSTILE, ROWS, run, running
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from curation.analytics.query import connect


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("explorer")
    run(found)
    return found


@pytest.fixture(scope="module")
def opened(root: Path) -> Iterator[tuple[Chrome, str]]:
    with running(root / "store") as served, browser() as driver:
        yield driver, served.address


@pytest.fixture
def page(opened: tuple[Chrome, str]) -> Chrome:
    """The page as it opens, with all pairs shown."""
    driver, address = opened
    driver.get_log("browser")
    driver.get(address)
    until(driver, lambda: len(cards(driver)) == ROWS)
    return driver


def until(driver: Chrome, holds: Callable[[], Any]) -> Any:
    return WebDriverWait(driver, 30, 0.05, ignored_exceptions=[Exception]).until(lambda _: holds())


def one(driver: Chrome, css: str) -> WebElement:
    return driver.find_element(By.CSS_SELECTOR, css)


def press(driver: Chrome, css: str) -> None:
    """Click it, as soon as nothing that moves lies over it."""

    def pressed() -> bool:
        driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", one(driver, css))
        one(driver, css).click()
        return True

    until(driver, pressed)


def cards(driver: Chrome) -> list[WebElement]:
    return driver.find_elements(By.CSS_SELECTOR, "#grid .card")


def count(driver: Chrome) -> int:
    return int(one(driver, "#count strong").text.replace(",", ""))


def search(driver: Chrome, mode: str, text: str) -> None:
    Select(one(driver, "#mode")).select_by_value(mode)
    one(driver, "#query").clear()
    one(driver, "#query").send_keys(text, Keys.ENTER)


def write(field: WebElement, text: str) -> None:
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(text, Keys.TAB)


def rows_where(root: Path, condition: str) -> int:
    with connect(root / "store") as connection:
        ((found,),) = connection.execute(f"SELECT count(*) FROM samples WHERE {condition}").fetchall()
    return int(found)


def test_pictures_appear_and_a_broken_one_is_said_to_be_none(page: Chrome) -> None:
    loaded = "return [...document.querySelectorAll('#grid img')].filter(i => i.complete && i.naturalWidth > 0).length"
    page.execute_script("document.querySelectorAll('#grid img').forEach(image => image.loading = 'eager')")
    until(page, lambda: page.execute_script(loaded) == ROWS - 1)
    assert [e.text for e in page.find_elements(By.CSS_SELECTOR, "#grid .none")] == ["no picture"]
    assert page.current_url.endswith("/")  # the token is gone from the address
    assert [line for line in page.get_log("browser") if line["level"] == "SEVERE"] == []


def test_captions_are_shown_as_they_are_and_run_nothing(page: Chrome) -> None:
    captions = [e.get_attribute("textContent") for e in page.find_elements(By.CSS_SELECTOR, "#grid .caption")]
    assert HOSTILE in captions
    search(page, "words", "onerror")
    until(page, lambda: len(cards(page)) == 1)
    press(page, "#grid .card")
    until(page, lambda: one(page, "#story .words").text == HOSTILE)
    assert page.title.startswith("set@")
    assert page.find_elements(By.CSS_SELECTOR, "#grid .caption *, #story .words *") == []


def test_a_reload_shows_what_was_chosen_and_opening_it_anew_shows_all(opened: tuple[Chrome, str], page: Chrome) -> None:
    def keys() -> list[str | None]:
        return [card.get_attribute("data-key") for card in cards(page)]

    search(page, "words", "cat")
    until(page, lambda: 0 < count(page) == len(cards(page)) < ROWS)
    by_key = keys()
    Select(one(page, "#order")).select_by_value("asc score")
    until(page, lambda: keys() != by_key)
    by_score = keys()
    page.refresh()
    until(page, lambda: keys() == by_score)
    assert one(page, "#order").get_attribute("value") == "asc score"
    assert [chip.text for chip in page.find_elements(By.CSS_SELECTOR, "#chips .chip span")] == ["words: cat"]
    page.get(opened[1])
    until(page, lambda: len(cards(page)) == ROWS)
    assert page.find_elements(By.CSS_SELECTOR, "#chips .chip") == []


def test_a_filter_by_words_by_sql_by_a_value_and_by_dragging_changes_counts_and_grid(root: Path, page: Chrome) -> None:
    search(page, "words", "CAT number")
    cats = rows_where(root, "contains(lower(caption), 'cat')")
    until(page, lambda: count(page) == len(cards(page)) == cats)
    search(page, "sql", "score >= 0.5")
    both = rows_where(root, "contains(lower(caption), 'cat') AND score >= 0.5")
    until(page, lambda: count(page) == len(cards(page)) == both)
    red = one(page, "[data-facet=colour] [data-value=red]")
    within = "contains(lower(caption), 'cat') AND score >= 0.5 AND colour = 'red'"
    assert int(red.find_element(By.CSS_SELECTOR, ".number").text) == rows_where(root, within)
    press(page, "[data-facet=colour] [data-value=red]")
    until(page, lambda: count(page) == len(cards(page)) == rows_where(root, within))
    assert len(page.find_elements(By.CSS_SELECTOR, "#chips .chip")) == 3
    press(page, "#chips .plain")
    until(page, lambda: count(page) == ROWS)
    chart = one(page, "[data-facet=score] > svg")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    wide = chart.size["width"]
    ActionChains(page).move_to_element_with_offset(chart, 0, 0).click_and_hold().move_by_offset(
        wide // 2 - 2, 0
    ).release().perform()
    until(page, lambda: count(page) < ROWS)
    low = float(one(page, "[data-facet=score] [aria-label='score from']").get_attribute("value") or "nan")
    assert count(page) == rows_where(root, f"score >= {low}") > 0
    until(
        page,
        lambda: (
            int(one(page, "[data-facet=colour] [data-value=red] .number").text)
            == rows_where(root, f"score >= {low} AND colour = 'red'")
        ),
    )


def test_what_is_wrong_in_a_predicate_is_said_where_it_is_typed(page: Chrome) -> None:
    search(page, "sql", "scor > 0.5")
    until(page, lambda: 'Referenced column "scor" not found' in one(page, "#search-error").text)
    Select(one(page, "#order")).select_by_value("desc score")  # what was chosen before is chosen still
    until(page, lambda: count(page) == len(cards(page)) == ROWS)
    assert page.find_elements(By.CSS_SELECTOR, "#chips .chip") == []
    until(page, lambda: one(page, "#effect .yaml").is_displayed())
    search(page, "sql", "score > 99")
    until(page, lambda: "No pair passes all of these filters" in one(page, "#grid").text)
    assert one(page, "#search-error").text == ""
    search(page, "like", "a dog")
    until(page, lambda: "no vectors of pictures and texts" in one(page, "#search-error").text)


def test_the_threshold_begins_as_the_versions_own_and_counts_what_it_would_leave(root: Path, page: Chrome) -> None:
    until(
        page, lambda: one(page, ".tally.alive").get_attribute("data-kept") == str(rows_where(root, "fate = 'curated'"))
    )
    assert one(page, "#effect .yaml pre").text == "- top: {by: score, fraction: 0.75, per: colour}"
    Select(one(page, "[aria-label=Step]")).select_by_value("ge")
    Select(one(page, "[aria-label=Stands]")).select_by_value("")
    write(one(page, "[aria-label=Value]"), "0.6")
    until(page, lambda: one(page, "#effect .yaml pre").text == "- keep: score >= 0.6")
    kept = rows_where(root, "fate = 'curated' AND score >= 0.6")
    until(page, lambda: one(page, ".tally.alive").get_attribute("data-kept") == str(kept))
    assert one(page, ".tally.selected").get_attribute("data-kept") == str(rows_where(root, "score >= 0.6"))
    shown = [float(e.text) for e in page.find_elements(By.CSS_SELECTOR, ".edge.kept .signal")]
    assert shown == sorted(shown)
    assert min(shown) >= 0.6
    assert all(float(e.text) < 0.6 for e in page.find_elements(By.CSS_SELECTOR, ".edge.dropped .signal"))
    search(page, "words", "cat")
    where = "score >= 0.6 AND contains(lower(caption), 'cat')"
    until(page, lambda: one(page, ".tally.selected").get_attribute("data-kept") == str(rows_where(root, where)))
    slider = one(page, "[aria-label='Value, slider']")
    slider.send_keys(Keys.ARROW_RIGHT)
    until(page, lambda: float(one(page, "[aria-label=Value]").get_attribute("value") or 0) > 0.6)


def test_keys_move_open_close_and_search(page: Chrome) -> None:
    one(page, "body").send_keys("/")
    assert page.switch_to.active_element.get_attribute("id") == "query"
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    until(page, lambda: page.switch_to.active_element.get_attribute("data-place") == "0")
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert page.switch_to.active_element.get_attribute("data-place") == "1"
    page.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert int(page.switch_to.active_element.get_attribute("data-place") or 0) > 2
    here = page.switch_to.active_element.get_attribute("data-key")
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert page.execute_script(outline) == "solid"
    page.switch_to.active_element.send_keys(Keys.ENTER)
    until(page, lambda: one(page, "#story code").text == here)
    until(page, lambda: one(page, "#story .steps"))
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    until(page, lambda: one(page, "#story code").text != here)
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    until(page, lambda: page.execute_script("return !document.querySelector('dialog[open]')"))
    assert page.switch_to.active_element.get_attribute("data-key") != here


def test_a_story_tells_every_step_and_why_a_pair_was_dropped(root: Path, page: Chrome) -> None:
    search(page, "sql", "fate_step = 'best'")
    until(page, lambda: len(cards(page)) == rows_where(root, "fate_step = 'best'"))
    press(page, "#grid .card")
    until(page, lambda: one(page, "#story .steps"))
    assert [e.text for e in page.find_elements(By.CSS_SELECTOR, "#story .steps b")] == [
        "steps[0] inspect_image",
        "scored",
        "best",
    ]
    assert "dropped at best: score ranks below the best 75 %" in one(page, "#story .verdict").text
    until(page, lambda: page.execute_script("return document.querySelector('#story img.large').naturalWidth") > 90)
    assert "No vectors here" in one(page, "#story").text


def test_the_selection_is_exported_as_a_step_and_as_files(page: Chrome) -> None:
    search(page, "words", "cat")
    write(one(page, "[aria-label='score from']"), "0.4")
    until(page, lambda: len(page.find_elements(By.CSS_SELECTOR, "#chips .chip")) == 2)
    press(page, "#export")
    until(page, lambda: len(page.find_elements(By.CSS_SELECTOR, "#take .yaml pre")) == 2)
    keep, join = (e.text for e in page.find_elements(By.CSS_SELECTOR, "#take .yaml pre"))
    assert keep == "- keep: score >= 0.4 AND contains(lower(caption), 'cat')"
    assert join == "- join: {table: keys.parquet, on: key, keep_only: true}"
    link = one(page, "#take a[download='keys.txt']").get_attribute("href")
    text = page.execute_async_script("fetch(arguments[0]).then(a => a.text()).then(arguments[1])", link)
    assert len(text.split()) == count(page)


def test_order_by_a_signal_and_its_value_under_each_picture(page: Chrome) -> None:
    Select(one(page, "#order")).select_by_value("desc width_px")
    until(page, lambda: "width_px" in cards(page)[0].text)
    widths = [card.text.rpartition("width_px ")[2].split("\n")[0] for card in cards(page)]
    known = [int(width) for width in widths if width != "–"]
    assert known == sorted(known, reverse=True)
    assert len(known) == ROWS - 1
    assert widths[-1] == "–"


def test_it_is_dark_where_the_system_or_the_switch_says_so(page: Chrome) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = page.execute_script(ground)
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    dark = page.execute_script(ground)
    assert dark != light
    press(page, "#theme")
    assert page.execute_script(ground) == light
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    press(page, "#theme")
    assert page.execute_script(ground) == dark
    press(page, "#theme")
    assert page.execute_script(ground) == light


def test_at_400_px_nothing_is_wider_than_the_screen(page: Chrome) -> None:
    size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.refresh()
    until(page, lambda: len(cards(page)) == ROWS)
    assert page.execute_script("return document.documentElement.scrollWidth") == 400
    press(page, "#filter-panel > summary")
    press(page, "#threshold-panel > summary")
    until(page, lambda: one(page, ".tally.alive").is_displayed())
    assert page.execute_script("return document.documentElement.scrollWidth") == 400
    press(page, "#threshold-panel > summary")
    press(page, "#grid .card")
    until(page, lambda: one(page, "#story .steps"))
    assert page.execute_script("return document.querySelector('#story').scrollWidth") <= 400
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
