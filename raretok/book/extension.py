"""A Sphinx extension: terms linked to the glossary, and what a page says of itself in its head."""

import os
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from textwrap import shorten
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

GLOSSARY = "book/glossary"
# A first use in one of these stays as it is.
APART = (nodes.reference, nodes.literal, nodes.math, nodes.title, nodes.emphasis, nodes.table)
CARD = "card.png"  # book/front.py draws it; it stands beside the first index.html
WORDS = 160  # characters of a page's description
ICONS = "_static/scripts/fontawesome.js"  # 1.5 MB


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("config-inited", published)
    app.connect("doctree-resolved", link_terms)
    app.connect("html-page-context", describe)
    app.connect("build-finished", lighten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def lighten(app: Sphinx, error: Exception | None) -> None:
    """Empty the theme's script of icons: its style has them as a font, which pages load too."""
    icons = Path(app.outdir, ICONS)
    if icons.is_file():
        icons.write_text("")


def published(app: Sphinx, config: Config) -> None:
    """Launch buttons and absolute addresses, where it is known where the repository lies."""
    address = repository(Path(app.srcdir))
    host, _, name = address.partition("://github.com/")
    if name:
        owner, project = name.split("/")
        config.html_baseurl = config.html_baseurl or f"{host}://{owner}.github.io/{project}/"
        binder = {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"}
        where = {"repository_url": address, "repository_branch": "main"}
        config.html_theme_options |= where | {"launch_buttons": binder}


def repository(root: Path) -> str:
    """Address of the repository on GitHub as CITATION.cff or the build's environment has it."""
    file, given = root / "CITATION.cff", os.environ.get("GITHUB_REPOSITORY")
    if not file.is_file():  # the site of a reader's own run
        return ""
    known = yaml.safe_load(file.read_text(encoding="utf-8")).get("repository-code", "")
    return f"https://github.com/{given}" if given else known.removesuffix(".git").rstrip("/")


def link_terms(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Link the first use of each term in a page's prose to the glossary, its meaning as a title."""
    waiting = {} if page == GLOSSARY else terms(app)
    if not waiting:
        return
    address = app.builder.get_relative_uri(page, GLOSSARY)
    for text in list(prose(tree)):
        parts = linked(text.astext(), waiting, address)
        if len(parts) > 1:
            text.parent.replace(text, parts)


def prose(tree: nodes.document) -> Iterator[nodes.Text]:
    """The text of paragraphs, without code, equations, links, headings and tables."""
    for text in tree.findall(nodes.Text):
        inside, above = [], text.parent
        while above is not None:
            inside.append(type(above))
            above = above.parent
        if nodes.paragraph in inside and not any(issubclass(one, APART) for one in inside):
            yield text


def terms(app: Sphinx) -> dict[str, tuple[str, str]]:
    """Anchor and meaning by term, of the glossary that the site has; none without one."""
    if GLOSSARY not in app.env.found_docs:
        return {}
    found = {}
    for item in app.env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
        meaning = item.next_node(nodes.definition).next_node(nodes.paragraph).astext()
        for term in item.findall(nodes.term):
            found[term.astext().split("\n")[0]] = (term["ids"][0], " ".join(meaning.split()))
    return found


def linked(text: str, waiting: dict[str, tuple[str, str]], address: str) -> list[nodes.Node]:
    """Text cut at the terms that were not used yet, which then are taken from `waiting`."""
    parts, at = [], 0
    by_length = sorted(waiting, key=len, reverse=True)
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, by_length))})(?:s|es)?\b", re.IGNORECASE)
    lower = {term.lower(): term for term in waiting}
    for match in pattern.finditer(text):
        found = waiting.pop(lower[match[1].lower()], None)
        if found:
            anchor, meaning = found
            link = nodes.reference("", match[0], internal=True, refuri=f"{address}#{anchor}")
            link["classes"], link["reftitle"] = ["term"], meaning
            parts += [nodes.Text(text[at : match.start()]), link]
            at = match.end()
    return [*parts, nodes.Text(text[at:])]


def describe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], tree: nodes.document | None
) -> None:
    """Description and card of a page, for search engines and for sites that show links."""
    first = next(iter(tree.findall(nodes.paragraph)), None) if tree else None
    words = shorten(first.astext() if first else app.config.project, WORDS, placeholder=" …")
    base = app.config.html_baseurl.rstrip("/")
    said = {
        "og:type": "website",
        "og:site_name": app.config.project,
        "og:title": re.sub(r"<[^>]+>", "", context.get("title", "")),
        "og:description": words,
        "og:url": context["pageurl"] if base else None,
    }
    if any((Path(app.srcdir) / one / CARD).is_file() for one in app.config.html_extra_path):
        card = f"{base}/{CARD}" if base else context["pathto"](CARD, resource=True)
        said |= {"og:image": card, "twitter:card": "summary_large_image", "twitter:image": card}
    tags = [("name", "description", words), *(("property", *one) for one in said.items())]
    context["metatags"] = context.get("metatags", "") + "".join(
        f'<meta {kind}="{name}" content="{escape(text)}" />\n' for kind, name, text in tags if text
    )
