"""The readers' questions: every answer carries a number that was read, or says why it cannot."""

import re
from pathlib import Path

import pytest
import yaml

from raretok.book import pages
from raretok.errors import UserError
from raretok.ledger import reviews
from raretok.ledger.records import title
from tests.recorded import finding, write_book, write_page

ROOT = Path(__file__).parents[2]
QUESTIONS = yaml.safe_load(reviews.REVIEWS.read_text())
GLUED = {
    "01_regimes": {"released": 61.5, "reliable_common": 0.31},
    "11_replication": {"M1": "inconclusive"},
    "12_dynamics": {"n_steps": "11", "half": "512", "last": "5,883"},
    "14_layers": {"n_layers": 4, "share": "0.66 (0.60 to 0.72)"},
    "16_rivals": {"all": "18 (16 to 20)", "best": "entropy", "of_group": "entropy"},
}


def answer(found: list[dict[str, str]], name: str) -> dict[str, str]:
    (one,) = [one for one in found if one["id"] == name]
    return one


def asked(folder: Path, template: str) -> str:
    (folder / "reviews.yaml").write_text(yaml.safe_dump({"X": {"asks": "?", "answer": template}}))
    (found,) = reviews.answers(folder, folder / "reviews.yaml")
    return found["answer"]


def test_all_questions_are_there_and_each_is_answered():
    assert list(QUESTIONS) == [f"V{n}" for n in range(1, 19)]
    for name, given in QUESTIONS.items():
        assert given["asks"].endswith("?"), name
        assert "answer" in given, name


def test_no_answer_types_a_result():
    """The only figure in a template is the 1 % that defines the group."""
    for name, given in QUESTIONS.items():
        typed = re.findall(r"\d[\d.]*", re.sub(r"\{[^}]*\}", "", given.get("answer", "")))
        assert set(typed) <= {"1"}, name
        assert "{" in given.get("answer", "{"), name


def test_a_whole_book_answers_all(tmp_path):
    found = reviews.answers(write_book(tmp_path, glued=GLUED))
    assert not [one["id"] for one in found if one["answer"].startswith("Not ")]
    assert not any("{" in one["answer"] or "nan" in one["answer"] for one in found)
    assert "finds a plateau in 62 % of draws" in answer(found, "V1")["answer"]
    assert answer(found, "V8")["answer"].endswith(
        ": that the neurons form no modules is supported."
    )
    assert "03_modularity.html" in answer(found, "V8")["read on"]
    assert "method.html" in answer(found, "V18")["read on"]
    assert reviews.counts(found) == {"n_questions": "18", "n_answered": "18", "n_waiting": "0"}


def test_what_could_not_be_tested_is_said_with_its_reason(tmp_path):
    void = {"estimate": None, "reason": "the group has one neuron"}
    write_book(tmp_path, {("M1", "corrected"): void}, GLUED)
    text = answer(reviews.answers(tmp_path), "V8")["answer"]
    assert text == "Not testable here: the group has one neuron."


def test_a_page_that_was_not_run_leaves_its_questions_open(tmp_path):
    write_page(tmp_path, "01_regimes", [finding("R1")], chance="7")
    assert asked(tmp_path, "{regimes.chance} %") == "7 %"
    assert asked(tmp_path, "{regimes.lost}") == "Not yet: the page regimes records no such number."
    missing = answer(reviews.answers(tmp_path), "V8")
    assert missing["read on"] == ""
    assert missing["answer"].startswith("Not yet: ")


def test_a_name_that_nothing_gives_is_an_error_not_a_gap(tmp_path):
    with pytest.raises(UserError, match=r"asks for 'M9.corrected.p', which no page or claim gives"):
        asked(tmp_path, "{M9.corrected.p}")


def test_the_table_links_only_to_pages_that_are_there(tmp_path):
    write_page(tmp_path, "01_regimes", [finding("R1")], **GLUED["01_regimes"])
    table = reviews.answers_table(reviews.answers(tmp_path))
    assert table.loc["V2", "read on"] == '<a href="01_regimes.html">regimes</a>'
    assert table.loc["V8", "read on"] == ""
    assert table.loc["V18", "read on"] == '<a href="method.html">method</a>'
    assert "&quot;spatial&quot;" in table.loc["V9", "question"]


def test_pages_named_by_answers_are_pages():
    there = {title(page.stem) for page in pages.pages(ROOT)} | {"method"}
    assert {given["page"] for given in QUESTIONS.values() if "page" in given} <= there
