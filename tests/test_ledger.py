"""The verdict follows from p-values, interval and power, by rule."""

import math
from itertools import product

import numpy as np
import pytest

from raretok.book import pages
from raretok.ledger.claims import PAPER, Evidence, paper_claims
from raretok.ledger.verdicts import (
    RULES,
    as_records,
    deciding_rule,
    number_text,
    p_text,
    rule_table,
    verdict,
    verdict_table,
)
from tests.recorded import evidence

ROOT = PAPER.parents[1]

# C1: an effect below 1 is claimed; R2: a size of 0.4 to 1.5; M1: none above 0; A2: none at all.
CASES = [
    ("C1", {"value": 0.9, "interval": (0.8, 0.95)}, "reproduced"),
    ("C1", {"value": 0.9, "interval": (0.8, 1.05)}, "weaker"),
    ("C1", {"value": 1.2, "interval": (1.1, 1.3)}, "not reproduced"),
    ("C1", {"value": 0.9, "interval": (0.8, 0.95), "null_world_p": None}, "not testable here"),
    ("C1", {"value": 0.9, "null_world_p": 0.01}, "artefact of the method"),
    ("C1", {"value": 1.2, "null_world_p": 0.01}, "artefact of the method"),
    ("C1", {"value": 0.9, "p": 0.3}, "not reproduced"),
    ("C1", {"value": 0.9, "p": 0.3, "null_world_p": 0.01}, "not reproduced"),
    ("C1", {"value": 0.9, "p": 0.3, "power": 0.7}, "not testable here"),
    ("C1", {"value": 0.9, "p": 0.05}, "not reproduced"),
    ("C1", {"value": None, "interval": None, "p": None}, "not testable here"),
    ("C1", {"value": 0.9, "interval": None}, "not testable here"),
    ("C1", {"value": None}, "not testable here"),
    ("C1", {"p": math.nan}, "not testable here"),
    ("C1", {"value": math.nan}, "not testable here"),
    ("C1", {"interval": (math.nan, 1.0)}, "not testable here"),
    ("C1", {"p": 0.3, "power": math.nan}, "not testable here"),
    ("R2", {"value": 0.9}, "reproduced"),
    ("R2", {"value": 2.5}, "weaker"),
    ("R2", {"value": 0.2}, "weaker"),
    ("R2", {"value": 1.4, "interval": (1.6, 2.0)}, "weaker"),
    ("R2", {"value": 0.9, "null_world_p": 0.049}, "artefact of the method"),
    ("M1", {"value": 0.1, "interval": (0.0, 0.2), "p": 0.3}, "reproduced"),
    ("M1", {"value": 0.1, "p": 0.3, "power": 0.79}, "not testable here"),
    ("M1", {"value": 0.1, "p": 0.3, "power": None}, "not testable here"),
    ("M1", {"value": 0.1, "p": 0.01}, "not reproduced"),
    ("M1", {"value": 0.1, "p": 0.01, "null_world_p": None}, "not reproduced"),
    ("M1", {"value": 0.1, "p": 0.01, "null_world_p": 0.01}, "artefact of the method"),
    ("M1", {"value": -0.1, "p": 0.01}, "reproduced"),
    ("A2", {"value": -0.1, "p": 0.01}, "not reproduced"),
    ("A2", {"value": 0.1, "p": 0.01}, "not reproduced"),
]


@pytest.mark.parametrize(("claim", "found", "expected"), CASES)
def test_the_verdict_of_a_case(claim, found, expected):
    assert verdict(evidence(claim, **found)) == expected


def test_the_cases_reach_every_rule():
    reached = [deciding_rule(evidence(claim, **found)) for claim, found, _ in CASES]
    corrected = deciding_rule(evidence("C1", p=0.02), p_adjusted=0.06)
    assert {id(rule) for rule in [*reached, corrected]} == {id(rule) for rule in RULES}


@pytest.mark.parametrize("claim", ["C1", "M1", "R2"])
def test_the_correction_may_take_an_effect_away_but_never_proves_an_absence(claim):
    one = evidence(claim, value=0.9, interval=(0.8, 0.95), p=0.02)
    assert verdict(one) in ("reproduced", "not reproduced")
    assert verdict(one, p_adjusted=0.04) == verdict(one)
    assert verdict(one, p_adjusted=0.06) == "not testable here"
    unseen = evidence(claim, p=0.3)
    assert verdict(unseen, p_adjusted=0.5) == verdict(unseen)


def by_hand(p, adjusted, untrained, power, value, interval, absent: bool) -> str:
    """The rules for a claim of an effect above 0 with a published range of 1 to 2, or of none."""
    if adjusted < 0.05:
        if untrained is not None and untrained < 0.05:
            return "artefact of the method"
        if absent:
            return "reproduced" if value < 0 else "not reproduced"
        if value < 0:
            return "not reproduced"
        if untrained is None:
            return "not testable here"
        right_size = 1 <= value <= 2 and interval[0] <= 2 and interval[1] >= 1
        sure = not interval[0] <= 0 <= interval[1]
        return "reproduced" if right_size and sure else "weaker"
    if p >= 0.05 and power is not None and power >= 0.8:
        return "reproduced" if absent else "not reproduced"
    return "not testable here"


def test_the_rules_agree_with_nested_cases_on_every_combination(monkeypatch):
    claims = dict(paper_claims())
    shared = {"side": "greater", "nothing": 0.0}
    base = claims["R1"].__class__
    fields = {"statement": "", "published": "", "page": ""}
    claims["P"] = base(id="P", kind="present", range=(1.0, 2.0), **shared, **fields)
    claims["Q"] = base(id="Q", kind="absent", **shared, **fields)
    monkeypatch.setattr("raretok.ledger.verdicts.paper_claims", lambda: claims)
    grid = product(
        (0.01, 0.05, 0.4),
        (0.01, 0.2),
        (None, 0.01, 0.6),
        (None, 0.5, 0.8),
        ((1.5, (1.2, 1.8)), (1.5, (-0.1, 1.8)), (3.0, (2.5, 3.5)), (-1.0, (-2.0, -0.5))),
        (False, True),
    )
    n = 0
    for p, adjusted, untrained, power, (value, interval), absent in grid:
        if adjusted < p:
            continue
        found = {"p": p, "null_world_p": untrained, "power": power}
        one = evidence("Q" if absent else "P", value=value, interval=interval, **found)
        expected = by_hand(p, adjusted, untrained, power, value, interval, absent)
        assert verdict(one, adjusted) == expected, one
        n += 1
    assert n > 200


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"p": 1.2}, "C1: p must lie in 0 to 1, got 1.2"),
        ({"power": -0.1}, "C1: power must lie in 0 to 1"),
        ({"interval": (2.0, 1.0)}, "ends before it starts"),
    ],
)
def test_impossible_numbers_are_refused(found, message):
    with pytest.raises(ValueError, match=message):
        evidence("C1", **found)


def test_a_number_that_is_not_finite_counts_as_missing():
    one = evidence("C1", value=math.nan, interval=(0.0, math.inf), smallest=math.inf)
    assert (one.value, one.interval, one.smallest) == (None, None, None)


def test_the_papers_claims_are_read_with_their_ranges():
    claims = paper_claims()
    assert claims["R2"].range == (0.4, 1.5)
    assert (claims["C1"].side, claims["C1"].nothing) == ("less", 1.0)
    for claim in claims.values():
        assert claim.short, claim.id
        assert len(claim.short) <= 32, claim.id
        assert (claim.side is None) or (claim.nothing is not None), claim.id


def test_every_claim_has_its_page():
    there = {page.stem for page in pages.pages(ROOT)}
    assert {claim.page for claim in paper_claims().values()} <= there


def test_the_rule_table_is_made_of_the_rules():
    table = rule_table()
    assert list(table.index) == list(range(1, len(RULES) + 1))
    assert list(table["the paper claims an effect"]) == [rule.present for rule in RULES]
    assert table["the first case that applies"].is_unique


def test_the_table_sets_ours_beside_the_papers():
    table = verdict_table([evidence("R3", p=0.3, power=0.9), evidence("R2")])
    assert list(table.index) == [("R2", "corrected"), ("R3", "corrected")]
    row = table.loc[("R2", "corrected")]
    assert row["ours"] == "1 (0.8 to 1.2) % of neurons"
    assert row["published"] == "about 1 %"
    assert row["verdict"] == "reproduced"
    assert row["p"] == "0.001"


def test_missing_numbers_are_shown_as_such():
    nothing = Evidence("R2", "code", None, None, "no null", None, None, reason="no neuron helps")
    assert number_text(nothing, paper_claims()["R2"]) == "none"
    assert p_text(None) == ""
    row = verdict_table([nothing]).iloc[0]
    assert (row["verdict"], row["p"], row["power"]) == ("not testable here", "", "")


def test_records_carry_the_verdict():
    (record,) = as_records([evidence("R1", p=0.2)])
    assert record["verdict"] == "not reproduced"
    assert record["interval"] == (0.8, 1.2)


def test_records_are_pythons_own_numbers_with_the_digits_that_last():
    one = evidence("R1", value=np.float64(1 / 3), interval=(np.float64(0.1), np.float64(2 / 3)))
    (record,) = as_records([one])
    assert type(record["value"]) is float
    assert record["value"] == 0.333333
    assert record["interval"] == (0.1, 0.666667)
    assert eval(repr(record)) == record
