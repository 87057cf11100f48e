"""Terms in prose, and addresses that are used only where they are known."""

import re
from unittest.mock import Mock

import pytest
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

from raretok.book import extension

MEANINGS = {"neuron": ("term-neuron", "a unit"), "control group": ("term-control-group", "like it")}


def paragraph(*children: nodes.Node) -> nodes.document:
    tree = nodes.document(None, None)
    tree += nodes.paragraph("", "", *children)
    return tree


def test_the_first_use_of_a_term_is_linked_with_its_meaning():
    waiting = dict(MEANINGS)
    parts = extension.linked("Two Neurons, a neuron; control groups.", waiting, "glossary.html")
    links = [part for part in parts if isinstance(part, nodes.reference)]
    assert [link.astext() for link in links] == ["Neurons", "control groups"]
    assert links[0]["refuri"] == "glossary.html#term-neuron"
    assert links[0]["reftitle"] == "a unit"
    assert "".join(part.astext() for part in parts) == "Two Neurons, a neuron; control groups."
    assert waiting == {}


def test_a_part_of_a_word_is_no_term():
    waiting = dict(MEANINGS)
    assert len(extension.linked("interneuron, neuronal", waiting, "")) == 1
    assert waiting == MEANINGS


def test_code_links_and_equations_are_no_prose():
    text = nodes.Text("neuron")
    tree = paragraph(
        nodes.literal("", "neuron"),
        nodes.reference("", "neuron", refuri="x"),
        nodes.math("", "neuron"),
        nodes.emphasis("", "The title of a paper on a neuron"),
        nodes.strong("", "", text),
    )
    assert list(extension.prose(tree)) == [text]


@pytest.mark.parametrize(
    ("citation", "environment", "address"),
    [
        ("title: x\n", {}, ""),
        (
            "repository-code: https://github.com/them/theirs.git\n",
            {},
            "https://github.com/them/theirs",
        ),
        ("title: x\n", {"GITHUB_REPOSITORY": "me/mine"}, "https://github.com/me/mine"),
    ],
)
def test_launch_buttons_need_a_known_address(tmp_path, monkeypatch, citation, environment, address):
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "CITATION.cff").write_text(citation)
    config = Mock(spec=Config, html_baseurl="", html_theme_options={})
    extension.published(Mock(spec=Sphinx, srcdir=tmp_path), config)
    assert config.html_theme_options.get("repository_url", "") == address
    assert ("launch_buttons" in config.html_theme_options) == bool(address)
    owner, _, project = address.removeprefix("https://github.com/").partition("/")
    assert config.html_baseurl == (f"https://{owner}.github.io/{project}/" if address else "")


def test_icons_come_as_a_font_and_not_as_a_script_too(site):
    assert (site / extension.ICONS).read_text() == ""
    style = (site / "_static" / "styles" / "pydata-sphinx-theme.css").read_text()
    (font,) = re.findall(r"url\(([^)]*fa-solid-900\.woff2)\)", style)
    assert (site / "_static" / "styles" / font).is_file()
