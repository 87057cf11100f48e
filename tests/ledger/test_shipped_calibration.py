"""The calibration that ships keeps its promise, is whole, and its first worlds are made again."""

import json

import numpy as np
import pytest

from raretok.claims.study import Study
from raretok.ledger import promise
from raretok.ledger.calibration import CASES, Ground, one_run
from raretok.ledger.claims import claims
from raretok.measure.parameters import PageParameters

ROWS = promise.calibrated("docs-gpt2")
AGAIN = ("shares", "rare curve", "head", "dimensions", "Gini", "profiles", "one head", "layers")


@pytest.fixture(scope="module")
def ground() -> Ground:
    study = Study(PageParameters(model="docs-gpt2"))
    return Ground(
        study.sample("corrected", heads=True),
        study.heads("corrected"),
        study.rows("corrected"),
        study.layers,
    )


def row(claim: str, estimand: str, size: float) -> dict:
    (one,) = [r for r in promise.rows_of(ROWS, claim, estimand) if r["size"] == size]
    return one


def test_every_planted_estimand_is_calibrated_at_every_size_on_this_measurement():
    planted = [
        (n, e) for n, c in claims().items() for e, spec in c.estimands.items() if spec.planted
    ]
    assert {(r["claim"], r["estimand"]) for r in ROWS} >= set(planted)
    assert all(sum(r["verdicts"].values()) == r["runs"] >= 30 for r in ROWS)
    assert {r["size"] for r in ROWS} == set(CASES["head"].sizes)
    stored = json.loads((promise.SHIPPED / "docs-gpt2.json").read_text())
    assert stored["measurement"] == Study(PageParameters(model="docs-gpt2")).measurements.name


@pytest.mark.parametrize("key", sorted({(r["claim"], r["estimand"]) for r in ROWS}), ids=" ".join)
def test_what_is_false_is_seldom_supported(key):
    """5 %, and what so many runs leave open."""
    runs = min(r["runs"] for r in promise.rows_of(ROWS, *key))
    allowed = 0.05 + 0.03 * (1 if runs >= 100 else 2)
    assert promise.support(ROWS, *key)["false"] <= allowed


@pytest.mark.parametrize("case", AGAIN)
def test_first_worlds_are_judged_as_they_were(ground, case):
    for size in (0.0, 1.0):
        for found in one_run(ground, case, size, 0):
            first = row(found["claim"], found["estimand"], size)["first"]
            assert found["verdict"] == first["verdict"]
            if first["estimate"]:
                np.testing.assert_allclose(found["estimate"], first["estimate"], rtol=1e-4)
