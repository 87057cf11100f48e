"""What the status page says of measurements, and what commands note for it."""

import json
import shutil

from raretok.book import renewal, status
from raretok.measure import check
from raretok.measure.find import SHIPPED
from raretok.measure.parameters import PageParameters
from raretok.measure.record import Folder

SMALL = "docs-gpt2-licences"


def test_a_file_that_is_not_as_it_was_written_is_told(tmp_path):
    folder = Folder(shutil.copytree(SHIPPED / SMALL, tmp_path / SMALL))
    entries = folder.record()["parts"]
    assert status.sealed(folder, entries)
    file = folder.path / "influence.zip"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert not status.sealed(folder, entries)
    file.unlink()
    assert not status.sealed(folder, entries)


def test_the_audit_is_the_one_that_the_part_holds():
    lead = SHIPPED / status.LEAD
    data = Folder(lead).read("effects: stratified")
    assert list(status.audits(lead / "effects-stratified.zip")) == [data.audit_max_error]
    assert list(status.audits(lead / "model.zip")) == []


def test_what_was_noted_stands_on_the_page_and_the_rest_was_not_run_here(tmp_path):
    shutil.copy(status.DATA.parent / "book" / "06_claims.ipynb", tmp_path)
    assert [row["seconds"] for row in status.times(tmp_path)] == [status.NOT_HERE]
    status.note(tmp_path, status.TIMES, {"06_claims": 3.2})
    status.note(tmp_path, status.TIMES, {"07_other": 1.0})
    assert status.kept(tmp_path, status.TIMES) == {"06_claims": 3.2, "07_other": 1.0}
    assert [row["seconds"] for row in status.times(tmp_path)] == ["3.2"]
    status.note(tmp_path, status.CHECKS, {SMALL: "4 of 4 quantities agree"})
    rows = {row["measurement"]: row["measured again"] for row in status.measurements(tmp_path)}
    assert rows.pop(SMALL) == "4 of 4 quantities agree"
    assert set(rows.values()) == {status.NOT_HERE}


def test_what_a_check_found_is_noted(tmp_path, monkeypatch):
    agrees = check.Checked("effects", "loss", 10, rms=1.0, largest=2.0, scale=1.0)
    differs = check.Checked("effects", "post", 10, rms=2.0, largest=2.0, scale=1.0)
    monkeypatch.setattr(check, "check", lambda asked: iter([agrees, differs]))
    monkeypatch.setattr(renewal, "ROOT", tmp_path)
    (tmp_path / "book").mkdir()
    assert not renewal.check([PageParameters()])
    found = status.kept(tmp_path / "book", status.CHECKS)
    assert found == {status.LEAD: "1 of 2 quantities agree"}


def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    status.note(tmp_path / "none", status.TIMES, {"06_claims": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_a_measurement_is_named_by_what_its_record_has():
    record = json.loads((SHIPPED / SMALL / "measurement.json").read_text())
    (row,) = (one for one in status.measurements(SHIPPED) if one["measurement"] == SMALL)
    assert row["key"] == f"`{record['key']}`"
    seconds = sum(part["made"]["seconds"] for part in record["parts"].values())
    assert row["minutes"] == f"{seconds / 60:.1f}"
