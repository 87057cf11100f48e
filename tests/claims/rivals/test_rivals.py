"""What else influence may be: shares that add up, and worlds where one rival is all there is."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from raretok.claims.rivals import figures
from raretok.claims.rivals.estimate import RIVALS, compared, explained, weight_scores
from raretok.claims.rivals.shapley import correlations, r_squared, shapley
from raretok.claims.rivals.surprisal import BINS, matched, surprisal_bins
from raretok.claims.study import Study
from raretok.claims.style import panels, table, told
from raretok.errors import NotTestableError
from raretok.text.rarity import RARE
from tests.synthetic import NEURONS, SIZE, a_sample


def some_scores(rng, n=300):
    """Four correlated scores, and an outcome that some of them are in."""
    scores = rng.normal(size=(5, n)) + 0.7 * rng.normal(size=n)
    scores[-1] += scores[0] - 0.5 * scores[2]
    return scores - scores.mean(axis=1, keepdims=True)


def an_unembedding(seed=0, n=NEURONS):
    rng = np.random.default_rng(seed)
    values = {"frequency": rng.normal(size=n), "null_share": rng.uniform(0.001, 0.1, n)}
    return xr.Dataset({name: ("neuron", one) for name, one in values.items()})


def surprised(sample, seed=0):
    """Surprisal of each position: that of rare targets is higher, and both overlap."""
    rng = np.random.default_rng(seed)
    return rng.gamma(2, 1.5, sample.stratum.size) + 0.8 * (sample.stratum == RARE)


def with_effects(sample, by_position, by_neuron, noise=0.002):
    """Each neuron's effect is its own number times one of the position."""
    scatter = noise * np.random.default_rng(1).normal(size=sample.delta_loss.shape)
    return replace(sample, delta_loss=by_position[:, None] * by_neuron + scatter)


def test_parts_add_up_to_what_a_regression_explains():
    scores = some_scores(np.random.default_rng(0))
    corr = correlations(scores)
    x, y = scores[:-1].T, scores[-1]
    for some in ((0,), (1, 3), (0, 1, 2, 3)):
        residual = y - x[:, some] @ np.linalg.lstsq(x[:, some], y, rcond=None)[0]
        assert r_squared(corr, some) == pytest.approx(1 - residual @ residual / (y @ y), abs=1e-12)
    assert shapley(corr).sum() == pytest.approx(r_squared(corr, (0, 1, 2, 3)), abs=1e-10)


def test_parts_of_orthogonal_scores_are_squared_correlations():
    rng = np.random.default_rng(1)
    q = np.linalg.qr(rng.normal(size=(50, 4)))[0].T
    corr = correlations(np.vstack([q, rng.normal(size=50)]))
    np.testing.assert_allclose(shapley(corr), corr[-1, :-1] ** 2, atol=1e-12)


def test_parts_follow_their_rivals_and_copies_share_alike():
    scores = some_scores(np.random.default_rng(2))
    order = np.array([2, 0, 3, 1, 4])
    found = shapley(correlations(scores))
    np.testing.assert_allclose(shapley(correlations(scores[order])), found[order[:-1]], atol=1e-12)
    copied = shapley(correlations(scores[[0, 0, 1, 2, 4]]))
    assert copied[0] == pytest.approx(copied[1], abs=1e-12)
    assert copied.sum() == pytest.approx(
        r_squared(correlations(scores[[0, 1, 2, 4]]), (0, 1, 2)), abs=1e-10
    )


@pytest.mark.parametrize("which", range(4))
def test_a_world_of_one_rival_gives_it_nearly_everything(which):
    sample = a_sample(3)
    scores = np.random.default_rng(4).normal(size=(4, NEURONS))
    rare = with_effects(sample, np.ones(sample.stratum.size), 0.01 * scores[which])
    others = with_effects(sample, np.ones(sample.stratum.size), 0.01 * scores[3])
    difficulty = matched(others, surprised(sample)).frequent[0]
    halves = tuple(rare.mean("rare", folds) for folds in rare.folds)
    found = explained(np.exp(scores[:3]), difficulty, halves)  # ranks alone count
    part = {name: one.value for name, one in found.by["part"].items()}
    assert found.all.value == pytest.approx(sum(part.values()), abs=1e-10)
    assert part[RIVALS[which]] > 0.95 * found.all.value > 0.9
    assert found.by["alone"][RIVALS[which]].value > 0.97**2
    assert found.all.value == pytest.approx(found.ceiling.value, rel=0.05)


def test_scores_are_what_a_neuron_writes_times_how_far_it_moves():
    sample, unembedding = a_sample(5), an_unembedding()
    found = weight_scores(sample, unembedding)
    for neuron in (0, 7):
        post = sample.post[:, neuron]
        mean = np.average(post, weights=sample.weight)
        sd = np.sqrt(np.average((post - mean) ** 2, weights=sample.weight))
        size = np.sqrt((sample.W_out[neuron] ** 2).sum())
        slope, null = (float(unembedding[name][neuron]) for name in ("frequency", "null_share"))
        expected = [abs(slope) * sd, size * sd * null, size * sd]
        np.testing.assert_allclose(found[:, neuron], expected, rtol=1e-10)


def test_bins_are_weighted_quantiles_of_the_rare_ones():
    sample = a_sample(0)
    loss, rare = surprised(sample), sample.stratum == RARE
    bins = surprisal_bins(loss, sample.weight, rare)
    mass = np.bincount(bins[rare], sample.weight[rare], BINS) / sample.weight[rare].sum()
    assert np.abs(mass - 1 / BINS).max() < 2 * sample.weight.max() / sample.weight[rare].sum()
    assert (np.diff(bins[np.argsort(loss)]) >= 0).all()
    edge = np.quantile(loss[rare], 0.5, weights=sample.weight[rare], method="inverted_cdf")
    # The two rules may differ by the one position at the edge.
    assert ((loss[rare] >= edge) != (bins[rare] >= BINS // 2)).sum() <= 1


def test_others_get_the_surprisal_of_the_rare_ones():
    """Neurons whose effect says whether surprisal is below a threshold read its distribution."""
    sample = a_sample(0, n_documents=48)
    loss, rare = surprised(sample), sample.stratum == RARE
    bins = surprisal_bins(loss, sample.weight, rare)
    edges = bins[:, None] <= np.arange(BINS)
    within = loss[:, None] <= np.quantile(loss[rare], np.linspace(0.01, 0.99, NEURONS - BINS))
    read = replace(sample, delta_loss=np.hstack([edges, within]).astype(float))
    both = matched(read, loss)
    assert both.kept == 1
    for ours, others in zip(both.rare, both.frequent, strict=True):
        np.testing.assert_allclose(ours[..., :BINS], others[..., :BINS], atol=1e-9)
        assert np.abs(ours - others).max() < 1 / BINS


def test_bins_without_others_are_left_out_and_counted():
    sample = a_sample(0, n_documents=48)
    loss, rare = surprised(sample), sample.stratum == RARE
    top = surprisal_bins(loss, sample.weight, rare) == BINS - 1
    loss[top & ~rare] = loss.min()
    both = matched(sample, loss)
    assert both.kept == pytest.approx(1 - 1 / BINS, abs=0.01)
    # Halves without the first document have rare targets only.
    once = np.where(sample.document == sample.document[0], sample.stratum, RARE)
    with pytest.raises(NotTestableError, match="no other target is as surprising"):
        matched(replace(sample, stratum=once), loss)


def group_in(by_position, loss, sample):
    neurons = np.linspace(0, 0.01, NEURONS) ** 2 * 100
    neurons[-SIZE:] = 0.05
    planted = with_effects(sample, by_position, neurons)
    return compared(planted, loss, an_unembedding())


def test_influence_that_is_difficulty_is_as_large_on_others_and_rarity_is_not():
    sample = a_sample(6, n_documents=48)
    loss = surprised(sample)
    hard = group_in(loss / loss.mean(), loss, sample)
    assert hard.ratio.low < 1 < hard.ratio.high
    assert hard.ratio.value == pytest.approx(1, abs=0.05)
    assert hard.reverse.value == pytest.approx(1, abs=0.05)
    assert hard.influence["rare"].value > 1.1 * hard.influence["common"].value
    rare = group_in(np.where(sample.stratum == RARE, 1.0, 0.2), loss, sample)
    assert rare.ratio.value == pytest.approx(5, rel=0.05)
    assert rare.left.value == pytest.approx(0.2, rel=0.05)
    assert rare.through_scale == "not measured"


def interventions_of(sample, share):
    """A share of every effect is left when the scale is held."""
    documents = np.unique(sample.document)
    cells = [(sample.document == d) & (sample.stratum == RARE) for d in documents]
    sums = [share * sample.weight[one] @ sample.delta_loss[one] for one in cells]
    return xr.Dataset(
        {
            "delta_loss": (("intervention", "cell", "neuron"), np.array([sums])),
            "weight": ("cell", np.array([sample.weight[one].sum() for one in cells])),
            "cell_document": ("cell", documents),
            "cell_stratum": ("cell", np.full(documents.size, RARE)),
        },
        attrs={"interventions": ["direct"]},
    )


def test_what_the_scale_carries_is_what_is_lost_when_it_is_held():
    sample = a_sample(7)
    found = compared(sample, surprised(sample), an_unembedding(), interventions_of(sample, 0.7))
    assert found.through_scale.value == pytest.approx(0.3, abs=1e-9)
    assert found.through_scale.high - found.through_scale.low < 1e-9


class Unmeasured(Study):
    """A model of which nothing was measured."""

    def __init__(self):
        pass

    def part(self, name):
        raise NotTestableError(f"{name} of tiny was not measured")


def test_a_gap_is_one_line_and_the_rest_is_drawn():
    sample = a_sample(8)
    why = told(lambda: figures.read(Unmeasured()))
    assert why == "not testable here: effects: stratified of tiny was not measured"
    found = {"tiny": compared(sample, surprised(sample), an_unembedding()), "bare": why}
    rivals = figures.rivals_table(found)
    assert rivals.loc[("bare", ""), "part"] == why
    assert list(rivals.loc["tiny"].index[: len(RIVALS)]) == list(RIVALS)
    assert table(found, "model", figures.of_group).loc["bare"].iloc[0] == why
    for draw in (figures.shares, figures.contrast):
        _, axes = panels()
        draw(axes[0], found)
        assert axes[0].lines
        with pytest.raises(NotTestableError, match="was not measured"):
            draw(axes[0], {"bare": why})
