"""The site in a browser: no error, no request to another host, equations, any width and mode."""

import contextlib
import functools
from pathlib import Path

import pytest
import yaml

from raretok.book.cards import card_link, carded
from raretok.claims.study import Study
from raretok.measure.find import WHOLE

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
CONTENTS = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [
    CONTENTS["root"],
    *(page["file"] for part in CONTENTS["parts"] for page in part["chapters"]),
    *(f"book/{card_link(model, carded(Study.shipped(model))[0])}"[:-5] for model in WHOLE),
]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
HINT = "box => getComputedStyle(box, '::before').content"
SETTLED = "() => !window.MathJax || !window.MathJax.startup || window.MathJax.startup.promise"
LIT = """theme => {
    for (const name of ["mode", "theme"]) document.documentElement.dataset[name] = theme;
    document.documentElement.style.colorScheme = theme;
}"""
# Without preloading axe asks for no file a second time.
VIOLATED = """async () => (await axe.run({resultTypes: ["violations"], preload: false})).violations
    .filter(one => ["serious", "critical"].includes(one.impact))
    .flatMap(one => one.nodes.map(n => `${one.id}: ${n.target} ${n.html.slice(0, 120)}`))"""


def watched(page, faults: list[str]):
    """A tab that notes what goes wrong in it."""
    page.on("console", lambda m: m.type == "error" and faults.append(m.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
    page.on("request", lambda request: local(request.url) or faults.append(request.url))
    return page


def settled(page, url: str):
    page.goto(url, wait_until="load")
    page.evaluate(SETTLED)
    return page


@contextlib.contextmanager
def opened(browser, url: str, viewport: dict[str, int]):
    """A page with everything loaded; on leaving, no fault and no foreign request."""
    with browser.new_context(viewport=viewport) as context:
        faults: list[str] = []
        yield settled(watched(context.new_page(), faults), url)
        assert faults == []


@pytest.fixture(scope="module")
def tab(browser):
    """One tab for many pages, since a new one takes longer than most pages; and its faults."""
    with browser.new_context(viewport=DESKTOP, reduced_motion="reduce") as context:
        faults: list[str] = []
        yield watched(context.new_page(), faults), faults


@pytest.fixture
def visit(tab):
    """Opens a page in the common tab; at the end, no fault and no foreign request."""
    page, faults = tab
    faults.clear()
    page.set_viewport_size(DESKTOP)
    yield functools.partial(settled, page)
    assert faults == []


def local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "file:", "data:", "blob:"))


def test_what_is_wrong_with_a_page_would_be_seen(browser):
    from axe_playwright_python.base import AXE_SCRIPT

    with browser.new_context() as context:
        faults: list[str] = []
        page = watched(context.new_page(), faults)
        page.set_content(
            "<script>console.error('planted')</script><p style='color: #ccc'>faint</p>"
            "<img src='http://elsewhere.invalid/x.png'>"
        )
        page.wait_for_load_state("networkidle")
        assert {"planted", "http://elsewhere.invalid/x.png"} <= set(faults)
        page.evaluate(AXE_SCRIPT)
        rules = {found.split(":")[0] for found in page.evaluate(VIOLATED)}
        assert {"color-contrast", "image-alt"} <= rules


@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_whole_is_accessible_and_fits_a_phone(visit, address, name):
    from axe_playwright_python.base import AXE_SCRIPT

    page = visit(f"{address}/{name}.html")
    page.evaluate("document.querySelectorAll('img').forEach(one => (one.loading = 'eager'))")
    images = "all => all.map(i => [i.getAttribute('src'), i.complete && i.naturalWidth > 0])"
    for source, drawn in page.eval_on_selector_all("article img", images):
        assert drawn, source
    assert page.locator("mjx-merror, [data-mml-node='merror']").count() == 0
    page.evaluate(AXE_SCRIPT)
    for theme in ("light", "dark"):
        page.evaluate(LIT, theme)
        assert page.evaluate(VIOLATED) == [], theme
    page.set_viewport_size(PHONE)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_from_a_file(visit, site: Path, name):
    page = visit((site / f"{name}.html").as_uri())
    assert page.inner_text("h1").strip("# \n")
    assert "\\(" not in page.inner_text("article")


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_equations_are_drawn(visit, address, site: Path, scheme):
    page = visit(f"{address if scheme == 'http' else site.as_uri()}/book/method.html")
    assert page.locator("mjx-container svg").count() > 3


def test_one_switch_shows_the_code_of_a_page_and_is_remembered(browser, address):
    with opened(browser, f"{address}/book/01_regimes.html", DESKTOP) as page:
        switch, cells = page.locator("button.code-button"), page.locator("details.above-input")
        assert switch.get_attribute("aria-pressed") == "false"
        assert not any(one.is_visible() for one in cells.all())
        switch.focus()
        page.keyboard.press("Enter")
        assert switch.get_attribute("aria-pressed") == "true"
        assert all(one.locator("pre").first.is_visible() for one in cells.all())
        assert not page.locator("details.above-input > summary").first.is_visible()
        page.goto(f"{address}/book/02_coordination.html", wait_until="networkidle")
        assert page.locator("button.code-button").get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figures_are_shown_as_large_as_drawn_and_scroll_on_a_phone(browser, address, theme):
    from axe_playwright_python.base import AXE_SCRIPT

    with opened(browser, f"{address}/book/14_layers.html", {**DESKTOP, "width": 1300}) as page:
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        images = page.locator("article figure > img")
        for image in images.all():
            shown, drawn = image.evaluate("i => [i.getBoundingClientRect().width, i.naturalWidth]")
            assert shown >= 0.99 * drawn
        boxes = page.locator("article figure").all()
        assert {box.evaluate(HINT) for box in boxes} == {"none"}
        page.set_viewport_size(PHONE)
        page.wait_for_function("document.querySelector('figure').tabIndex === 0")
        for box in [*boxes, *page.locator("article table.dataframe").all()]:
            wide = box.evaluate("b => b.scrollWidth > b.clientWidth + 1")
            assert wide or box.evaluate("b => b.tagName") == "TABLE"
            assert box.evaluate(HINT) == ('"scroll sideways →"' if wide else "none")
        page.evaluate(AXE_SCRIPT)
        assert page.evaluate(VIOLATED) == []


def test_the_front_page_leads_to_the_first_claim(tab, address):
    page, _ = tab
    page.goto(f"{address}/index.html")
    page.wait_for_url("**/book/intro.html")
    page.click("nav a[href='01_regimes.html']")
    page.wait_for_url("**/book/01_regimes.html")
    page.wait_for_load_state("networkidle")  # else the next test ends its requests


def test_the_search_finds_plateau(visit, address):
    page = visit(f"{address}/search.html?q=plateau")
    page.wait_for_selector("#search-results ul.search li a")
    found = page.eval_on_selector_all("#search-results li a", "all => all.map(a => a.href)")
    assert any("01_regimes.html" in link for link in found)
    page.wait_for_load_state("networkidle")  # it reads the pages that it found


def test_a_term_is_explained_at_the_keyboard(visit, address):
    page = visit(f"{address}/book/intro.html")
    term = page.locator("a.term", has_text="plateau").first
    term.focus()
    tip = page.locator("#term-tip")
    assert "about 1 % of the neurons" in tip.inner_text()
    assert term.get_attribute("aria-describedby") == "term-tip"
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    term.hover()
    assert tip.is_visible()
    page.set_viewport_size(PHONE)
    for one in page.locator("a.term").all():
        one.focus()
        box = tip.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]


def test_without_scripts_a_term_leads_to_the_glossary(browser, address):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{address}/book/intro.html")
        term = page.locator("a.term", has_text="plateau").first
        assert "about 1 % of the neurons" in term.get_attribute("title")
        term.click()
        page.wait_for_url("**/book/glossary.html#term-plateau")


def test_on_paper_there_is_the_article_alone(browser, address):
    with opened(browser, f"{address}/book/intro.html", DESKTOP) as page:
        page.emulate_media(media="print")
        for left_out in ("#pst-primary-sidebar", ".bd-sidebar-secondary", ".bd-header-article"):
            assert not page.locator(left_out).first.is_visible(), left_out
        assert page.locator("#jb-print-docs-body h1").is_visible()
        assert page.locator("article p").first.is_visible()
        assert page.pdf().startswith(b"%PDF")
