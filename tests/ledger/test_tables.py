"""Tables, boxes and figures of verdicts say what the entries say."""

import re

import numpy as np
import pytest

from raretok.claims.style import COLOURS, TOO_WIDE, number, panels
from raretok.ledger import figures, tables
from raretok.ledger.claims import claims
from raretok.ledger.records import book_ledger
from raretok.ledger.verdicts import judge_all
from raretok.measure.find import Measurements
from raretok.measure.parameters import PageParameters
from raretok.stats.jackknife import Estimate
from raretok.text.protocol import PROTOCOLS
from tests.recorded import finding, write_book


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    changed = {
        ("C1", "corrected"): {"estimate": None, "reason": "no neuron is left"},
        ("A4", "text"): {"estimate": Estimate(-5.0, -9.0, -1.0)},
        ("A2", "corrected"): {"estimate": Estimate(0.02, -0.5, 0.5)},
    }
    return book_ledger(write_book(tmp_path_factory.mktemp("book"), changed))


def test_the_front_page_lists_each_claim_once_under_its_verdict(entries, tmp_path):
    text = tables.standing(entries, tmp_path)
    assert "- **Not testable**: C1, fewer dimensions." in text
    assert "- **Inconclusive**: A2, attention as concentrated." in text
    assert text.count("R1, ") == 1


def test_a_box_gives_the_reason_of_a_verdict(entries):
    box = tables.verdict_box(entries).data
    assert "<b>C1, fewer dimensions: not testable.</b> Because no neuron is left." in box
    assert "Supported: -0.02 to 0.02; contradicted: at most -0.04 or at least 0.04." in box


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (0.00512, "0.0051"),
        (-0.0512, "-0.051"),
        (1.234, "1.23"),
        (-47.5, "-48"),
        (12345.0, "12,345"),
    ],
)
def test_numbers_have_two_or_three_digits(value, text):
    assert number(value) == text


def test_counts_are_of_the_corrected_reading(entries):
    said = tables.said(entries)
    judged = [n for n, c in claims().items() if c.estimands[c.primary].judged]
    shares = [int(said[f"n_{v}"]) for v in ("supported", "contradicted", "inconclusive")]
    assert sum(shares) + int(said["n_not_testable"]) == len(judged)
    assert said["missing"] == ""


def test_an_axis_shows_every_bound_and_value_and_clips_wide_intervals():
    found = judge_all([finding("A2", estimate=Estimate(0.01, -50.0, 50.0))])
    low, high = figures.limits(found[0].spec, found)
    assert -0.2 < low < -0.04
    assert 0.04 < high < 0.2


def test_a_figure_has_a_row_an_estimand_and_a_mark_a_reading(entries):
    some = [entry for entry in entries if entry.finding.claim == "A4"]
    fig = figures.readings(some)
    axes = [ax for ax in fig.axes if ax.get_xlabel()]
    assert len(axes) == len(claims()["A4"].estimands)
    marks = [line for line in axes[0].lines if line.get_marker() in ("o", "s", "^")]
    assert len(marks) == len(PROTOCOLS)
    words = [text.get_text() for text in axes[0].texts]
    assert words.count("supported") == 2
    assert words.count("contradicted") == 1
    values = sorted(float(np.ravel(mark.get_xdata())[0]) for mark in marks)
    assert values == sorted(e.finding.estimate.value for e in some if e.primary)


def test_a_row_a_model_is_hollow_where_its_gate_fails_and_in_words_where_there_is_none():
    holds, fails, void = judge_all(
        finding("A2", **more) for more in ({}, {"gates": {}}, {"estimate": None, "reason": "none"})
    )
    _, (ax,) = panels()
    rows = {"own": holds, "weak": fails, "bare": void, "other": None}
    within = figures.model_rows(ax, holds.spec, rows, ["own"])
    assert within == figures.limits(holds.spec, [holds, fails, void])
    own, weak = [line for line in ax.lines if line.get_marker() == "o"]
    assert (own.get_color(), own.get_markerfacecolor()) == ("black", "black")
    assert (weak.get_color(), weak.get_markerfacecolor()) == (COLOURS["common"], "white")
    assert [text.get_text().strip() for text in ax.texts] == ["no number", "not measured"]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(rows)


def test_a_ledger_of_nothing_is_empty_and_no_error(tmp_path):
    for table in (tables.verdict_table([]), tables.ledger_table([], tmp_path)):
        assert "<table" in table.data
    assert tables.said([])["model"] == "none"
    assert tables.standing([], tmp_path) == ""
    assert len(figures.readings([]).axes) == 1


@pytest.mark.parametrize("ships", [True, False])
def test_claims_about_neurons_lead_to_their_cards_once_where_these_ship(tmp_path, ships):
    name = Measurements(PageParameters()).name if ships else "mine/3f2a"
    keys = [("A4", "layer"), ("A4", "against controls"), ("A1", "correlation"), ("C1", "existence")]
    table = tables.ledger_table(
        judge_all(finding(*key, measurement=name) for key in keys), tmp_path
    )
    names = re.findall(
        r"<th[^>]*>(\w+),[^<]*<br><a href=\"\w+.html\">\w+</a>(.*?)</th>", table.data
    )
    assert [claim for claim, _ in names] == ["C1", "A1", "A4"]
    linked = [claim for claim, more in names if more == tables.NEURONS]
    assert linked == (["C1", "A4"] if ships else [])
    assert ("cards.html" in table.data) == ships
    assert set(tables.OF_NEURONS) < set(claims())


def test_an_interval_that_says_nothing_is_not_written_out():
    some = finding("R1", estimate=Estimate(0.61, 1e-9, 117_689.0))
    assert tables.ours(some) == f"0.61 ({TOO_WIDE})"
