"""The verdict is read off the interval and the gates, by a table of cases."""

import json
import math
from dataclasses import replace

import pytest

from raretok.claims.finding import Finding
from raretok.ledger import verdicts
from raretok.ledger.claims import NEEDS, claims
from raretok.ledger.verdicts import (
    estimands,
    judge,
    judge_all,
    judged,
    lies_in,
    plain,
)
from raretok.stats.jackknife import Estimate

HOLDING = {
    "reliability": 0.9,
    "reliability of common": 0.9,
    "imbalance": 0.1,
    "documents": 40.0,
    "positions": 900.0,
    "neurons": 10.0,
    "agreement": 0.9,
    "coverage": 0.95,
}


def found(claim, name, low=0.0, high=0.0, *, reading="corrected", without=(), **gates) -> Finding:
    gates = {k: v for k, v in (HOLDING | gates).items() if k not in without}
    return Finding(claim, name, reading, Estimate((low + high) / 2, low, high), gates)


# R1 supports [1.5, open], contradicts [open, 1.25]; R3 contradicts at both ends, [0.8, 1.25] holds.
@pytest.mark.parametrize(
    ("claim", "name", "low", "high", "verdict"),
    [
        ("R1", "lift", 1.6, 3.0, "supported"),
        ("R1", "lift", 1.5, 1e9, "supported"),
        ("R1", "lift", 1.5, 1.5, "supported"),
        ("R1", "lift", 1.4999, 3.0, "inconclusive"),
        ("R1", "lift", 1.3, 1.4, "inconclusive"),
        ("R1", "lift", 1.0, 9.0, "inconclusive"),
        ("R1", "lift", 1.2, 1.26, "inconclusive"),
        ("R1", "lift", 0.2, 1.25, "contradicted"),
        ("R1", "lift", -1e9, -1.0, "contradicted"),
        ("R3", "lift", 0.9, 1.1, "supported"),
        ("R3", "lift", 0.8, 1.25, "supported"),
        ("R3", "lift", 0.79, 1.25, "inconclusive"),
        ("R3", "lift", 0.8, 1.26, "inconclusive"),
        ("R3", "lift", 0.1, 0.67, "contradicted"),
        ("R3", "lift", 1.5, 4.0, "contradicted"),
        ("R3", "lift", 0.5, 1.6, "inconclusive"),  # reaches into both, lies in neither
        ("C1", "existence", 0.2, 0.9, "supported"),
        ("C1", "existence", 0.95, 2.0, "contradicted"),
        ("M1", "modularity", -0.9, 0.05, "supported"),
        ("M1", "modularity", 0.1, 0.4, "contradicted"),
        ("A4", "layer", -60.0, -35.0, "supported"),
        ("A4", "layer", -99.0, -75.0, "contradicted"),
        ("A4", "layer", -25.0, 9.0, "contradicted"),
        ("A4", "layer", -76.0, -24.0, "inconclusive"),
        ("O1", "rank correlation", 0.1, 0.2, "reported"),
        ("A1", "as published", 0.1, 0.2, "reported"),
        ("S1", "Hill index", 0.1, 0.2, "reported"),
    ],
)
def test_the_verdict_of_an_interval(claim, name, low, high, verdict):
    entry = judge(found(claim, name, low, high))
    assert (entry.verdict, entry.why) == (verdict, "")


def test_an_interval_lies_in_one_region_or_in_none():
    both = [(0.0, 1.0), (1.0, 2.0)]
    assert lies_in(Estimate(0.5, 0.0, 1.0), both)
    assert not lies_in(Estimate(1.0, 0.5, 1.5), both)
    assert lies_in(Estimate(0.0, -1e300, 1e300), [(None, None)])
    assert not lies_in(Estimate(0.0, 0.0, 0.0), [])


@pytest.mark.parametrize(
    ("claim", "name", "gates", "why"),
    [
        ("R1", "lift", {"reliability": 0.299}, "reliability is 0.299, at least 0.3 is needed"),
        ("R1", "lift", {"reliability": -0.2}, "reliability is -0.2, at least 0.3 is needed"),
        ("R3", "lift", {"reliability of common": 0.0}, "reliability of common is 0, at least 0.3"),
        ("R1", "lift", {"documents": 7.0}, "documents is 7, at least 8 is needed"),
        ("R1", "lift", {"positions": 199.0}, "positions is 199, at least 200 is needed"),
        ("C1", "existence", {"imbalance": 0.51}, "imbalance is 0.51, at most 0.5 is needed"),
        ("C1", "existence", {"neurons": 4.0}, "neurons is 4, at least 5 is needed"),
        ("A1", "correlation", {"agreement": 0.4}, "agreement is 0.4, at least 0.5 is needed"),
        ("R1", "lift", {"coverage": 0.85}, "coverage is 0.85, at least 0.9 is needed"),
        ("R1", "lift", {"reliability": math.nan}, "reliability is not known, 0.3 is needed"),
        ("C1", "existence", {"imbalance": math.nan}, "imbalance is not known, 0.5 is needed"),
    ],
)
def test_a_gate_that_fails_says_which_and_by_how_much(claim, name, gates, why):
    entry = judge(found(claim, name, 1.6, 1.7, **gates))
    assert entry.verdict == "not testable"
    assert entry.why.startswith(why)
    assert "nan" not in entry.why.lower()


@pytest.mark.parametrize("claim", claims())
def test_every_gate_of_a_claim_is_needed_and_its_threshold_is_enough(claim):
    for name, spec in claims()[claim].estimands.items():
        thresholds = {k: v for k, v in spec.gates.items() if k != NEEDS}
        holding = judge(found(claim, name, 1.0, 1.0, **thresholds), set(claims()))
        assert holding.verdict in ("supported", "contradicted", "inconclusive", "reported")
        for gate, threshold in thresholds.items():
            missing = judge(found(claim, name, 1.0, 1.0, without=[gate]), set(claims()))
            if gate == "coverage":  # not every reading and model is calibrated
                assert missing.verdict == holding.verdict
                continue
            assert missing.verdict == "not testable"
            assert missing.why == f"{gate} is not known, {threshold:g} is needed"


def test_the_first_gate_that_fails_is_told():
    entry = judge(found("R1", "lift", 1.6, 1.7, reliability=0.1, documents=2.0))
    assert entry.why.startswith("reliability is 0.1")


def test_a_number_that_is_not_to_be_had_is_not_testable_for_its_reason():
    nothing = Finding("R1", "lift", "corrected", None, {}, reason="100 neurons are too few")
    entry = judge(nothing)
    assert (entry.verdict, entry.why) == ("not testable", "100 neurons are too few")
    reported = Finding("O1", "rank correlation", "corrected", None, reason="no order")
    assert judge(reported).verdict == "not testable"


# --- needs ----------------------------------------------------------------------------------------


def test_a_claim_that_needs_another_waits_for_it_under_the_same_reading():
    size = {name: found("R2", "size", 0.5, 1.0, reading=name) for name in ("text", "corrected")}
    lift = [found("R1", "lift", 1.6, 2.0), found("R1", "lift", 1.0, 2.0, reading="text")]
    entries = {e.finding.key: e for e in judge_all([*size.values(), *lift])}
    assert entries["R2", "size", "corrected"].verdict == "supported"
    text = entries["R2", "size", "text"]
    assert (text.verdict, text.why) == ("not testable", "R1 is not supported")


def test_models_are_judged_each_by_itself_and_stay_apart():
    head = found("R2", "size", 0.5, 1.0)
    other = [replace(one, model="b") for one in (head, found("R1", "lift", 1.0, 2.0))]
    own = [replace(one, model="a") for one in (head, found("R1", "lift", 1.6, 2.0))]
    entries = judge_all([own[0], *other, own[1]])
    assert [(e.finding.model, e.finding.claim) for e in entries] == [
        *(("a", "R1"), ("a", "R2")),
        *(("b", "R1"), ("b", "R2")),
    ]
    assert [e.verdict for e in entries] == [
        *("supported", "supported"),
        *("inconclusive", "not testable"),
    ]
    assert entries[-1].why == "R1 is not supported"


def test_only_the_first_estimand_of_a_claim_supports_it():
    direct = found("R1", "direct effect", 1.6, 2.0)
    entries = judge_all([found("R2", "size", 0.5, 1.0), direct, found("R1", "lift", 0.5, 2.0)])
    assert [e.verdict for e in entries] == ["inconclusive", "supported", "not testable"]
    assert [e.primary for e in entries] == [True, False, True]


def test_entries_come_in_the_order_of_the_claims():
    order = estimands()
    entries = judge_all(found(*key, 1.0, 1.0) for key in reversed(order))
    assert [e.finding.key[:2] for e in entries] == order
    assert order[0] == ("R0", "concentration")


# --- coverage -------------------------------------------------------------------------------------


def test_coverage_is_taken_from_the_calibration_and_a_second_line_has_its_claims(monkeypatch):
    def row(claim, estimand, covered):
        return {
            "claim": claim,
            "estimand": estimand,
            "numbers": 100,
            "covered": covered,
        }

    table = [row("R1", "lift", 0.8), row("A2", "Gini", 0.95), row("A2", "first token removed", 0.7)]
    monkeypatch.setattr(verdicts, "calibrated", lambda model: table)
    lines = [("R1", "lift"), ("R1", "direct effect"), ("A2", "Gini"), ("A2", "first token removed")]
    entries = judged(found(*key, 0.0, 0.01, without=["coverage"]) for key in lines)
    known = [e.finding.gates["coverage"] for e in entries]
    assert known == pytest.approx([0.8, 0.8, 0.95, 0.7])
    assert [e.verdict for e in entries] == [
        "not testable",
        "not testable",
        "supported",
        "not testable",
    ]
    monkeypatch.setattr(verdicts, "calibrated", lambda model: [])
    (entry,) = judged([found("R1", "lift", 1.6, 2.0, without=["coverage"])])
    assert (entry.verdict, entry.why) == ("supported", "")  # not calibrated: not a gate
    monkeypatch.setattr(verdicts, "calibrated", lambda model: table)
    (entry,) = judged(
        [replace(found("R1", "lift", 1.6, 2.0, without=["coverage"]), reading="text")]
    )
    assert "coverage" not in entry.finding.gates


# --- records --------------------------------------------------------------------------------------


def test_records_are_plain_json_without_a_nan():
    nothing = Finding("R3", "lift", "text", None, {"reliability": math.nan}, reason="too few")
    whole = replace(
        found("R1", "lift", 1.6, 2.0), controls=(0.1, 0.2, 0.3), model="tiny", measurement="3f2a"
    )
    text = json.dumps([e.record() for e in judge_all([whole, nothing])], allow_nan=False)
    one, two = json.loads(text)
    assert one["value"] == 1.8
    assert one["interval"] == [1.6, 2.0]
    assert one["supports"] == [[1.5, None]]
    assert one["contradicts"] == [[None, 1.25]]
    assert one["controls"] == [0.1, 0.2, 0.3]
    assert (one["model"], one["measurement"], one["page"]) == ("tiny", "3f2a", "regimes")
    assert one["gates"]["coverage"] == 0.95
    assert (one["verdict"], one["why"], one["unit"]) == ("supported", "", "x the smooth curve")
    assert (two["value"], two["interval"], two["controls"], two["model"]) == (None,) * 4
    assert (two["verdict"], two["why"]) == ("not testable", "too few")
    assert two["gates"] == {}
    assert one.keys() == two.keys()


def test_an_estimate_of_zero_is_recorded_as_zero():
    record = judge(found("M1", "modularity", 0.0, 0.0)).record()
    assert record["value"] == 0.0
    assert record["interval"] == [0.0, 0.0]


def test_recorded_numbers_have_six_digits():
    assert plain(1.23456789) == 1.23457
    assert plain(-0.000123456789) == -0.000123457
    assert plain(0.0) == 0.0
