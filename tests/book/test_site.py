"""The built site: every page is there, says what it should, and loads nothing from elsewhere."""

import re
from pathlib import Path

import pytest
import yaml

from raretok.book import pages
from raretok.errors import UserError
from raretok.ledger.figures import primary
from raretok.ledger.records import book_ledger

ROOT = Path(__file__).parents[2]
LOADED = re.compile(
    r"""<(?:script|img|iframe|source|embed)\b[^>]*?\ssrc=["'](?P<src>[^"']*)"""
    r"""|<link\b(?![^>]*rel="(?:canonical|license)")[^>]*?\shref=["'](?P<href>[^"']*)"""
    r"""|url\((?P<url>[^)]*)\)|@import\s+["'](?P<css>[^"']*)"""
)
ELSEWHERE = re.compile(r"""^["']?\s*(?:https?:)?//""")


def table_of_contents() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"], *(page["file"] for part in toc["parts"] for page in part["chapters"])]


def words(html: str) -> str:
    article = html[html.index("<article") : html.index("</article>")]
    return " ".join(re.sub(r"<[^>]+>", "", article).split())


def test_every_page_is_built_with_its_title(site):
    for page in table_of_contents():
        assert len(words((site / f"{page}.html").read_text())) > 200, page
    assert (site / ".nojekyll").exists()
    assert "book/intro.html" in (site / "index.html").read_text()


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("intro", "2509.21163"),
        ("01_regimes", "plateau"),
        ("06_claims", "why these bounds"),
        ("07_calibration", "cannot support it"),
        ("08_ledger", "not testable"),
        ("09_reviews", "V1 .*V18 "),
        ("10_cost", "forward pass"),
        ("method", "ln_final|final norm"),
        ("rerun", "raretok run"),
    ],
)
def test_a_page_says_what_it_is_about(site, page, said):
    assert re.search(said, words((site / "book" / f"{page}.html").read_text()), re.IGNORECASE)


def test_nothing_is_loaded_from_another_host(site):
    files = [file for file in site.rglob("*") if file.suffix in (".html", ".css")]
    assert len(files) > 10
    for file in files:
        for match in LOADED.finditer(file.read_text()):
            address = next(part for part in match.groups() if part is not None)
            assert not ELSEWHERE.match(address), f"{file.relative_to(site)} loads {address}"


def test_figures_have_words_for_those_who_do_not_see_them(site):
    for page in site.glob("book/*.html"):
        for image in re.findall(r"<img[^>]*_images/[^>]*>", page.read_text()):
            alt = re.search(r'alt="([^"]*)"', image)
            assert alt, f"{page.name}: {image}"
            assert len(alt[1]) > 20, f"{page.name}: {image}"
            assert "_images" not in alt[1], f"{page.name}: {image}"


@pytest.mark.parametrize(
    ("page", "figure"), [("01_regimes", "fig-curves"), ("11_replication", "fig-forest")]
)
def test_a_front_figure_is_the_one_of_its_page(site, page, figure):
    (picture,) = pages.pictures(ROOT / "book" / f"{page}.ipynb", figure)
    shown = [file.read_text().strip() for file in (site / "_images").glob("*.svg")]
    assert picture.strip() in shown


def test_links_of_tables_lead_to_pages_and_figures_that_are_there(site):
    """Sphinx checks its own links; those in the HTML of a table it does not see."""
    n = 0
    for page in ("08_ledger", "09_reviews"):
        for target in re.findall(
            r'<a href="(\w+\.html)(?:#([\w-]+))?">', (site / "book" / f"{page}.html").read_text()
        ):
            html = (site / "book" / target[0]).read_text()
            assert not target[1] or f'id="{target[1]}"' in html, target
            n += 1
    assert n > 10


def test_the_front_page_names_every_claim_with_its_verdict(site):
    said = words((site / "book" / "intro.html").read_text())
    for entry in primary(book_ledger(ROOT / "book")):
        if entry.finding.reading == "corrected":
            verdict = entry.verdict.capitalize()
            assert re.search(rf"{verdict} ?: [^.]*{entry.finding.claim}, {entry.claim.short}", said)


def test_the_ledger_can_be_downloaded(site):
    (link,) = re.findall(
        r'href="([^"]*ledger\.json)"', (site / "book" / "08_ledger.html").read_text()
    )
    stored = (ROOT / "book" / "ledger.json").read_bytes()
    assert (site / "book" / link).read_bytes() == stored


def test_a_broken_reference_stops_the_build_and_is_named(tmp_path):
    (tmp_path / "_config.yml").write_text("title: toy\nonly_build_toc_files: true\n")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\n")
    (tmp_path / "index.md").write_text("# Toy\n\n[a lost page](lost.md)\n")
    with pytest.raises(UserError, match=r"index.md:3: WARNING: .*lost.md"):
        pages.build_site(tmp_path)
