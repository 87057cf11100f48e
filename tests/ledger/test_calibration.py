"""The calibration: runs are kept and resumed, counted as they are, and judged as pages are."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from raretok.claims.coordination import estimate as coordination
from raretok.claims.finding import Finding
from raretok.claims.regimes import estimate as regimes
from raretok.claims.regimes.curve import lift_scatter
from raretok.errors import NotTestableError
from raretok.ledger import calibration, worlds
from raretok.ledger.calibration import (
    CASES,
    SIZES,
    calibrate,
    counted,
    one_run,
)
from raretok.ledger.claims import claims, planted
from raretok.ledger.promise import coverage
from raretok.stats.jackknife import Estimate
from tests.synthetic import some_ground

CHEAP = ("Gini", "layers", "one head")


@pytest.fixture(scope="module")
def ground():
    return some_ground()


def test_every_claim_with_a_planted_size_has_a_case():
    cased = {key for case in CASES.values() for key in case.judged}
    declared = {
        (name, one)
        for name, claim in claims().items()
        for one, spec in claim.estimands.items()
        if spec.planted is not None
    }
    assert declared <= cased
    assert planted("R1", "lift") == 2.25
    assert planted("A3", "against the median head") == 6.0


@pytest.mark.parametrize("case", CASES)
def test_every_case_is_judged_on_its_estimands(case, ground, monkeypatch):
    monkeypatch.setattr(coordination, "POSITIONS", 80)
    monkeypatch.setattr(coordination, "CONTROLS", 2)
    monkeypatch.setattr(worlds, "POSITIONS", 80)
    monkeypatch.setattr(regimes, "lift_scatter", partial(lift_scatter, n_draws=5))
    records = one_run(ground, case, 1.0, 0)
    assert [(one["claim"], one["estimand"]) for one in records] == list(CASES[case].judged)
    for one in records:
        assert one["verdict"] in ("supported", "contradicted", "inconclusive", "not testable")
        assert bool(one["why"]) == (one["verdict"] == "not testable")
        assert one["estimate"] is None or one["estimate"][1] <= one["estimate"][2]
    json.dumps(records, allow_nan=False)


@pytest.mark.parametrize(
    ("case", "size", "verdict"),
    [
        ("Gini", 0.0, "supported"),
        ("Gini", 1.0, "contradicted"),
        ("layers", 0.0, "contradicted"),
        ("layers", 1.0, "supported"),
        ("layers", 2.0, "contradicted"),
        ("one head", 0.0, "supported"),
        ("one head", 1.0, "contradicted"),
    ],
)
def test_large_effects_are_judged_right(case, size, verdict, ground, monkeypatch):
    # There are too few queries to draw from.
    monkeypatch.setitem(CASES, case, replace(CASES[case], redrawn=False))
    assert [one_run(ground, case, size, run)[0]["verdict"] for run in range(3)] == [verdict] * 3


def test_a_run_has_random_numbers_of_its_own(ground):
    one, same = (one_run(ground, "Gini", 0.5, 0) for _ in range(2))
    assert one == same
    others = [one_run(ground, "Gini", 0.5, 1), one_run(ground, "Gini", 1.0, 0)]
    assert all(one[0]["estimate"] != other[0]["estimate"] for other in others)


def test_another_sample_of_documents_has_copies_as_documents_of_their_own(ground):
    again = ground.redrawn(np.random.default_rng(3))
    sample, before = again.sample, ground.sample
    assert np.unique(sample.document).size == np.unique(before.document).size
    taken = {tuple(row) for row in before.post.round(9)}
    assert {tuple(row) for row in sample.post.round(9)} < taken
    for name in ("delta_loss", "weight", "stratum", "document"):
        assert len(getattr(sample, name)) == len(sample.post)
    assert set(np.unique(again.heads.document)) <= set(np.unique(sample.document))
    assert again.heads.change.shape[1] == again.heads.document.size == again.heads.count.size
    assert again.rows.mass.shape[1] == len(again.rows.queries) == len(again.rows.keys)


def test_documents_are_dealt_anew_for_every_world(ground):
    again = ground.dealt(np.random.default_rng(0))
    assert (again.sample.deal.block != ground.sample.deal.block).any()
    assert again.sample.seed != ground.sample.seed
    assert again.sample.post is ground.sample.post


def test_a_world_that_cannot_be_made_is_not_testable(ground, monkeypatch):
    def impossible(ground, amount, rng):
        raise NotTestableError("no such world")

    monkeypatch.setitem(CASES, "layers", replace(CASES["layers"], world=impossible))
    (record,) = one_run(ground, "layers", 1.0, 0)
    assert (record["verdict"], record["why"]) == ("not testable", "no such world")
    assert record["estimate"] is None


def test_profiles_lose_the_correlation_that_was_asked_for(ground, monkeypatch):
    monkeypatch.setitem(CASES, "profiles", replace(CASES["profiles"], redrawn=False))
    found = [one_run(ground, "profiles", 1.0, run)[0]["estimate"][0] for run in range(4)]
    assert np.mean(found) == pytest.approx(planted("A1", "correlation"), abs=0.07)


# --- runs on disk ---------------------------------------------------------------------------------


def test_a_killed_calibration_goes_on_and_ends_as_an_uninterrupted_one(
    ground, tmp_path, monkeypatch
):
    monkeypatch.setattr(calibration, "CASES", {case: CASES[case] for case in CHEAP})
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    whole = calibrate(ground, 2, straight, jobs=1)
    assert {row["runs"] for row in whole} == {2}
    made, deal = [], calibration.Ground.dealt

    def counting(ground, rng):
        made.append(rng)
        if len(made) == 7:
            raise KeyboardInterrupt
        return deal(ground, rng)

    monkeypatch.setattr(calibration.Ground, "dealt", counting)
    with pytest.raises(KeyboardInterrupt):
        calibrate(ground, 2, killed, jobs=1)
    assert calibrate(ground, 2, killed, jobs=1) == whole
    n = 2 * len(CHEAP) * len(SIZES)
    assert len(made) == n + 1  # none of those that were finished is made again
    assert calibrate(ground, 2, killed, jobs=1) == whole
    assert len(made) == n + 1


# --- counts ---------------------------------------------------------------------------------------


def record(verdict, value=None, why=""):
    estimate = None if value is None else [value, value - 1, value + 1]
    line = {"claim": "A4", "estimand": "layer", "verdict": verdict, "why": why}
    return [line | {"estimate": estimate}]


def test_verdicts_reasons_and_coverage_are_counted():
    runs = [
        record("supported", 1.0),
        record("supported", 1.5),
        record("contradicted", 5.0),
        record("not testable", 1.2, "documents is 7, at least 8 is needed"),
        record("not testable", None, "documents is 6, at least 8 is needed"),
    ]
    results = {("layers", size): runs for size in SIZES}
    results["layers", 2.0] = [record("not testable", None, "too few")]
    rows = list(counted("layers", results))
    assert [row["size"] for row in rows] == list(SIZES)
    assert rows[0] == {
        "claim": "A4",
        "estimand": "layer",
        "size": 0.0,
        "runs": 5,
        "verdicts": {"contradicted": 1, "not testable": 2, "supported": 2},
        "why not": {"documents": 2},
        "numbers": 4,
        "first": {"verdict": "supported", "estimate": [1.0, 0.0, 2.0]},
        "median": 1.35,
        "covered": 0.75,
    }
    assert (rows[3]["median"], rows[3]["covered"], rows[3]["numbers"]) == (None, None, 0)
    json.dumps(rows, allow_nan=False)


def test_coverage_weighs_sizes_by_their_numbers():
    def row(size, numbers, covered):
        line = {"claim": "A4", "estimand": "layer", "size": size}
        return line | {"numbers": numbers, "covered": covered}

    table = [row(0.0, 100, 0.9), row(1.0, 50, 0.6), row(2.0, 0, None)]
    assert coverage(table, "A4", "layer") == pytest.approx(0.8)
    assert coverage(table, "A4", "against controls") is None
    assert coverage([row(2.0, 0, None)], "A4", "layer") is None


def test_verdicts_of_worlds_are_those_of_the_pages_rule(ground, monkeypatch):
    """The same interval gives the same verdict; coverage is what is being found out."""

    def world(ground, amount, rng):
        gates = {"documents": 9.0, "positions": 200.0, "neurons": 6.0}
        yield Finding("A4", "layer", "corrected", Estimate(-50.0, -60.0, -40.0), gates)

    monkeypatch.setitem(CASES, "layers", replace(CASES["layers"], world=world))
    assert one_run(ground, "layers", 1.0, 0)[0]["verdict"] == "supported"
