"""The ledger's page: its tables say what the entries say, and its picture shows every verdict."""

import re
from itertools import pairwise

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_rgb

from raretok.ledger import ledger_page as page
from raretok.ledger.claims import paper_claims
from raretok.ledger.ledger_figures import CELLS, verdict_matrix
from raretok.ledger.records import book_ledger
from raretok.text.protocol import PROTOCOLS
from tests.recorded import evidence, write_book, write_page

UNSEEN = {"p": 0.4, "power": 0.95}


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    """A whole book with every verdict in it."""
    changed = {
        ("C1", "code"): {"value": 0.9, "interval": (0.8, 0.95)},
        ("C1", "text"): {"value": 0.9, "interval": (0.8, 1.05)},
        ("C1", "corrected"): {"value": 0.9, "null_world_p": 0.001},
        ("M1", "corrected"): {"value": None, "interval": None, "p": None, "reason": "5 < 10 & odd"},
        ("A2", "code"): {**UNSEEN, "figure": "fig-gini", "run": "3f2a"},
        ("A2", "text"): {"p": 0.049},
        ("A3", "text"): {"p": 0.3, "power": 0.2, "smallest": 0.123},
    }
    return book_ledger(write_book(tmp_path_factory.mktemp("book"), changed))


def test_every_line_of_the_table_is_an_entry(entries):
    table = page.ledger_table(entries)
    assert list(table.index) == [(e.claim.id, e.protocol) for e in entries]
    assert list(table["verdict"]) == [e.verdict for e in entries]
    row = table.loc[("A2", "code")]
    assert row["shown in"] == '<a href="04_attention.html#fig-gini">attention</a>'
    assert (row["run"], row["p"], row["power"]) == ("3f2a", "0.400", "0.95")
    assert table.loc[("A3", "text"), "smallest effect seen"] == "0.12"
    void = table.loc[("M1", "corrected")]
    assert (void["ours (95 %)"], void["p"], void["adjusted p"]) == ("", "", "")
    assert "nan" not in page.shown(table).data.lower()


def test_what_cannot_be_tested_is_listed_with_its_reason(entries):
    table = page.untestable_table(entries)
    assert table.loc[("M1", "corrected"), "why"] == "5 &lt; 10 &amp; odd"
    assert "in less than 80 % of runs" in table.loc[("A3", "text"), "why"]
    why = table.loc[("A2", "text"), "why"]
    assert why == "seen before the correction for the number of tests, not after it"
    assert len(table) == 3


def test_the_correction_is_shown_for_every_test_it_could_touch(entries):
    table = page.correction_table(entries)
    below = [e for e in entries if e.found.p is not None and e.found.p < 0.05]
    assert len(table) == len(below)
    changed = table["verdict on its page"] != table["verdict here"]
    assert list(table.index[changed]) == [("A2", "text")]


def test_the_protocols_are_counted_and_their_differences_named(entries):
    table = page.protocol_table(entries)
    verdicts = [verdict for verdict in CELLS if verdict != "not run"]
    assert table[verdicts].to_numpy().sum() == len(entries)
    assert table.loc["code", "other verdict than corrected"] == "C1, M1, A2"
    assert table.loc["text", "other verdict than corrected"] == "C1, M1, A2, A3"
    assert table.loc["corrected", "other verdict than corrected"] == "none"
    split = page.split_table(entries)
    assert list(split.index) == ["C1", "M1", "A2", "A3"]
    assert split.loc["C1", "corrected"] == (
        "artefact of the method: seen, and in a null world too "
        "(the untrained model, or exchanged labels)"
    )


def test_the_picture_has_a_cell_for_each_verdict(entries):
    shown = page.matrix(entries)
    assert shown["claims"][0] == "R1  three regimes"
    fig, ax = plt.subplots()
    verdict_matrix(ax, **shown)
    words = [text.get_text() for text in ax.texts]
    assert words == [CELLS[e.verdict].word for e in entries]
    assert {text.get_text() for text in ax.get_xticklabels()} == set(PROTOCOLS)
    plt.close(fig)


def test_verdicts_differ_in_grey_and_their_words_can_be_read():
    """Lightness by Rec. 709: neighbours in lightness are apart, and ink stands out of its cell."""

    def light(colour) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lights = {name: light(cell.colour) for name, cell in CELLS.items()}
    decided = [lights[name] for name in ("reproduced", "not reproduced", "weaker")]
    assert all(b - a > 0.15 for a, b in pairwise(decided))
    for cell in CELLS.values():
        pair = sorted((light(cell.colour), light(cell.ink)))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) > 4.5, cell.word
    assert len({cell.word for cell in CELLS.values()}) == len(CELLS)


def test_the_front_page_lists_each_claim_once_under_its_verdict(entries):
    text = page.standing(entries)
    for claim in paper_claims().values():
        assert len(re.findall(rf"{{doc}}`{claim.id}, [^`]* </book/{claim.page}>`", text)) == 1
    assert (
        "- **Artefact of the method**: {doc}`C1, lower dimension </book/02_coordination>`." in text
    )
    assert text.endswith("The other two readings give another verdict on C1, M1, A2, A3.")
    assert not re.search(r"\d\.\d", text)


def test_a_book_half_run_says_so(tmp_path):
    write_page(tmp_path, "01_regimes", [evidence("R1", protocol) for protocol in PROTOCOLS])
    entries = book_ledger(tmp_path)
    said = page.told(entries, tmp_path)
    assert (said["n_claims"], said["n_tests"], said["n_pages"]) == ("1 claim", "3 tests", "1 page")
    assert said["missing"] == (
        "Claims are missing from: regimes, coordination, modularity, attention, spectra."
    )
    assert page.ledger_table(entries).loc[("C1", "code"), "shown in"] == "coordination"
    assert "- **Not run**: R2, plateau of about 1 %; " in page.standing(entries)
    assert page.correction_table(entries).shape == (3, 4)


def test_an_empty_folder_still_has_a_page(tmp_path):
    entries = book_ledger(tmp_path)
    said = page.told(entries, tmp_path)
    assert (said["n_tests"], said["model"]) == ("0 tests", "none")
    for table in (page.untestable_table, page.correction_table, page.split_table):
        assert table(entries).empty
    assert len(page.ledger_table(entries)) == len(entries)


def test_the_table_of_the_readme(entries):
    lines = page.readme_table(entries).splitlines()
    assert lines[:2] == ["| claim | `code` | `text` | `corrected` |", "|---|---|---|---|"]
    assert "| C1, lower dimension | reproduced | weaker | artefact of the method |" in lines
    assert len(lines) == 2 + len(paper_claims())
