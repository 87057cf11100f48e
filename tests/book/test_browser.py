"""The site in a real browser: no error, no request to another host, equations drawn, any width."""

import contextlib
import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from raretok.book.cards import card_link, cards_of
from raretok.measure.find import WHOLE

pytestmark = pytest.mark.browser

PAGES = (
    *("intro", "01_regimes", "02_coordination", "03_modularity", "04_attention", "05_spectra"),
    *("06_claims", "07_calibration", "08_ledger", "09_reviews", "10_cost", "method", "rerun"),
    *("cards", *(card_link(model, cards_of(model)[0]).removesuffix(".html") for model in WHOLE)),
)
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SETTLED = "() => !window.MathJax || !window.MathJax.startup || window.MathJax.startup.promise"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Keep the test output clean."""


@pytest.fixture(scope="module")
def address(site) -> Iterator[str]:
    """The site served on a free port of this machine."""
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    assert chromium, f"this test needs one of {', '.join(names)} on PATH"
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser, url: str, viewport: dict[str, int]):
    """A page with everything loaded; on leaving, no fault and no foreign request."""
    with browser.new_context(viewport=viewport) as context:
        page, faults = context.new_page(), []
        page.on("console", lambda m: m.type == "error" and faults.append(m.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
        page.on("request", lambda request: local(request.url) or faults.append(request.url))
        page.goto(url, wait_until="networkidle")
        page.evaluate(SETTLED)
        yield page
        assert faults == []


def local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "file:", "data:", "blob:"))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_whole_and_fits_a_phone(browser, address, name):
    url = f"{address}/book/{name}.html"
    with opened(browser, url, DESKTOP) as page:
        images = "all => all.map(i => [i.getAttribute('src'), i.complete && i.naturalWidth > 0])"
        for source, drawn in page.eval_on_selector_all("article img", images):
            assert drawn, source
        widest = "() => document.documentElement.scrollWidth"
        assert page.evaluate(widest) <= DESKTOP["width"]
        page.set_viewport_size(PHONE)
        assert page.evaluate(widest) <= PHONE["width"]


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_equations_are_drawn(browser, address, site: Path, scheme):
    start = address if scheme == "http" else site.as_uri()
    with opened(browser, f"{start}/book/method.html", DESKTOP) as page:
        assert page.locator("mjx-container svg").count() > 3
        assert page.locator("mjx-merror, [data-mml-node='merror']").count() == 0
        assert "\\(" not in page.inner_text("article")


def test_the_front_page_leads_to_the_first_claim(browser, address):
    with opened(browser, f"{address}/index.html", DESKTOP) as page:
        page.wait_for_url("**/book/intro.html")
        page.click("nav a[href='01_regimes.html']")
        page.wait_for_url("**/book/01_regimes.html")
