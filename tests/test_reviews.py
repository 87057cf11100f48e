"""The readers' questions: every answer carries a number that was read, or says why it cannot."""

import re
from pathlib import Path

import pytest
import yaml

from raretok.book import pages
from raretok.errors import UserError
from raretok.ledger import reviews
from raretok.text.protocol import PROTOCOLS
from tests.recorded import evidence, write_book, write_page

ROOT = Path(__file__).parents[1]
QUESTIONS = yaml.safe_load(reviews.REVIEWS.read_text())
GLUED = {"overlap": "OVERLAP", "chance": "CHANCE", "share_rare": "SHARE", "interventions": "MODES"}


def whole_book(folder: Path, changed: dict | None = None) -> Path:
    """Every page that answers need, with all they need of it."""
    write_page(folder, "06_detectors", between="BETWEEN")
    return write_book(folder, changed, **GLUED)


def answer(found: list[reviews.Answer], name: str) -> reviews.Answer:
    (one,) = [one for one in found if one.id == name]
    return one


def asked(folder: Path, template: str) -> str:
    (folder / "reviews.yaml").write_text(yaml.safe_dump({"X": {"asks": "?", "answer": template}}))
    (found,) = reviews.answers(folder, folder / "reviews.yaml")
    return found.text


def test_all_questions_are_there_and_each_is_answered_or_belongs_to_a_later_page():
    assert list(QUESTIONS) == [f"V{n}" for n in range(1, 19)]
    later = [name for name, given in QUESTIONS.items() if "later" in given]
    assert later == ["V3", "V4", "V6", "V12", "V13", "V14"]
    for name, given in QUESTIONS.items():
        assert given["asks"].endswith("?"), name
        assert ("answer" in given) != ("later" in given), name


def test_no_answer_types_a_result():
    """The only figures in a template are those that define something: 1 %, 80 %."""
    for name, given in QUESTIONS.items():
        typed = re.findall(r"\d[\d.]*", re.sub(r"\{[^}]*\}", "", given.get("answer", "")))
        assert set(typed) <= {"1", "80"}, name
        assert "{" in given.get("answer", "{"), name


def test_a_whole_book_answers_all_but_the_later_ones(tmp_path):
    found = reviews.answers(whole_book(tmp_path))
    later = [one.id for one in found if one.text.startswith("Not ")]
    assert later == [name for name, given in QUESTIONS.items() if "later" in given]
    assert not any("{" in one.text or "nan" in one.text for one in found)
    assert "1 (0.8 to 1.2) more Q than controls (p = 0.001)" in answer(found, "V8").text
    assert "OVERLAP % are among those for common ones, where chance gives CHANCE %" in (
        answer(found, "V7").text
    )
    assert answer(found, "V8").page == "03_modularity"
    assert answer(found, "V11").text.endswith("fully distributed, and between those BETWEEN.")
    assert answer(found, "V18").page == "method"
    assert reviews.counts(found) == {"n_questions": "18", "n_answered": "12", "n_waiting": "6"}


def test_the_number_in_an_answer_follows_the_page(tmp_path):
    write_book(
        tmp_path, {("M1", "corrected"): {"value": -0.25, "p": 0.5, "smallest": 0.07}}, **GLUED
    )
    text = answer(reviews.answers(tmp_path), "V8").text
    assert "-0.25 (0.8 to 1.2) more Q than controls (p = 0.500) and would show 0.07 more Q" in text
    assert text.endswith("not reproduced (code, text), reproduced (corrected).")


def test_a_page_that_was_not_run_leaves_its_questions_open(tmp_path):
    write_page(tmp_path, "01_regimes", [evidence("R1", p) for p in PROTOCOLS], chance="7")
    assert asked(tmp_path, "{R1.text.ours}") == "1 (0.8 to 1.2) x the smooth curve"
    assert asked(tmp_path, "{regimes.chance} %") == "7 %"
    assert asked(tmp_path, "{R1.code.smallest}").startswith("Not testable here (R1): ")
    for name in ("M1.corrected.p", "M1.verdicts"):
        missing = "Not yet: no page records M1, which belongs on modularity."
        assert asked(tmp_path, f"Q is {{{name}}}.") == missing
    assert asked(tmp_path, "{regimes.lost}") == "Not yet: the page regimes records no such number."
    missing = answer(reviews.answers(write_book(tmp_path / "other", **GLUED)), "V11")
    assert (missing.text, missing.page) == ("Not yet: detectors was not run.", "")
    assert asked(tmp_path, "{spectra.lost}") == "Not yet: spectra was not run."


def test_what_could_not_be_tested_is_said_with_its_reason(tmp_path):
    void = {"value": None, "interval": None, "p": None, "reason": "the group has one neuron"}
    write_book(tmp_path, {("M1", "corrected"): void}, **GLUED)
    text = answer(reviews.answers(tmp_path), "V8").text
    assert text == "Not testable here (M1): the group has one neuron."
    assert asked(tmp_path, "{M1.verdicts}") == (
        "not reproduced (code, text), not testable here (corrected)"
    )


def test_a_name_that_nothing_gives_is_an_error_not_a_gap(tmp_path):
    with pytest.raises(UserError, match=r"asks for 'M9.corrected.p', which no page or claim gives"):
        asked(tmp_path, "{M9.corrected.p}")


def test_the_table_links_only_to_pages_that_are_there(tmp_path):
    write_page(tmp_path, "01_regimes", [evidence("R1", p) for p in PROTOCOLS])
    table = reviews.answers_table(reviews.answers(tmp_path))
    assert table.loc["V1", "read on"] == '<a href="01_regimes.html">regimes</a>'
    assert table.loc["V8", "read on"] == ""
    assert table.loc["V18", "read on"] == '<a href="method.html">method</a>'
    assert "&quot;spatial&quot;" in table.loc["V9", "question"]


def test_pages_named_by_answers_are_pages():
    there = {page.stem for page in pages.pages(ROOT)} | {"method"}
    named = {given["page"] for given in QUESTIONS.values() if "page" in given}
    assert named - there <= {"02_coordination", "03_modularity", "05_spectra", "06_detectors"}
