"""Measurements on disk: rounding within the stated errors, equal bytes, refused where damaged."""

import json

import numpy as np
import pytest
import xarray as xr

from raretok.errors import UserError
from raretok.measure.parts import STEPS
from raretok.measure.record import FORMAT, MOST_STEPS, Folder, in_steps, rounded
from raretok.paths import key_of, seal_of

SETTINGS = {"format": FORMAT, "seed": 0}


def values() -> np.ndarray:
    """Neurons of unlike size, one always silent and one with an outlier."""
    rng = np.random.default_rng(0)
    found = rng.normal(size=(4_000, 6)) * np.array([1e-6, 0.1, 1.0, 50.0, 0.0, 1.0])
    found[7, 5] = 1e5
    return found


def in_codes() -> xr.Dataset:
    codes, step = in_steps(values(), STEPS)
    return xr.Dataset(
        {
            "delta_loss": (("position", "neuron"), codes),
            "delta_loss_step": ("neuron", step),
            "loss": ("position", rounded(values()[:, 1], 10)),
        },
        {"document": ("position", np.arange(4_000) // 10)},
        {"audit_passed": 1},
    )


@pytest.fixture
def folder(tmp_path) -> Folder:
    return kept(tmp_path / "one")


def kept(path) -> Folder:
    folder = Folder(path)
    folder.begin("tiny", SETTINGS)
    folder.keep("effects: stratified", in_codes(), {"seconds": 1.0})
    return folder


def test_a_measurement_begins_with_the_parts_of_one_of_the_same_settings(tmp_path, folder):
    key = key_of(SETTINGS)
    taken = Folder(tmp_path / "runs" / "taken")
    taken.take_over(folder, key)
    xr.testing.assert_equal(taken.read("effects: stratified"), folder.read("effects: stratified"))
    other = Folder(tmp_path / "runs" / "other")
    other.take_over(folder, "another key")
    other.take_over(Folder(tmp_path / "nowhere"), key)
    assert not other.there
    folder.keep("more", in_codes(), {"seconds": 1.0})
    taken.take_over(folder, key)  # what is there already stays
    assert list(taken.record()["parts"]) == ["effects: stratified"]


def test_steps_keep_each_neuron_and_its_mean_within_the_stated_error():
    exact = values()
    codes, step = in_steps(exact, STEPS)
    error = codes * step - exact
    assert (np.abs(error) <= step / 2 * (1 + 1e-9)).all()
    assert np.abs(codes.astype(int)).max() <= MOST_STEPS
    plain = [0, 1, 2, 3]
    added = np.square(error).mean(axis=0) / np.square(exact).mean(axis=0).clip(1e-300)
    np.testing.assert_allclose(added[plain], 1 / (12 * STEPS**2), rtol=0.1)
    of_mean = np.abs(error.mean(axis=0)) / (step / np.sqrt(12 * len(exact)))
    assert (of_mean < 4).all()
    assert (codes[:, 4] == 0).all()


@pytest.mark.parametrize("bits", [6, 10])
def test_rounded_numbers_are_off_by_no_more_than_half_their_last_digit(bits):
    exact = np.random.default_rng(0).normal(size=5_000).astype(np.float32)
    found = rounded(exact, bits)
    error = np.abs(found - exact) / np.abs(exact)
    assert 2.0 ** -(bits + 3) < error.max() <= 2.0 ** -(bits + 1)
    assert abs((found - exact).mean()) < 4 * (found - exact).std() / np.sqrt(exact.size)
    np.testing.assert_array_equal(rounded(found, bits), found)
    assert not (found.view(np.uint32) & ((1 << (23 - bits)) - 1)).any()
    np.testing.assert_array_equal(rounded(np.array([0.0, 1.0, -2.0]), bits), [0, 1, -2])


def test_what_is_read_is_what_was_kept(folder):
    found, made = folder.read("effects: stratified"), in_codes()
    assert found.delta_loss.dtype == found.loss.dtype == np.float64
    exact = made.delta_loss.values * made.delta_loss_step.values
    np.testing.assert_array_equal(found.delta_loss, exact)
    np.testing.assert_array_equal(found.loss, made.loss)
    np.testing.assert_array_equal(found.document, made.document)
    assert found.attrs == made.attrs


def test_equal_datasets_give_equal_bytes(folder, tmp_path):
    again = kept(tmp_path / "two")
    files = sorted(file.name for file in folder.path.iterdir())
    assert files == ["effects-stratified.zip", "measurement.json"]
    for name in files:
        assert (folder.path / name).read_bytes() == (again.path / name).read_bytes()


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def refused(folder: Folder, why: str) -> None:
    before = {file: file.read_bytes() for file in folder.path.iterdir()}
    with pytest.raises(UserError, match=why) as caught:
        folder.read("effects: stratified")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("the measurement one is damaged: ")
    assert "raretok measure" in str(caught.value)
    assert before == {file: file.read_bytes() for file in folder.path.iterdir()}


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (None, "effects-stratified.zip is missing"),
        (lambda content: content[:-1], r"effects-stratified.zip has \d+ bytes, not \d+"),
        (lambda content: b"", "effects-stratified.zip has 0 bytes"),
        (flip, r"effects-stratified.zip is not as it was written \(its sha256 differs\)"),
    ],
)
def test_a_damaged_part_is_refused_in_one_line(folder, damage, why):
    file = folder.path / "effects-stratified.zip"
    content = file.read_bytes()
    file.unlink()
    if damage:
        file.write_bytes(damage(content))
    refused(folder, why)


def other_format(record: dict) -> dict:
    changed = {**{n: v for n, v in record.items() if n != "sha256"}, "format": FORMAT + 1}
    return changed | {"sha256": seal_of(changed)}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (other_format, rf"it is of format {FORMAT + 1}, this is {FORMAT}"),
        (lambda record: record | {"model": "other"}, "was changed after it was written"),
        (lambda record: record | {"parts": {}}, "was changed after it was written"),
        (lambda record: {"format": FORMAT}, "measurement.json cannot be read"),
    ],
)
def test_a_changed_record_is_refused_in_one_line(folder, change, why):
    file = folder.path / "measurement.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    refused(folder, why)


def test_a_record_that_is_no_record_or_missing_is_refused(folder):
    file = folder.path / "measurement.json"
    for content in (b"", b"\xff\xfe", file.read_bytes()[:-20], b"3"):
        file.write_bytes(content)
        refused(folder, "measurement.json cannot be read")
    file.unlink()
    assert not folder.there
    refused(folder, "measurement.json is missing")


def test_an_unknown_part_is_refused_and_a_second_one_leaves_the_first(folder):
    with pytest.raises(UserError, match="it has no part 'model'"):
        folder.read("model")
    before = folder.record()["parts"]["effects: stratified"]
    folder.begin("another", {"seed": 1})  # one that is there is left alone
    folder.keep("model", xr.Dataset({"counts": ("entry", np.arange(3))}), {})
    record = folder.record()
    assert record["model"] == "tiny"
    assert record["parts"]["effects: stratified"] == before
    np.testing.assert_array_equal(folder.read("model").counts, [0, 1, 2])
