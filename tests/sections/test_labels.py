"""Exchanged labels: what they keep, what they take away, and what they do to a verdict."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from raretok.ledger.claims import Evidence
from raretok.ledger.verdicts import verdict
from raretok.sections.labels import exchanged, label_controlled
from raretok.text.rarity import COMMON, MIDDLE, RARE

N = 400


@pytest.fixture
def effects() -> xr.Dataset:
    rng = np.random.default_rng(0)
    stratum = rng.choice([RARE, COMMON, MIDDLE], N)
    coords = {
        "stratum": ("position", stratum),
        "weight": ("position", np.where(stratum == RARE, 1.5, 40.0)),
        "document": ("position", rng.integers(20, size=N)),
    }
    return xr.Dataset({"loss": ("position", rng.normal(size=N))}, coords)


def test_each_document_keeps_its_labels_and_weights(effects):
    world = exchanged(effects, rng=np.random.default_rng(1))
    for document in range(20):
        rows = effects.document.values == document
        for name in ("stratum", "weight"):
            before, after = effects[name].values[rows], world[name].values[rows]
            np.testing.assert_array_equal(np.sort(before), np.sort(after))
    np.testing.assert_array_equal(world.weight == 1.5, world.stratum == RARE)
    np.testing.assert_array_equal(world.stratum == MIDDLE, effects.stratum == MIDDLE)


def test_labels_move(effects):
    world = exchanged(effects, rng=np.random.default_rng(1))
    either = effects.stratum.values != MIDDLE
    moved = (world.stratum.values != effects.stratum.values)[either].mean()
    assert 0.35 < moved < 0.6
    assert world.loss.identical(effects.loss.assign_coords(world.coords))


def test_a_verdict_counts_the_null_world_that_shows_more():
    seen = Evidence(
        "C1", "corrected", 0.7, (0.6, 0.8), "a null", p=0.001, null_world_p=0.4, power=0.9
    )
    assert verdict(seen) == "reproduced"
    (same,) = label_controlled([seen], {"C1": [0.5, 0.6, 0.7]})
    assert same == seen
    (other,) = label_controlled([seen], {"C1": [0.9, 0.01, 0.02]})
    assert other == replace(seen, null_world_p=0.02, null_world="exchanged labels")
    assert verdict(other) == "artefact of the method"


def test_a_claim_that_was_not_tested_so_stays_as_it_is():
    untested = Evidence("C1", "code", None, None, "", p=None, null_world_p=None, reason="none")
    other = Evidence("S1", "code", 1.0, (0.5, 2.0), "a null", p=0.01, null_world_p=0.5)
    assert label_controlled([untested, other], {"C1": [0.01]}) == [untested, other]
