"""Attention profiles: plain means where nothing is matched, position taken out where it is."""

from dataclasses import replace

import numpy as np
import pytest

from raretok.claims.attention.profiles import BAND, bands, class_sums, deviations
from raretok.claims.sample import correlation
from raretok.stats.jackknife import deal
from tests.synthetic import some_rows


def dealt(rows, seed=0):
    return deal(rows.queries.document, rng=np.random.default_rng(seed))


def test_correlation_is_pearsons():
    one, two = np.random.default_rng(0).normal(size=(2, 3, 8))
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(one, two, strict=True)]
    np.testing.assert_allclose(correlation(one, two), expected)
    assert correlation(np.ones(5), np.arange(5.0)) == 0


@pytest.mark.parametrize("matched", [True, False])
def test_bands_are_of_position_or_one(matched):
    rows = some_rows(0)
    found = bands(rows, matched)
    np.testing.assert_array_equal(found, rows.queries.pos // BAND if matched else 0 * found)


def test_deviations_add_up_to_nothing_in_every_band():
    rng = np.random.default_rng(1)
    keys = rng.integers(0, 4, (60, 3)).astype(float)
    mass, band = keys * rng.uniform(size=(60, 3)), rng.integers(3, size=60)
    found = deviations(mass, keys, band)
    for one in range(3):
        np.testing.assert_allclose(found[band == one].sum(axis=0), 0, atol=1e-12)
    per_key = mass[band == 1].sum(axis=0) / keys[band == 1].sum(axis=0)
    np.testing.assert_allclose(found[band == 1], mass[band == 1] - keys[band == 1] * per_key)


@pytest.mark.parametrize("blocks", [np.arange(16), np.array([2, 3, 8])])
def test_profiles_are_plain_means_where_nothing_is_matched(blocks):
    rows = some_rows(2, matched=False)
    of = dealt(rows)
    sums = class_sums(rows.mass[1], rows.keys, rows, of, False)
    folds = np.isin(np.arange(16), blocks).astype(float)
    there = np.isin(of.of(rows.queries.document), blocks)
    for kind, chosen in (("rare", rows.rare), ("common", ~rows.rare)):
        some = chosen & there
        plain = rows.mass[1][some].sum(axis=0) / rows.keys[some].sum(axis=0)
        np.testing.assert_allclose(sums[kind].profile(folds), plain)


def test_what_matched_classes_differ_by_stays_as_it_is():
    """Over all blocks: rare and common queries stand at the same positions."""
    rows = some_rows(3, lift=0.2)
    everything = np.ones(16)
    profiles = {
        matched: class_sums(rows.mass[0], rows.keys, rows, dealt(rows), matched)
        for matched in (True, False)
    }
    apart = {
        matched: of["rare"].profile(everything) - of["common"].profile(everything)
        for matched, of in profiles.items()
    }
    np.testing.assert_allclose(apart[True], apart[False], atol=1e-12)


def test_position_alone_makes_no_difference_once_it_is_taken_out():
    """Attention is a function of the band; rare queries stand later."""
    rows = some_rows(4, matched=False)
    band = bands(rows, True)
    per_key = np.random.default_rng(0).uniform(size=(band.max() + 1, *rows.mass.shape[2:]))
    mass = np.broadcast_to(per_key[band] * rows.keys[:, None], rows.mass.shape)
    rows = replace(rows, mass=np.array(mass))
    for matched, same in ((True, True), (False, False)):
        sums = class_sums(rows.mass[0], rows.keys, rows, dealt(rows), matched)
        one, two = (sums[kind].profile(np.ones(16)) for kind in ("rare", "common"))
        assert np.allclose(one, two, atol=1e-12) == same
