"""Tables and numbers of pages: a reason in words where there is nothing to show."""

from raretok.claims.style import cell, numbers, table
from raretok.errors import NotTestableError
from raretok.stats.jackknife import Estimate

ONE = Estimate(1.0, 0.5, 1.5)


def test_a_row_without_numbers_has_its_reason_first_and_is_else_empty():
    found = {"b": "not testable here: no effects", "a": {"x": ONE, "y": None}, "c": {"z": "9 %"}}
    shown = table(found, "model")
    assert (list(shown.index), shown.index.name) == (["b", "a", "c"], "model")
    assert list(shown.columns) == ["x", "y", "z"]
    assert list(shown.loc["b"]) == ["not testable here: no effects", "", ""]
    assert list(shown.loc["a"]) == ["1.00 (0.50 to 1.50)", "undefined", ""]
    assert list(shown.loc["c"]) == ["", "", "9 %"]


def test_rows_may_have_two_labels_and_be_made_of_what_was_found():
    shown = table({("m", 1): ONE, ("m", 2): "gap"}, ["model", "n"], lambda one: {"all": one})
    assert shown.index.names == ["model", "n"]
    assert shown.loc[("m", 2), "all"] == "gap"


def test_nothing_but_reasons_is_a_table_too():
    assert table({"a": "gap", "b": "none"}, "model").iloc[:, 0].to_dict() == {
        "a": "gap",
        "b": "none",
    }


def none(_):
    raise NotTestableError("no such effect")


def test_a_reason_is_said_once_and_a_number_that_is_missing_says_so():
    of = {"x": lambda one: one, "share": lambda one: f"{100 * one.low:.0f} %", "lost": none}
    assert numbers(ONE, **of) == {
        "x": "1.00 (0.50 to 1.50)",
        "share": "50 %",
        "lost": "not testable here",
    }
    assert numbers("not testable here: no effects", **of) == {
        "x": "not testable here: no effects",
        "share": "not testable here",
        "lost": "not testable here",
    }
    assert cell(None) == "undefined"
