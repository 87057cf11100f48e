"""What pages recorded is read back whole, and the ledger is made of nothing else."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from raretok.errors import UserError
from raretok.ledger.claims import claims
from raretok.ledger.records import (
    FOLDER,
    as_records,
    book_ledger,
    ledger_json,
    pages_folder,
    read_page,
)
from raretok.ledger.tables import said
from raretok.ledger.verdicts import Entry, estimands
from raretok.measure.find import LEAD, TRAINED
from raretok.stats.jackknife import Estimate
from tests.recorded import finding, write_book, write_page

ROOT = Path(__file__).parents[2]
KEYS = "claim model reading estimand unit value interval supports contradicts gates controls"
(RECORD,) = as_records([finding("R1")])


def entry(entries: list[Entry], *key: str) -> Entry:
    (one,) = [e for e in entries if e.finding.key == key]
    return one


def test_findings_are_read_as_they_were_recorded(tmp_path):
    found = [
        finding("R1", controls=(1.0, 0.5, 1.5), gates={"reliability": 0.25}),
        finding("R2", estimate=None, reason='it\'s "too" few: 3 < 10\nneurons'),
        finding("R3", estimate=Estimate(1.0, -math.inf, math.inf)),
    ]
    assert read_page(write_page(tmp_path, "01_regimes", found[:2])).findings() == found[:2]
    assert "inf" not in json.dumps(as_records(found[1:2]))


def test_a_page_without_findings_has_none_and_keeps_what_it_glued(tmp_path):
    page = read_page(write_page(tmp_path, "06_claims", n="12", table={"a": [1, 2.5]}))
    assert page.findings() == []
    assert page.glued == {"n": "12", "table": {"a": [1, 2.5]}}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([{"claim": "R1"}], "01_regimes.ipynb has a record that cannot be read"),
        ([RECORD | {"claim": "Z9"}], "records 'Z9', 'lift' under 'corrected'"),
        ([RECORD | {"reading": "mine"}], "under 'mine'"),
        ([RECORD | {"estimate": [1.0]}], "has a record that cannot be read"),
        ("three", "keeps something else than records as `findings`"),
    ],
)
def test_records_that_cannot_be_read_are_named(tmp_path, found, message):
    page = write_page(tmp_path, "01_regimes", findings=found)
    with pytest.raises(UserError, match=message):
        read_page(page).findings()


def test_a_file_that_is_no_page_is_named(tmp_path):
    (tmp_path / "01_regimes.ipynb").write_text("not a notebook")
    with pytest.raises(UserError, match=r"01_regimes.ipynb is no executed page .*: run it again"):
        book_ledger(tmp_path)


def test_two_records_of_one_line_are_refused_unless_they_are_of_two_models(tmp_path):
    write_page(tmp_path, "01_regimes", [finding("R1")])
    write_page(tmp_path, "02_coordination", [replace(finding("R1"), model="other")])
    assert len(book_ledger(tmp_path)) == 2
    write_page(tmp_path, "02_coordination", [finding("R1")])
    with pytest.raises(UserError, match=r"R1 lift corrected: two records in 01_regimes.ipynb and"):
        book_ledger(tmp_path)


def test_a_claim_no_page_records_has_no_line_and_is_missed(tmp_path):
    write_page(tmp_path, "01_regimes", [finding("R1")])
    write_page(tmp_path, "02_coordination.failed", [finding("C1")])
    entries = book_ledger(tmp_path)
    assert [one.finding.key for one in entries] == [("R1", "lift", "corrected")]
    missing = ", ".join(name for name in claims() if name != "R1")
    assert said(entries)["missing"] == f"Not run, so missing here: {missing}."


def test_a_claim_that_needs_another_waits_for_it_under_its_own_reading(tmp_path):
    none = {"estimate": Estimate(1.0, 0.9, 1.1)}
    entries = book_ledger(write_book(tmp_path, {("R1", "text"): none}))
    assert entry(entries, "R2", "size", "corrected").verdict == "supported"
    failed = entry(entries, "R2", "size", "text")
    assert (failed.verdict, failed.why) == ("not testable", "R1 is not supported")


def test_the_ledger_is_plain_json_without_a_nan_and_stable(tmp_path):
    nothing = {"estimate": None, "reason": "a head that is not there"}
    write_book(tmp_path, {("A3", "code"): nothing})
    text = ledger_json(tmp_path)
    assert text == ledger_json(tmp_path)

    def refuse(constant: str):
        raise AssertionError(constant)

    records = json.loads(text, parse_constant=refuse)
    assert len(records) == sum(len(c.readings) * len(c.estimands) for c in claims().values())
    assert {tuple(record) for record in records} == {tuple(records[0])}
    assert list(records[0])[:11] == KEYS.split()
    void = next(r for r in records if (r["claim"], r["reading"]) == ("A3", "code"))
    assert (void["value"], void["interval"], void["verdict"]) == (None, None, "not testable")
    assert void["why"] == "a head that is not there"


def test_pages_are_read_from_the_folder_of_the_run_in_progress(tmp_path, monkeypatch):
    monkeypatch.delenv(FOLDER, raising=False)
    assert pages_folder() == Path(".")
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assert pages_folder() == tmp_path


def test_the_ledger_of_the_book_is_that_of_its_pages_and_complete():
    stored = (ROOT / "book" / "ledger.json").read_text()
    assert stored == ledger_json(ROOT / "book"), "stale: run `make book`"
    of_lead = [r for r in json.loads(stored) if r["model"] == LEAD]
    keys = [(r["claim"], r["estimand"], r["reading"]) for r in of_lead]
    assert {r["model"] for r in json.loads(stored)} >= {LEAD, *TRAINED}
    assert sorted(keys) == sorted((*k, one) for k in estimands() for one in claims()[k[0]].readings)
