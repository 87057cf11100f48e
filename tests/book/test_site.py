"""The built site: every page is there, says what it should, and loads nothing from elsewhere."""

import json
import platform
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from PIL import Image

from raretok.book import pages
from raretok.book.extension import repository
from raretok.book.figcheck import SVG
from raretok.book.site import figures
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
        ("glossary", "plateau"),
        ("intro", "How sure is that?"),
        ("status", "sha256"),
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
    picture = dict(figures(ROOT / "book" / f"{page}.ipynb"))[figure][SVG]
    shown = [file.read_text().strip() for file in (site / "_images").glob("*.svg")]
    assert picture.strip() in shown


class Addresses(HTMLParser):
    """What a page links to and loads, and the places in it that can be linked to."""

    def __init__(self, page: Path):
        super().__init__(convert_charrefs=True)
        self.targets, self.ids = [], set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]):
        found = dict(attrs)
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        self.targets += [found[name] for name in ("href", "src") if found.get(name)]


def in_atlas(site: Path, model: str, neuron: str) -> bool:
    """Whether the atlas has a neuron of a model."""
    file = next(site.rglob(f"atlas/{model}.js"))
    data = json.loads(file.read_text().removeprefix("atlasData(").removesuffix(");\n"))
    return int(neuron) in range(len(data["columns"]["rank"]))


def test_every_internal_link_leads_to_a_file_and_a_place_that_are_there(site):
    pages = {p: Addresses(p) for p in site.rglob("*.html") if "_static" not in p.parts}
    n = 0
    for page, found in pages.items():
        for target in found.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert file.is_file(), f"{page.name}: {target}"
            place = unquote(parts.fragment)
            if file.name == "atlas.html" and "/" in place:  # its script goes there
                assert in_atlas(site, *place.split("/")), f"{page.name}: {target}"
            else:
                assert not place or place in pages[file].ids, f"{page.name}: {target}"
            n += 1
    assert n > 2000


def test_a_lost_place_would_be_seen(tmp_path):
    (tmp_path / "page.html").write_text('<a id="there"></a><a href="#lost">x</a>')
    found = Addresses(tmp_path / "page.html")
    assert (found.ids, found.targets) == ({"there"}, ["#lost"])


def test_every_page_says_what_it_is_in_its_head(site):
    for page in table_of_contents():
        html = (site / f"{page}.html").read_text()
        assert '<html lang="en"' in html
        (description,) = re.findall(r'<meta name="description" content="([^"]{40,200})"', html)
        assert f'<meta property="og:description" content="{description}"' in html
        for name in ("og:image", "twitter:image"):
            (card,) = re.findall(rf'<meta property="{name}" content="([^"]+)"', html)
            place = urlsplit(card)
            there = (site / page).parent.joinpath(place.path).resolve()
            assert place.netloc or there == site.resolve() / "card.png"
        assert '<link rel="icon"' in html
    index = (site / "index.html").read_text()
    assert '<meta property="og:image" content="card.png"' in index
    assert '<a href="book/intro.html">' in index
    with Image.open(site / "card.png") as card:
        assert card.size == (1200, 630)
        assert len(card.convert("RGB").getcolors(2**20)) > 100  # something is drawn


def test_terms_are_linked_once_a_page_in_prose_alone(site):
    meanings = re.findall(r'<dt id="(term-[^"]+)"', (site / "book" / "glossary.html").read_text())
    assert len(meanings) >= 20
    seen = set()
    for page in site.glob("book/*.html"):
        html = page.read_text()
        links = re.findall(r'<a class="[^"]*\bterm\b[^"]*" href="glossary.html#([^"]+)"', html)
        assert len(links) == len(set(links)), page.name
        seen |= set(links)
        for heading in re.findall(r"<h\d.*?</h\d>|<pre.*?</pre>|<code.*?</code>", html, re.DOTALL):
            assert "glossary.html#term" not in heading, page.name
    assert seen <= set(meanings)
    assert {"term-plateau", "term-influence", "term-neuron"} <= seen


def test_pages_can_be_downloaded_and_printed(site):
    html = (site / "book" / "01_regimes.html").read_text()
    (notebook,) = re.findall(r'href="([^"]*_sources/[^"]*\.ipynb)"', html)
    assert (site / "book" / notebook).is_file()
    assert "window.print()" in html
    assert ("mybinder.org" in html) == bool(repository(ROOT))  # needs an address that is known


def test_the_status_page_has_every_measurement_and_nothing_of_the_machine(site):
    html = (site / "book" / "status.html").read_text()
    said = words(html)
    folders = [folder.name for folder in (ROOT / "data" / "measurements").glob("*/")]
    assert len(folders) > 20
    for name in folders:
        assert f" {name} " in said
    assert html.count("<p>as written</p>") == len(folders)
    assert "changed" not in said
    for trace in (str(ROOT), str(Path.home()), platform.node(), sys.prefix):
        assert not trace or trace not in html


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
