"""Estimands of S1: against numpy, on planted weights, and what changes nothing."""

from dataclasses import replace

import numpy as np
import pytest

from raretok.claims.sample import DRAWS
from raretok.claims.spectra.eigenvalues import hill
from raretok.claims.spectra.estimate import (
    ESTIMANDS,
    findings,
    log_hill,
    of_groups,
    squared_cosine,
    weight_rows,
)
from tests.synthetic import D_MODEL, NEURONS, SIZE, a_sample, clear_group


def planted(seed, share=0.0, protocol="corrected"):
    """Rows of the group hold a shared direction."""
    sample = a_sample(seed, protocol, rare=clear_group())
    rng = np.random.default_rng(seed)
    weights = {}
    for name in ("W_in", "W_out"):
        rows = getattr(sample, name).copy()
        rows[:SIZE] = np.sqrt(1 - share) * rows[:SIZE] + np.sqrt(share) * rng.normal(size=D_MODEL)
        weights[name] = rows
    return replace(sample, **weights)


def test_squared_cosine_is_the_mean_square_of_numpys_correlations():
    rows = np.random.default_rng(0).normal(size=(4, SIZE, 20))
    r = np.stack([np.corrcoef(one) for one in rows])
    off = ~np.eye(SIZE, dtype=bool)
    np.testing.assert_allclose(squared_cosine(r), [np.mean(one[off] ** 2) for one in r])
    spectrum = np.linalg.eigvalsh(r)
    moment = ((spectrum**2).sum(axis=1) - SIZE) / (SIZE * (SIZE - 1))
    np.testing.assert_allclose(squared_cosine(r), moment)


def test_unrelated_rows_have_their_chance_level():
    rng = np.random.default_rng(1)
    r = np.stack([np.corrcoef(rng.normal(size=(10, 50))) for _ in range(400)])
    assert squared_cosine(r).mean() == pytest.approx(1 / 49, rel=0.05)


def test_both_matrices_side_by_side_average_their_correlations():
    sample = a_sample(2)
    r = weight_rows(sample) @ weight_rows(sample).T / (2 * D_MODEL)
    by_hand = (np.corrcoef(sample.W_in) + np.corrcoef(sample.W_out)) / 2
    np.testing.assert_allclose(r, by_hand, atol=1e-12)


def test_every_fold_has_the_statistic_of_its_groups():
    sample = a_sample(3)  # no clear group: folds choose others
    rows = weight_rows(sample)
    groups = sample.with_controls()
    found = of_groups(sample, rows, squared_cosine)
    assert found.shape == (17, 20, 1 + DRAWS)
    r = rows @ rows.T / rows.shape[1]
    for at in ((0, 0, 0), (16, 19, 3), (8, 2, 100)):
        members = groups[at]
        assert found[at] == pytest.approx(squared_cosine(r[np.ix_(members, members)][None])[0])


def test_hill_of_the_largest_half():
    r = np.corrcoef(np.random.default_rng(4).normal(size=(7, 30)))[None]
    spectrum = np.linalg.eigvalsh(r)[:, ::-1]
    np.testing.assert_allclose(log_hill(r), np.log(hill(spectrum, 3)))


def test_rows_that_share_a_direction_are_found_and_others_are_not():
    nothing, shared = ({one.estimand: one for one in findings(planted(5, s))} for s in (0, 0.5))
    assert tuple(("S1", name) for name in shared) == ESTIMANDS
    assert shared["squared cosine"].estimate.low > 0.5
    assert nothing["squared cosine"].estimate.low < 0 < nothing["squared cosine"].estimate.high
    assert shared["Hill index"].estimate.value < nothing["Hill index"].estimate.value
    low, high = nothing["Hill index"].controls[1:]
    assert low < nothing["Hill index"].estimate.value < high


def test_unit_and_offset_of_rows_and_their_order_change_nothing():
    one = planted(6, 0.3, "text")
    rng = np.random.default_rng(0)
    factor, offset = rng.uniform(0.5, 2, (NEURONS, 1)), rng.normal(size=(NEURONS, 1))
    two = replace(one, W_in=factor * one.W_in + offset, delta_loss=7 * one.delta_loss)
    for a, b in zip(findings(one), findings(two), strict=True):
        assert vars(a.estimate) == pytest.approx(vars(b.estimate))


def test_pruned_neurons_are_in_no_group_and_no_control():
    sample = a_sample(7)
    dead = np.setdiff1d(np.arange(len(sample.W_out)), sample.groups)[::4]
    rows = sample.W_out.copy()
    rows[dead] = 0.0
    pruned = replace(sample, W_out=rows)
    assert np.flatnonzero(pruned.silent).tolist() == dead.tolist()
    assert not np.isin(pruned.controls, dead).any()
    assert np.isin(sample.controls, dead).any()
    assert all(one.estimate is not None for one in findings(pruned))
