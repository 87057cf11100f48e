"""Files that are replaced whole, and records that are as they were written."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from raretok.errors import UserError
from raretok.paths import digest, key_of, read_sealed, replacing, write_json, write_sealed

RECORD = {"b": 1, "a": {"d": [2.5, "ü"], "c": None}}


def test_a_record_is_read_as_it_was_written_whatever_its_order(tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    write_sealed(one, RECORD)
    assert list(read_sealed(one, UserError).items()) == list(RECORD.items())
    other = dict(reversed(RECORD.items()))
    write_sealed(two, other)
    assert read_sealed(two, UserError) == RECORD
    write_sealed(one, RECORD, sort_keys=True)
    write_sealed(two, other, sort_keys=True)
    assert one.read_bytes() == two.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one.json", "two.json"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("3", "cannot be read"),
        (json.dumps(RECORD), "cannot be read"),
        (json.dumps({**RECORD, "sha256": "0" * 64}), "was changed after it was written"),
    ],
)
def test_what_is_no_record_is_refused(content, why, tmp_path):
    (tmp_path / "one.json").write_text(content)
    with pytest.raises(UserError, match=f"^one.json {why}$"):
        read_sealed(tmp_path / "one.json", UserError)


def test_several_may_write_one_file_at_the_same_time(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: write_json(tmp_path / "one.json", n), range(200)))
    assert json.loads((tmp_path / "one.json").read_text()) in range(200)
    assert [file.name for file in tmp_path.iterdir()] == ["one.json"]


def test_where_no_record_is_that_is_said_by_the_caller(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_sealed(tmp_path / "one.json", UserError)


def test_a_key_follows_from_the_values_alone():
    assert key_of(RECORD) == key_of(dict(reversed(RECORD.items())))
    assert key_of(RECORD) != key_of(RECORD | {"b": 2})


def test_a_digest_is_of_shape_type_and_values():
    one = np.arange(6)
    others = [one.reshape(2, 3), one.astype(np.int32), one + 1, one[:5]]
    assert len({digest([some]) for some in (one, *others)}) == 5
    assert digest([one, one]) != digest([one])
    assert digest([np.arange(12)[::2]]) == digest([2 * one])  # however it lies in memory


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    (tmp_path / "file").write_text("before")

    def fail():
        with replacing(tmp_path / "file") as draft:
            draft.write_text("half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "before"
