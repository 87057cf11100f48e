"""Random effects over runs: against statsmodels and simulation; the verdict follows its rule."""

import numpy as np
import pytest
from statsmodels.stats.meta_analysis import combine_effects

from raretok.ledger.claims import claims
from raretok.ledger.over_models import decided, families_table, replication_table, said
from raretok.ledger.replication import between_families, is_ratio, pool, replications
from raretok.stats.jackknife import Estimate
from tests.recorded import OPEN, finding


def estimates(values, errors) -> list[Estimate]:
    """Intervals over 16 blocks with these standard errors."""
    reach = 2.131449545559323 * np.asarray(errors)
    return [Estimate(v, v - r, v + r) for v, r in zip(values, reach, strict=True)]


def test_mean_and_next_run_by_hand():
    """Of 1, 2, 3: mean 2, sd 1, t of two degrees of freedom 4.3027."""
    found = pool(estimates([1.0, 2.0, 3.0], [0.1, 5.0, 0.1]), ratio=False)
    assert found.mean.value == found.next_run.value == pytest.approx(2)
    assert found.mean.high - 2 == pytest.approx(4.302652729911275 / np.sqrt(3))
    assert 2 - found.next_run.low == pytest.approx(4.302652729911275 * np.sqrt(4 / 3))


def test_equal_weights_are_those_of_random_effects_between_runs_of_equal_error():
    values, errors = np.array([0.3, 0.9, -0.2, 0.5, 1.4, 0.1]), np.full(6, 0.05)
    theirs = combine_effects(values, errors**2, method_re="iterated")
    assert pool(estimates(values, errors), False).mean.value == pytest.approx(theirs.mean_effect_re)


def test_ratios_are_pooled_by_their_logarithm():
    logs, errors = np.array([0.1, 0.4, -0.3, 0.2]), np.full(4, 0.1)
    plain = pool(estimates(logs, errors), ratio=False)
    ratio = pool([one.through(np.exp) for one in estimates(logs, errors)], ratio=True)
    for name in ("mean", "next_run"):
        expected = getattr(plain, name).through(np.exp)
        for end in ("value", "low", "high"):
            assert getattr(getattr(ratio, name), end) == pytest.approx(getattr(expected, end))
    assert is_ratio(claims()["R1"].estimands["lift"])
    for claim in ("A1", "S1", "M1"):
        assert not is_ratio(claims()[claim].estimands[claims()[claim].primary])


@pytest.mark.parametrize("between", [0.0, 0.3, 1.0])
def test_the_mean_and_the_next_number_lie_in_their_intervals(between):
    """In 95 % of worlds of seven runs, however much they differ beside their errors."""
    rng, inside, n = np.random.default_rng(0), np.zeros(2), 800
    for _ in range(n):
        seen = rng.normal(2.0, between, 8) + rng.normal(0, 0.3, 8)
        found = pool(estimates(seen[:7], np.full(7, 0.3)), ratio=False)
        for i, (one, held) in enumerate(((found.mean, 2.0), (found.next_run, seen[7]))):
            inside[i] += one.low <= held <= one.high
    assert (np.abs(inside / n - 0.95) < 3 * np.sqrt(0.05 * 0.95 / n)).all()


def runs_of(claim: str, values, error=0.001, **more) -> dict:
    return {
        f"run {i}": [finding(claim, estimate=one, model=f"run {i}", **more)]
        for i, one in enumerate(estimates(values, np.full(len(values), error)))
    }


def of(claim: str, runs: dict, outside: dict | None = None):
    runs, beside = (
        [one for each in some.values() for one in each] for some in (runs, outside or {})
    )
    return next(one for one in replications(runs, beside) if one.claim == claim)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.0, 0.001, 0.002, -0.001], "reproduced"),
        ([0.2, 0.201, 0.199], "contradicted"),
        ([0.0, 0.001, 0.06], "inconclusive"),
        ([0.0, 0.001], "not testable"),
    ],
)
def test_the_verdict_is_read_off_the_next_run(values, verdict):
    one = of("M1", runs_of("M1", values))
    assert one.verdict == verdict
    assert (one.pooled is None) == (verdict == "not testable")
    needed = "" if one.pooled else ", 3 are needed"
    assert one.gates == f"{len(values)} of {len(values)} runs pass{needed}"


def test_runs_whose_gates_fail_do_not_count():
    bad = runs_of("M1", [0.5, 0.5, 0.5], gates=OPEN | {"imbalance": 3.0})
    good = {f"good {name}": some for name, some in runs_of("M1", [0.0, 0.0, 0.0]).items()}
    one = of("M1", bad | good)
    assert (len(one.used), len(one.runs), one.verdict) == (3, 6, "reproduced")
    assert one.gates == "3 of 6 runs pass (imbalance)"
    assert of("M1", bad).gates == "0 of 3 runs pass, 3 are needed (imbalance)"
    void = finding("M1", estimate=None, reason="the model is of another type")
    assert of("M1", {"other": [void]}).gates.endswith("needed (the model is of another type)")


def test_a_model_from_outside_is_no_unit_and_stands_beside_the_next_run():
    runs = runs_of("M1", [0.0, 0.001, 0.002, -0.001])
    far = {"far": [finding("M1", estimate=Estimate(0.3, 0.29, 0.31), model="far")]}
    one = of("M1", runs, far)
    assert one.verdict == "reproduced"
    table = replication_table([one]).data
    assert "✗ contradicted" in table
    assert "<b>reproduced</b><br>4 of 4 runs pass" in table
    for column in ("supported on", "contradicted on", "far", "next run"):
        assert f"<th>{column}</th>" in table
    text = said([one], far["far"])
    assert (text["lead"], text["n_runs"], text["n_claims"]) == ("far", "4", "1")
    assert (text["n_reproduced"], text["n_contradicted"], text["M1"]) == ("1", "0", "reproduced")


def test_a_claim_is_decided_on_trained_models_alone_and_a_failed_gate_counts_among_them():
    runs = runs_of("M1", [0.0, 0.0, 0.0, 0.0], gates=OPEN | {"imbalance": 3.0})
    beside = {
        name: [finding("M1", estimate=Estimate(value, value, value), model=name)]
        for name, value in (("far", 0.3), ("docs-gpt2-untrained", 0.0))
    }
    runs |= {"good": [finding("M1", estimate=Estimate(0.0, 0.0, 0.0), model="good")]}
    one = of("M1", runs, beside)
    assert decided(one) == {"supported on": "1 of 6", "contradicted on": "1 of 6"}


def test_without_any_run_there_is_no_claim_to_reproduction():
    assert replications([], []) == []
    assert said([], [])["n_runs"] == "0"
    assert said([], [])["lead"] == "no model"
    one = of("M1", {}, {"far": [finding("M1", model="far")]})
    assert one.verdict == "not testable"
    assert one.gates == "0 of 0 runs pass, 3 are needed"
    assert said([one], [])["n_not_testable"] == "1"
    assert decided(one)["supported on"] == "1 of 1"


def test_a_family_is_set_over_the_runs_of_another_with_the_interval_of_one_run_more():
    """Logs 0.1, 0.2, 0.3: mean 0.2, sd 0.1, t of two degrees of freedom 4.3027."""
    runs = runs_of("R1", np.exp([0.1, 0.2, 0.3]))
    model = [finding("R1", estimate=Estimate(np.exp(0.5), 1.0, 3.0), model="mine")]
    g1, g4 = between_families(model, "llama", runs)
    assert (g1.claim, g1.estimate, g1.model) == ("G1", None, "mine")
    assert g1.reason == "the model is of the type llama, and this is about gpt_neox"
    assert g4.estimate.value == pytest.approx(np.exp(0.3))
    reach = 4.302652729911275 * 0.1 * np.sqrt(4 / 3)
    assert np.log([g4.estimate.low, g4.estimate.high]) == pytest.approx([0.3 - reach, 0.3 + reach])
    assert g4.gates == OPEN
    table = families_table([g1, g4]).data
    assert "G4, holds for Llama style" in table
    assert "G1" not in table


def test_a_model_without_a_lift_is_a_reason():
    found = between_families(
        [finding("R0", model="mine")], "gpt_neox", runs_of("R1", [1.0, 2.0, 3.0])
    )
    assert [one.reason for one in found] == [
        "the model has no lift (R1)",
        "the model is of the type gpt_neox, and this is about llama",
    ]
