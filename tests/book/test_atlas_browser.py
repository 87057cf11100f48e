"""The atlas in a real browser: hover, brush, search, models, keyboard, themes, phone, no script."""

import functools
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tests.book.test_browser import DESKTOP, PHONE, opened, watched

pytestmark = pytest.mark.browser

POINTS = "#atlas-{} .layer_0_marks path"  # of the layer below: all neurons
READY = "#atlas-app[data-ready=yes]"
WEIGHT = 900_000  # bytes compressed, with all that the page loads


@pytest.fixture
def atlas(browser, address):
    with opened(browser, f"{address}/book/atlas.html", DESKTOP) as page:
        page.wait_for_selector(READY)
        yield page


def data_of(site: Path, model: str) -> dict:
    script = (site / "atlas" / f"{model}.js").read_text()
    return json.loads(script.removeprefix("atlasData(").removesuffix(");\n"))


def status(page) -> str:
    return page.inner_text("#atlas-status")


def faint(page, view: str) -> int:
    """Neurons that are drawn faintly since others are highlighted."""
    count = "all => all.filter(one => one.getAttribute('opacity') === '0.05').length"
    return page.eval_on_selector_all(POINTS.format(view), count)


def test_every_neuron_is_drawn_and_pointing_at_one_says_its_numbers(atlas, site):
    data = data_of(site, "smollm2-135m-q4")
    n = len(data["columns"]["rank"])
    assert atlas.locator(POINTS.format("scatter")).count() == n
    first = data["columns"]["rank"].index(1)
    atlas.locator(POINTS.format("rank")).nth(n - 1).hover(force=True)  # the first is drawn last
    tip = atlas.locator("#atlas-tip")
    assert tip.locator("tr").first.inner_text().split() == ["neuron", str(first)]
    for token in data["columns"]["promotes"][first]:
        assert token in tip.inner_text()
    assert "in the head" in tip.inner_text()
    atlas.mouse.move(2, 2)
    tip.wait_for(state="hidden")


def test_a_brush_in_one_view_highlights_the_same_neurons_in_the_others(atlas):
    box = atlas.locator("#atlas-rank svg.marks .background").first.bounding_box()
    x, y = box["x"], box["y"]
    atlas.mouse.move(x + 2, y + 2)
    atlas.mouse.down()
    atlas.mouse.move(x + box["width"] / 3, y + box["height"] - 2, steps=4)
    atlas.mouse.up()
    atlas.wait_for_function("document.getElementById('atlas-status').textContent")
    lit = int(status(atlas).split()[0])
    n = atlas.locator(POINTS.format("rank")).count()
    assert 5 < lit < 100
    assert faint(atlas, "scatter") == faint(atlas, "rank") == n - lit
    assert atlas.locator("#atlas-gradient .mark-line path").count() == min(lit, 40) + 3
    atlas.click("#atlas-clear")
    assert faint(atlas, "scatter") == 0


def test_search_finds_neurons_and_tokens_and_says_what_is_not_there(atlas, site):
    columns = data_of(site, "smollm2-135m-q4")["columns"]
    atlas.fill("#atlas-search", "7")
    assert "neuron 7" in status(atlas)
    assert atlas.inner_text("#atlas-neuron") == "Neuron 7"
    tokens = {one.lower() for some in columns["promotes"] for one in some}
    words = sorted(one[1:] for one in tokens if one[0] == "␣" and one[1:].isalpha())
    word = next(one for one in words if len(one) > 3 and one in tokens)
    counts = [searched(atlas, columns, asked) for asked in (word, f" {word}", f"␣{word}")]
    assert counts[0] > counts[1] == counts[2] > 0  # a space before a word is a part of the token
    assert searched(atlas, columns, f"{word} ", shown=word) == counts[0]
    atlas.fill("#atlas-search", "99999")
    assert status(atlas).startswith("There is no neuron 99999 (they are numbered 0 to 1535)")
    atlas.fill("#atlas-search", "qqzzqq")
    assert status(atlas).startswith("No neuron of smollm2-135m-q4 has a token with")
    assert atlas.locator("#atlas-found li").count() == 0
    assert atlas.get_attribute("#atlas-status", "aria-live") == "polite"


def searched(page, columns: dict, asked: str, shown: str = "") -> int:
    """How many neurons a search for a part of a token finds, which are those that have it."""
    page.fill("#atlas-search", asked)
    shown = (shown or asked).replace(" ", "␣")
    lists = zip(columns["promotes"], columns["suppresses"], strict=True)
    n = sum(any(shown in one.lower() for one in (*up, *down)) for up, down in lists)
    assert f"{n} neurons that promote or suppress a token with “{shown}”" in status(page)
    assert faint(page, "rank") == len(columns["rank"]) - n
    return n


def test_another_model_is_shown_whole_and_the_address_keeps_it(atlas, site):
    atlas.select_option("#atlas-model", "docs-llama")
    data = data_of(site, "docs-llama")
    n = len(data["columns"]["rank"])
    drawn = f"document.querySelectorAll('{POINTS.format('rank')}').length === {n}"
    atlas.wait_for_function(drawn)
    atlas.fill("#atlas-search", "3")
    assert atlas.url.endswith("#docs-llama/3")
    atlas.evaluate("location.hash = 'docs-gpt2/875'")
    atlas.wait_for_function("document.getElementById('atlas-neuron').textContent == 'Neuron 875'")
    assert atlas.input_value("#atlas-model") == "docs-gpt2"
    atlas.evaluate("location.hash = 'no-such-model/1'")
    atlas.wait_for_function(
        "document.getElementById('atlas-status').textContent.includes('no mea')"
    )
    options = atlas.locator("#atlas-model option").count()
    assert options == len(list((site / "atlas").glob("*.js"))) - 1


def test_everything_is_reached_by_keyboard_alone(atlas):
    atlas.focus("#atlas-search")
    reached = []
    for _ in range(30):
        atlas.keyboard.press("Tab")
        reached.append(atlas.evaluate("document.activeElement.id"))
    views = ["atlas-rank", "atlas-scatter", "atlas-gradient"]
    wanted = ["atlas-from", "atlas-to", "atlas-highlight", "atlas-clear", *views, "atlas-next"]
    assert [one for one in reached if one in wanted] == wanted
    atlas.focus("#atlas-rank")
    seen = "getComputedStyle(document.activeElement).outlineStyle"
    assert atlas.evaluate(seen) == "solid"
    atlas.keyboard.press("End")
    assert "rank 1536:" in status(atlas)
    atlas.keyboard.press("Home")
    atlas.keyboard.press("ArrowRight")
    assert atlas.inner_text("#atlas-table tr >> nth=0").split()[1] == "2"
    assert "rank 2" in status(atlas)
    atlas.focus("#atlas-previous")
    atlas.keyboard.press("Enter")
    assert "rank 1:" in status(atlas)
    assert atlas.is_disabled("#atlas-previous")
    atlas.focus("#atlas-highlight")
    atlas.keyboard.press("Enter")
    assert status(atlas).startswith("15 neurons are highlighted, ranks 1 to 15")
    atlas.focus("#atlas-rank")
    atlas.keyboard.press("Escape")
    assert faint(atlas, "rank") == 0


def test_it_follows_the_theme(atlas):
    colour = "document.querySelector('#atlas-rank .role-axis-label text').getAttribute('fill')"
    light = atlas.evaluate(colour)
    atlas.evaluate("document.documentElement.dataset.theme = 'dark'")
    atlas.wait_for_function(f"{colour} !== '{light}'")


def test_it_fits_a_phone_and_opens_from_a_file(browser, site: Path):
    url = f"{site.as_uri()}/book/atlas.html#docs-gpt2/875"
    with opened(browser, url, PHONE) as page:
        page.wait_for_selector(READY)
        assert page.inner_text("#atlas-neuron") == "Neuron 875"
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        wide = page.locator("#atlas-rank svg.marks").bounding_box()["width"]
        assert wide <= PHONE["width"]


def test_until_it_is_drawn_the_picture_stands_where_it_is(browser, address):
    with browser.new_context(viewport=DESKTOP) as context:
        page, waiting = watched(context.new_page(), []), []
        page.route("**/vega.min.js*", lambda route: waiting.append(route))
        page.goto(f"{address}/book/atlas.html", wait_until="commit")
        picture = page.locator("#atlas-static img")
        picture.wait_for()
        place = picture.bounding_box()
        page.wait_for_function("document.querySelectorAll('#atlas-model option').length > 1")
        assert waiting  # the data of the models is asked for beside Vega, not after it
        page.wait_for_function(
            "performance.getEntriesByType('resource').some(one => one.name.includes('smollm2'))"
        )
        assert picture.bounding_box() == place
        assert not page.is_visible("#atlas-app")
        waiting[0].continue_()
        page.wait_for_selector(READY)
        assert not picture.is_visible()
        assert page.is_visible("#atlas-rank svg.marks")


@pytest.fixture
def touched(browser, address):
    """The atlas on a phone, and a finger that is dragged over it from one place to another."""
    phone = {"viewport": PHONE, "has_touch": True, "is_mobile": True}
    with browser.new_context(**phone) as context:
        page = watched(context.new_page(), faults := [])
        page.goto(f"{address}/book/atlas.html")
        page.wait_for_selector(READY)
        session = context.new_cdp_session(page)

        def drag(start: tuple[float, float], end: tuple[float, float]):
            way = [dict(zip("xy", at, strict=True)) for at in np.linspace(start, end, 13).tolist()]
            send = functools.partial(session.send, "Input.dispatchTouchEvent")
            for at in way:
                kind = "touchMove" if at is not way[0] else "touchStart"
                send({"type": kind, "touchPoints": [at]})
                page.wait_for_timeout(16)
            send({"type": "touchEnd", "touchPoints": []})
            page.wait_for_timeout(300)

        yield page, drag
        assert faults == []


@pytest.mark.parametrize("view", ["rank", "scatter"])
def test_a_finger_that_begins_sideways_highlights_and_one_that_goes_up_scrolls(touched, view):
    page, drag = touched
    page.locator(f"#atlas-{view}").evaluate("one => one.scrollIntoView({block: 'center'})")
    page.click("#atlas-highlight")
    before = status(page)
    assert before.startswith("15 neurons are highlighted")
    page.locator(f"#atlas-{view}").evaluate("one => one.scrollIntoView({block: 'center'})")
    chart = page.locator(f"#atlas-{view} svg.marks .background").first

    def at(across: float, down: float) -> tuple[float, float]:
        box = chart.bounding_box()
        return box["x"] + across * box["width"], box["y"] + down * box["height"]

    top = at(0, 0)
    drag(at(0.5, 0.8), at(0.5, 0.2))
    assert at(0, 0)[1] < top[1] - 100
    assert status(page) == before  # what was highlighted stays
    assert faint(page, view) == page.locator(POINTS.format(view)).count() - 15
    top = at(0, 0)
    drag(at(0.1, 0.2), at(0.8, 0.7))
    assert at(0, 0) == pytest.approx(top, abs=10)  # a fling may still end
    assert int(status(page).split()[0]) > 15
    assert "drag sideways" in page.inner_text("#atlas-keys")


def test_a_tap_selects_the_nearest_neuron_within_a_fingers_width(touched):
    page, _ = touched
    page.fill("#atlas-search", "7")
    page.locator("#atlas-rank").evaluate("one => one.scrollIntoView({block: 'center'})")
    box = page.locator(POINTS.format("rank")).last.bounding_box()  # rank 1 is drawn last
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.touchscreen.tap(x + 10, y - 20)
    assert page.inner_text("#atlas-neuron") == "Neuron 7"
    page.touchscreen.tap(x, y - 12)
    assert page.inner_text("#atlas-table tr >> nth=0").split()[1] == "1"


def test_without_script_the_picture_the_table_and_the_links_are_there(browser, site: Path):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{site.as_uri()}/book/atlas.html")
        assert page.is_visible("#atlas-static table.dataframe")
        assert page.locator("#atlas-static tbody tr").count() == 30
        assert page.is_visible("#atlas-static img")
        assert not page.is_visible("#atlas-app")
        page.goto(f"{site.as_uri()}/book/downloads.html")
        links = page.eval_on_selector_all("a[download]", "all => all.map(one => one.href)")
        assert len(links) >= 18
        for link in links:
            assert Path(link.removeprefix("file://")).is_file(), link


def test_the_page_is_light(browser, address, site: Path):
    with opened(browser, f"{address}/book/atlas.html", DESKTOP) as page:
        page.wait_for_selector(READY)
        loaded = page.evaluate("performance.getEntriesByType('resource').map(one => one.name)")
        files = [page.url.split("#")[0], *loaded]
        paths = {site / one.removeprefix(address).split("?")[0].lstrip("/") for one in files}
        weight = sum(len(gzip.compress(one.read_bytes())) for one in paths if one.is_file())
        assert 300_000 < weight < WEIGHT
