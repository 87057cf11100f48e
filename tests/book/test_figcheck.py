"""The figure digest: blind to style and float noise, sharp on one moved point."""

import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure

from raretok.book.figcheck import RELATIVE, differences, same_output, same_page
from raretok.claims.digest import digest

X = np.arange(1, 1001)
Y = 0.3 / X


def rank_curve(y: np.ndarray, *, label: str = "rare targets", **style) -> str:
    ax = Figure().subplots()
    ax.loglog(X, y, label=label, **style)
    ax.fill_between(X, y / 2, y * 2, alpha=0.2)
    ax.axvline(10)
    ax.set(xlabel="neuron rank", ylabel="influence (nats)", ylim=(1e-5, 1))
    ax.legend()
    return digest(ax.figure)


def test_style_and_float_noise_are_not_seen():
    reference = rank_curve(Y)
    assert differences(reference, rank_curve(Y, lw=3, color="k", marker="x")) == []
    noise = np.random.default_rng(0).uniform(-0.8, 0.8, size=Y.size)
    assert differences(reference, rank_curve(Y * (1 + RELATIVE * noise))) == []


def test_one_moved_point_of_a_thousand_is_seen_and_named():
    y = Y.copy()
    y[500] *= 1.02
    found = differences(rank_curve(Y), rank_curve(y))
    assert any("line 'rare targets': 1 of 2000 values moved, the first at 1001" in f for f in found)


def test_words_counts_limits_and_scales_are_compared():
    reference = rank_curve(Y)
    assert "'rare targets' became 'common'" in str(
        differences(reference, rank_curve(Y, label="common"))
    )
    linear = Figure().subplots()
    linear.plot(X, Y)
    assert "lines of axes" in differences(reference, digest(linear.figure))[0]
    # The same picture on an axis of twice the length: only its limits tell.
    one, two = Figure().subplots(), Figure().subplots()
    one.plot(X, Y)
    two.plot(X, 2 * Y)
    assert "y limits" in differences(digest(one.figure), digest(two.figure))[0]


@pytest.mark.parametrize("loc", ["left", "center", "right"])
def test_a_title_is_compared_wherever_it_stands(loc):
    """The verdicts of the forest plots stand in titles on the left."""
    one, two = Figure().subplots(), Figure().subplots()
    one.set_title("A3: reproduced", loc=loc)
    two.set_title("A3: contradicted", loc=loc)
    assert (
        "'A3: reproduced' became 'A3: contradicted'"
        in differences(digest(one.figure), digest(two.figure))[0]
    )


@pytest.mark.parametrize("kind", ["scatter", "bar", "hist", "imshow", "pcolormesh", "errorbar"])
def test_every_kind_of_plot_is_covered(kind):
    def draw(moved: float) -> str:
        ax = Figure().subplots()
        values = np.random.default_rng(1).normal(size=(20, 20))
        values[3, 4] += moved
        if kind in ("imshow", "pcolormesh"):
            getattr(ax, kind)(values, vmin=-5, vmax=5)
        elif kind == "hist":
            ax.hist(values.ravel(), bins=np.linspace(-5, 5, 30))
        elif kind == "scatter":
            ax.scatter(values[0], values[3], c=values[3])
        else:
            getattr(ax, kind)(X[:20], values[3])
        return digest(ax.figure)

    assert differences(draw(0), draw(0)) == []
    assert differences(draw(0), draw(0.8)) != []


def test_a_large_picture_keeps_few_values_and_missing_ones():
    ax = Figure().subplots()
    values = np.zeros((300, 200))
    values[:100] = np.nan
    ax.imshow(values)
    assert len(digest(ax.figure)) < 1000
    assert differences(digest(ax.figure), "no digest") == ["one of the two is not a figure digest"]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("p = 0.020001, 1,234 of 5", True),  # within RELATIVE
        ("p = 0.0204, 1,234 of 5", False),
        ("p = 0.02, 1,259 of 5", False),
        ("p = 0.02, 1,234 of 6", False),
        ("q = 0.02, 1,234 of 5", False),
        ("p = 0.02, 1,234 of 5, -", False),
        ("p = -0.02, 1,234 of 5", False),
    ],
)
def test_words_are_compared_exactly_and_numbers_within_the_tolerance(text, same):
    assert same_output("p = 0.02, 1,234 of 5", text) == same


def test_digests_are_compared_as_digests():
    assert same_output(rank_curve(Y), rank_curve(Y * (1 + RELATIVE / 2)))
    assert not same_output(rank_curve(Y), rank_curve(Y * 1.02))


def executed(output: str, source: str = "print(p)") -> nbformat.NotebookNode:
    cell = nbformat.v4.new_code_cell(source, id="a")
    cell.outputs = [nbformat.v4.new_output("stream", text=output)]
    return nbformat.v4.new_notebook(cells=[cell])


def test_pages_are_the_same_where_cells_are_and_outputs_within_the_tolerance():
    page = executed("p = 0.02")
    assert same_page(page, executed("p = 0.020001"))
    assert not same_page(page, executed("p = 0.0204"))
    assert not same_page(page, executed("p = 0.02", source="print(q)"))
    assert not same_page(page, nbformat.v4.new_notebook(cells=[]))
    silent = executed("")
    silent.cells[0].outputs = []
    assert not same_page(page, silent)
