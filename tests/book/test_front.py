"""The answer: its words follow the verdicts, its numbers the ledger."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from raretok.book import front
from raretok.ledger.promise import VERDICTS
from raretok.ledger.records import book_ledger
from raretok.ledger.replication import REPRODUCED
from raretok.ledger.tables import ours
from raretok.stats.jackknife import Estimate

BOOK = Path(__file__).parents[2] / "book"


@pytest.fixture(scope="module")
def entries():
    return front.paper_entries(BOOK)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_plateau_is_told_as_its_verdict_has_it(entries, verdict):
    (plateau,) = (one for one in entries if one.finding.claim == front.PLATEAU)
    said = front.plateau_words(replace(plateau, verdict=verdict))
    assert said.startswith(f"**{front.OPENING[verdict]}**")
    assert ours(plateau.finding) in said
    assert sum(f"**{opening}**" in said for opening in front.OPENING.values()) == 1


@pytest.mark.parametrize(("high", "said"), [(1.45, True), (1.55, False)])
def test_an_open_plateau_whose_interval_ends_below_one_says_so(entries, high, said):
    (plateau,) = (one for one in entries if one.finding.claim == front.PLATEAU)
    assert plateau.spec.supports == [(1.5, None)]
    finding = replace(plateau.finding, estimate=Estimate(0.5, 0.1, high))
    for verdict in VERDICTS:
        words = front.plateau_words(replace(plateau, verdict=verdict, finding=finding))
        assert (front.SHORT in words) == (said and verdict == "inconclusive")


def test_a_plateau_without_a_number_has_its_reason(entries):
    (plateau,) = (one for one in entries if one.finding.claim == front.PLATEAU)
    none = replace(plateau.finding, estimate=None)
    said = front.plateau_words(
        replace(plateau, finding=none, verdict="not testable", why="why not")
    )
    assert "an unknown number of" in said
    assert said.endswith("(why not).")


def test_verdicts_are_counted_and_decided_claims_named():
    some = [
        ("contradicted", "A4"),
        ("reproduced", "A3"),
        ("inconclusive", "R1"),
        ("reproduced", "M1"),
    ]
    assert front.counted(some, REPRODUCED) == (
        "**2 are reproduced** (no single head matters, no modules), "
        "**1 is contradicted** (a whole layer halves activations) and **1 is inconclusive**"
    )
    assert (
        front.counted(some[:1], REPRODUCED)
        == "**1 is contradicted** (a whole layer halves activations)"
    )
    assert front.counted([], REPRODUCED) == ""


def test_the_answer_counts_every_claim_of_the_paper_once(entries):
    said = front.answer(BOOK)
    on_model = re.search(r"Of the paper's (\d+) claims(.*)\n- Over (\d+) training runs(.*)", said)
    for words in (on_model[2], on_model[4]):
        assert sum(map(int, re.findall(r"\*\*(\d+) (?:is|are) ", words))) == int(on_model[1])
    assert int(on_model[1]) == len(entries) == len({one.finding.claim for one in entries})
    assert {one.finding.claim for one in entries} < {
        one.finding.claim for one in book_ledger(BOOK) if one.primary
    }
