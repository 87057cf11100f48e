"""Every figure of the pages: legible, with its picture and its numbers under it."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raretok.book import site as under
from raretok.book.figcheck import SVG
from raretok.claims import style
from raretok.claims.digest import digest, unpack
from raretok.ledger import figures, over_models
from raretok.ledger.records import book_ledger, executed_pages

ROOT = Path(__file__).parents[2]
PAGES = [page for page in executed_pages(ROOT / "book") if any(under.figures(page))]
POINTS = re.compile(r'"points": "([^"]*)"')
SIZE = re.compile(r'<svg\b[^>]*\bwidth="([\d.]+)pt"')


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_figure_has_its_picture_and_the_numbers_of_its_digest(site, page):
    html = (site / "book" / f"{page.stem}.html").read_text()
    for name, data in under.figures(page):
        figure = re.search(rf'<figure\b[^>]*id="{name}".*?</figure>', html, re.DOTALL)[0]
        (picture, numbers) = re.findall(r'<a href="([^"]+)" download', figure)
        assert (site / "book" / picture).read_text().strip() == data[SVG].strip()
        table = pd.read_csv(site / "book" / numbers, na_values="", keep_default_na=False)
        drawn = np.concatenate([unpack(one) for one in POINTS.findall(data["text/plain"])])
        coloured = table["artist"].str.endswith(" colours")
        places = table.loc[~coloured, ["x", "y"]].to_numpy().ravel()
        written = np.concatenate([places, table.loc[coloured, "colour"]])
        assert len(written) == len(drawn)
        both = [np.sort(one[np.isfinite(one)]) for one in (drawn, written)]
        np.testing.assert_allclose(*both, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_figure_is_as_wide_as_the_page_and_the_same_on_every_machine(page):
    for name, data in under.figures(page):
        assert float(SIZE.search(data[SVG])[1]) == pytest.approx(72 * style.WIDTH), name
        assert "<dc:date>" not in data[SVG], name


def test_type_is_no_smaller_than_the_text_of_a_page():
    figure, axes = style.panels()
    axes[0].plot([1, 2], label="line")
    axes[0].set(title="title", xlabel="x", ylabel="y")
    style.legend(figure)
    figure.draw_without_rendering()
    words = [text for text in figure.findobj(style.plt.Text) if text.get_text()]
    assert len(words) > 5
    assert min(text.get_size() for text in words) * 96 / 72 >= 16


def test_a_legend_names_each_series_of_all_panels_once():
    figure, (left, right) = style.panels(2)
    left.plot([1, 2], label="one")
    right.plot([1, 2], label="one")
    right.plot([1, 2], label="two")
    style.points(right, [0.0], [style.Estimate(1.0, 0.5, 1.5)], color="k", label="three")
    style.legend(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two", "three"]


def long_names() -> style.Figure:
    """A figure whose series have names of half its width."""
    figure, (ax,) = style.panels()
    for i in range(5):
        ax.plot([1, 2], label=f"a series of some kind or other, number {i}")
    style.legend(figure, 4)
    return figure


def forest() -> style.Figure:
    """The first panels of the one on the front page."""
    found = over_models.beside(ROOT / "book")[0][:2]
    return figures.forest(found, over_models.names(found))


@pytest.mark.parametrize(
    "made", [long_names, forest, lambda: figures.readings(book_ledger(ROOT / "book")[:3])]
)
def test_no_legend_sticks_out_of_its_figure(made):
    figure = made()
    figure.draw_without_rendering()
    (found,) = figure.legends
    legend, page = found.get_window_extent(), figure.bbox
    assert page.x0 <= legend.x0
    assert legend.x1 <= page.x1
    assert figure.axes[0].get_window_extent().y1 < legend.y0
    assert legend.y1 <= page.y1


def test_an_interval_that_leaves_the_axis_ends_in_an_arrow():
    _, (ax,) = style.panels()
    found = [style.Estimate(0.0, -5.0, 0.5), None, style.Estimate(0.2, 0.1, 9.0)]
    style.points(ax, [0.0, 1.0, 2.0], found, along="x", within=(-1.0, 1.0), color="k", label="some")
    marks, low, high = ax.lines
    assert marks.get_xydata().tolist() == [[0.0, 0.0], [0.2, 2.0]]
    assert (low.get_marker(), low.get_xydata().tolist()) == ("<", [[-1.0, 0.0]])
    assert (high.get_marker(), high.get_xydata().tolist()) == (">", [[1.0, 2.0]])
    ends = [path.vertices[:, 0].tolist() for path in ax.collections[0].get_paths()]
    assert ends == [[-1.0, 0.5], [0.1, 1.0]]


def test_the_numbers_of_a_figure_are_a_row_a_point():
    figure, (left, right) = style.panels(2)
    style.points(left, [1.0], [style.Estimate(2.0, 1.0, 3.0)], color="k", label="rare")
    left.set_title("first")
    right.imshow([[1.0, 2.0], [3.0, 4.0]])
    table = under.numbers(digest(figure))
    assert list(table.columns) == under.COLUMNS
    assert list(table["panel"].unique()) == ["1 first", "2"]
    named = table[table["label"] == "rare, 95 %"]
    assert named[["x", "y"]].to_numpy().tolist() == [[1, 1], [1, 3]]
    picture = table[table["panel"] == "2"]
    assert picture["colour"].tolist() == [1, 2, 3, 4]
    assert picture[["x", "y"]].to_numpy().tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
