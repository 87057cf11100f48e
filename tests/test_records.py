"""What pages recorded is read back whole, and the ledger is made of nothing else."""

import json
import math
from pathlib import Path

import pytest

from raretok.errors import UserError
from raretok.ledger.claims import paper_claims
from raretok.ledger.records import (
    FOLDER,
    Entry,
    adjusted_p,
    book_ledger,
    ledger_json,
    pages_folder,
    read_claims,
    read_page,
    unequal_settings,
)
from raretok.text.protocol import PROTOCOLS
from tests.recorded import evidence, write_book, write_page

ROOT = Path(__file__).parents[1]
KEYS = "claim model protocol published value interval null p p_adjusted power verdict figure run"


def entry(entries: list[Entry], claim: str, protocol: str = "corrected") -> Entry:
    (one,) = [e for e in entries if (e.claim.id, e.protocol) == (claim, protocol)]
    return one


def test_claims_are_read_as_they_were_recorded(tmp_path):
    found = [
        evidence("R1", smallest=0.25, figure="fig-heads", run="3f2a"),
        evidence(
            "R2", value=None, interval=None, p=None, reason='it\'s "too" few: 3 < 10\nneurons'
        ),
        evidence("R3", power=math.nan, smallest=math.inf, null="long " * 60),
    ]
    assert read_claims(write_page(tmp_path, "01_regimes", found)) == found


def test_a_page_without_claims_has_none_and_keeps_what_it_glued(tmp_path):
    page = read_page(write_page(tmp_path, "06_worlds", n="12", table={"a": [1, 2.5]}))
    assert page.claims == []
    assert page.glued == {"n": "12", "table": {"a": [1, 2.5]}}


def test_a_page_is_read_with_the_parameters_it_was_given(tmp_path):
    page = read_page(write_page(tmp_path, "01_regimes", [], {"model": "mine", "protocol": "text"}))
    assert page.parameters == {"model": "mine", "seed": 0, "protocol": "text"}


def test_the_executed_pages_of_the_book_are_read():
    found = read_claims(ROOT / "book" / "01_regimes.ipynb")
    assert {(one.claim, one.protocol) for one in found} >= {
        (claim, protocol) for claim in ("R1", "R2", "R3") for protocol in PROTOCOLS
    }


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ([{"claim": "R1"}], "01_regimes.ipynb has a record that cannot be read: .*missing"),
        ([{**vars(evidence("R1")), "claim": "Z9"}], "records claim 'Z9' under protocol"),
        ([{**vars(evidence("R1")), "protocol": "mine"}], "under protocol 'mine'"),
        ([{**vars(evidence("R1")), "p": 7.0}], "R1: p must lie in 0 to 1, got 7.0"),
        ("three", "keeps something else than records as `claims`"),
    ],
)
def test_records_that_cannot_be_read_are_named(tmp_path, claims, message):
    page = write_page(tmp_path, "01_regimes", claims=claims)
    with pytest.raises(UserError, match=message):
        read_claims(page)


def test_a_file_that_is_no_page_is_named(tmp_path):
    (tmp_path / "01_regimes.ipynb").write_text("not a notebook")
    with pytest.raises(UserError, match=r"01_regimes.ipynb is no executed page .*: run it again"):
        book_ledger(tmp_path)


def test_two_records_of_one_claim_are_refused(tmp_path):
    write_page(tmp_path, "01_regimes", [evidence("R1")])
    write_page(tmp_path, "02_coordination", [evidence("R1")])
    with pytest.raises(
        UserError, match=r"R1, protocol corrected: two records in 01_regimes.ipynb and"
    ):
        book_ledger(tmp_path)
    write_page(tmp_path, "02_coordination", [evidence("C1"), evidence("C1")])
    with pytest.raises(
        UserError, match=r"C1, protocol corrected: two records in 02_coordination.ipynb"
    ):
        book_ledger(tmp_path)


def test_adjusted_p_by_hand_without_the_tests_that_are_none():
    key = [("a", "x"), ("b", "x"), ("c", "x"), ("d", "x")]
    found = adjusted_p(dict(zip(key, [0.01, None, 0.04, 0.03], strict=True)))
    assert found == pytest.approx({key[0]: 0.03, key[2]: 0.04, key[3]: 0.04})
    assert adjusted_p({key[0]: None}) == {}


def test_the_correction_runs_over_all_pages_and_decides_the_verdict(tmp_path):
    seen = {"value": 0.9, "interval": (0.8, 0.95), "p": 0.03}
    alone = tmp_path / "alone"
    write_page(alone, "02_coordination", [evidence("C1", **seen)])
    one = entry(book_ledger(alone), "C1")
    assert (one.p_adjusted, one.verdict, one.changed) == (0.03, "reproduced", False)
    write_page(alone, "01_regimes", [evidence("R1", p=0.9), evidence("R2", p=None)])
    one = entry(book_ledger(alone), "C1")
    assert one.p_adjusted == pytest.approx(0.06)
    assert (one.verdict_on_page, one.verdict) == ("reproduced", "not testable here")
    assert one.changed
    assert one.why == "seen before the correction for the number of tests, not after it"


def test_a_claim_no_page_records_stands_as_not_run(tmp_path):
    write_page(tmp_path, "01_regimes", [evidence("R1")], {"model": "mine"})
    write_page(tmp_path, "02_coordination.failed", [evidence("C1")])
    entries = book_ledger(tmp_path)
    assert len(entries) == 3 * len(paper_claims())
    assert (entry(entries, "R1").verdict, entry(entries, "R1").model) == ("reproduced", "mine")
    missing = entry(entries, "C1")
    assert (missing.verdict, missing.found, missing.changed) == ("not run", None, False)
    assert missing.why == "no executed page records it; it belongs on 02_coordination"
    assert {e.verdict for e in book_ledger(tmp_path / "nowhere")} == {"not run"}


def test_the_ledger_is_plain_json_without_a_nan_and_stable(tmp_path):
    nothing = {"value": math.nan, "interval": None, "p": None, "reason": "a head that is not there"}
    write_book(tmp_path, {("A3", "code"): nothing})
    text = ledger_json(book_ledger(tmp_path))
    assert text == ledger_json(book_ledger(tmp_path))

    def refuse(constant: str):
        raise AssertionError(constant)

    records = json.loads(text, parse_constant=refuse)
    assert len(records) == 3 * len(paper_claims())
    assert {tuple(record) for record in records} == {tuple(records[0])}
    assert list(records[0])[:13] == KEYS.split()
    assert set(records[0]) >= {"smallest", "reason", "statement", "page"}
    (void,) = [r for r in records if (r["claim"], r["protocol"]) == ("A3", "code")]
    assert (void["value"], void["interval"], void["p"]) == (None, None, None)
    assert (void["verdict"], void["reason"]) == ("not testable here", "a head that is not there")
    (full,) = [r for r in records if (r["claim"], r["protocol"]) == ("R1", "code")]
    assert (full["interval"], full["model"], full["p_adjusted"]) == ([0.8, 1.2], "docs-gpt2", 0.001)


def test_pages_that_were_not_run_alike_are_told(tmp_path):
    write_page(tmp_path, "01_regimes", [evidence("R1")], {"seed": 3})
    write_page(tmp_path, "06_worlds", given={"model": "planted"})  # records no claim
    assert unequal_settings(tmp_path) == []
    write_page(tmp_path, "02_coordination", [evidence("C1")])
    assert unequal_settings(tmp_path) == ["seed"]


def test_pages_are_read_from_the_folder_of_the_run_in_progress(tmp_path, monkeypatch):
    monkeypatch.delenv(FOLDER, raising=False)
    assert pages_folder() == Path(".")
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assert pages_folder() == tmp_path


def test_the_ledger_of_the_book_is_that_of_its_pages():
    stored = (ROOT / "book" / "ledger.json").read_text()
    assert stored == ledger_json(book_ledger(ROOT / "book")), "stale: run `make book`"


def test_the_ledger_of_the_book_is_complete():
    records = json.loads((ROOT / "book" / "ledger.json").read_text())
    assert [(r["claim"], r["protocol"]) for r in records] == [
        (claim, protocol) for claim in paper_claims() for protocol in PROTOCOLS
    ]
    assert [r["claim"] for r in records if r["verdict"] == "not run"] == []
    assert all(r["reason"] for r in records)
    for record in records:
        if record["verdict"] != "not testable here":
            assert None not in (record["value"], record["interval"], record["p"]), record
