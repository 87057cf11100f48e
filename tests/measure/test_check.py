"""Does a measurement agree with itself measured again, and is what was changed in it named?"""

from dataclasses import replace

import numpy as np
import pytest

from raretok.errors import UserError
from raretok.measure import find
from raretok.measure.check import check, checked
from raretok.measure.find import Measurements
from raretok.measure.parameters import PageParameters
from raretok.measure.record import Folder
from tests.tiny import write_model

PARTS = (
    *("model", "effects: stratified", "interventions", "attention: corrected"),
    *("unembedding", "tokens", "groups", "layer: -2", "cards"),
)
HEADS = ("heads: stratified, mean",)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A tiny model, measured; and where it is kept."""
    folder = tmp_path_factory.mktemp("check")
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 5)) for _ in range(60)]
    text = folder / "text.txt"
    text.write_text("\n\n".join(" ".join(rng.choice(words, 80)) for _ in range(20)))
    model = write_model(folder / "tiny", n_layers=2)
    given = PageParameters(model=str(model), corpus=str(text), n_ctx=32, n_positions=120)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(find, "RUNS", folder / "runs")
        patch.setattr("raretok.measure.source.RUNS", folder / "runs")
        patch.setattr("raretok.ablation.store.RUNS", folder / "runs")
        asked = Measurements(given)
        for name in (*PARTS, *HEADS):
            asked.part(name)
        yield asked


def test_a_measurement_agrees_with_itself(measured):
    found = list(check(measured))
    assert {one.part for one in found} == {*PARTS, *HEADS}
    assert all(one.passed for one in found), [one.line for one in found if not one.passed]
    assert all(one.n for one in found)
    assert all(one.line.startswith("agrees") for one in found)


@pytest.mark.parametrize(
    "changes",
    [
        [
            ("model", "W_in"),
            ("effects: stratified", "delta_loss"),
            ("attention: corrected", "mass"),
            ("heads: stratified, mean", "change"),
            ("layer: -2", "total"),
            ("groups", "joint"),
            ("unembedding", "frequency"),
            ("tokens", "raises"),
            ("cards", "activation"),
        ],
        [
            ("effects: stratified", "post"),
            ("attention: corrected", "gini"),
            ("heads: stratified, mean", "delta_loss"),
        ],
        [("effects: stratified", "loss")],
    ],
)
def test_what_was_changed_by_2_percent_is_named(measured, monkeypatch, changes):
    """Nothing else of its part, and nothing of another part."""
    read = Folder.read

    def changed(self, part):
        data = read(self, part)
        return data.assign({q: 1.02 * data[q] for name, q in changes if name == part})

    monkeypatch.setattr(Folder, "read", changed)
    wrong = [one for one in check(measured) if not one.passed]
    assert {(one.part, one.quantity) for one in wrong} == set(changes)
    assert len(wrong) == len(changes)
    for one in wrong:
        assert one.line.startswith(f"DIFFERS  {one.part}, {one.quantity}: ")


def test_another_text_is_refused(measured, monkeypatch):
    record = Folder.record

    def foreign(self):
        found = record(self)
        for part in found["parts"].values():
            part["made"]["corpus_sha256"] = "another"
        return found

    monkeypatch.setattr(Folder, "record", foreign)
    with pytest.raises(UserError, match="tiny was measured on another text") as caught:
        list(check(measured))
    assert "\n" not in str(caught.value)


def test_differences_are_in_units_of_the_stated_error():
    again = np.zeros(10_000)
    stored = np.random.default_rng(0).normal(size=again.size)
    exact = checked("part", "quantity", stored, again, 1.0)
    assert exact.rms == pytest.approx(1, rel=0.03)
    assert exact.passed
    assert not checked("part", "quantity", 1.3 * stored, again, 1.0).passed
    stored[7] = 9.0  # one number alone
    assert not checked("part", "quantity", stored, again, 1.0).passed
    assert not replace(exact, largest=np.nan).passed


def test_windows_that_are_not_of_the_largest_activations_are_named(measured, monkeypatch):
    """Random windows in their place, and every context of the text read."""
    read = Folder.read

    def changed(self, part):
        data = read(self, part)
        if part == "cards":
            data.attrs["kinds"] = data.attrs["kinds"][::-1]
        return data

    record = Folder.record

    def alone(self):
        found = record(self)
        return found | {"parts": {"cards": found["parts"]["cards"]}}

    monkeypatch.setattr("raretok.measure.check.CONTEXTS", 10_000)
    monkeypatch.setattr(Folder, "record", alone)
    assert all(one.passed for one in check(measured))
    monkeypatch.setattr(Folder, "read", changed)
    assert [one.quantity for one in check(measured) if not one.passed] == ["peak"]
