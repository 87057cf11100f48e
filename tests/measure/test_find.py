"""Where measurements come from: keys that say what was measured, parts that are measured once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from raretok.errors import NotTestableError, UserError
from raretok.measure import find, parts
from raretok.measure.find import DECIDE, Measurements, text_sha256
from raretok.measure.parameters import PageParameters
from raretok.measure.record import RECORD, Folder
from raretok.models import files as model_files
from tests.tiny import write_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> PageParameters:
    folder = tmp_path_factory.mktemp("find")
    text = folder / "text.txt"
    rng = np.random.default_rng(0)
    text.write_text("\n\n".join("".join(rng.choice(list("abcdefgh "), 300)) for _ in range(8)))
    model = write_model(folder / "tiny")
    return PageParameters(model=str(model), corpus=str(text), n_ctx=32, n_positions=50)


def twin_of(parameters: PageParameters) -> Measurements:
    """Those of the untrained network."""
    return Measurements(parameters.model_copy(update={"model": f"{parameters.model}@untrained"}))


@pytest.fixture
def made(monkeypatch, tmp_path) -> list[str]:
    """What is measured, each a tiny part; kept under a folder of the test."""
    seen: list[str] = []

    def measured(asked, name):
        seen.append(name)
        return xr.Dataset({"one": ("x", np.arange(3.0))}), {}

    monkeypatch.setattr(parts, "measured", measured)
    monkeypatch.setattr(find, "RUNS", tmp_path / "runs")
    return seen


def test_the_key_holds_what_decides_and_nothing_of_the_machine(tiny):
    settings = Measurements(tiny).settings
    sources = {"format", "model_sha256", "corpus_sha256", "counts_sha256"}
    assert set(settings) == {*sources, *DECIDE}
    for free in ({"device": "cuda"}, {"group_percent": 2.0}, {"protocol": "code"}):
        assert Measurements(tiny.model_copy(update=free)).key == Measurements(tiny).key
    assert Measurements(tiny).name == f"tiny/{Measurements(tiny).key}"


def test_the_key_does_not_depend_on_where_files_lie(tiny, tmp_path):
    model = write_model(tmp_path / "elsewhere")
    text = tmp_path / "other.txt"
    text.write_bytes(Path(tiny.corpus).read_bytes())
    moved = tiny.model_copy(update={"model": str(model), "corpus": str(text)})
    assert Measurements(moved).key == Measurements(tiny).key


def changes(tiny, tmp_path) -> dict[str, dict]:
    text, counts = tmp_path / "text.txt", tmp_path / "counts.npy"
    text.write_text("another text\n\nof two documents")
    np.save(counts, np.arange(257))
    return {
        "rare_percentile": {"rare_percentile": 10.0},
        "n_ctx": {"n_ctx": 33},
        "n_positions": {"n_positions": 51},
        "seed": {"seed": 1},
        "corpus_sha256": {"corpus": str(text)},
        "counts_sha256": {"unigram": str(counts)},
        "model_sha256": {"model": str(write_model(tmp_path / "tiny", seed=1))},
    }


def test_the_key_changes_with_each_setting_that_decides(tiny, tmp_path):
    ours, keys = Measurements(tiny).settings, {Measurements(tiny).key}
    for name, change in changes(tiny, tmp_path).items():
        other = Measurements(tiny.model_copy(update=change))
        assert {n for n in ours if ours[n] != other.settings[n]} == {name}
        keys.add(other.key)
    keys.add(twin_of(tiny).key)
    assert len(keys) == 9


def test_counts_may_be_those_of_a_text(tiny):
    counted = [tiny.model_copy(update={"unigram": text}) for text in ("docs", tiny.corpus)]
    found = [Measurements(one).settings["counts_sha256"] for one in counted]
    assert found == [text_sha256(text, 500) for text in ("docs", tiny.corpus)]


def test_a_part_is_measured_once_and_then_read(tiny, made):
    first = Measurements(tiny).part("model")
    again = Measurements(tiny).part("model")
    assert made == ["model"]
    assert again.identical(first)
    assert first.attrs["measurement"] == Measurements(tiny).name
    Measurements(tiny).part("effects: stratified")
    twin_of(tiny).part("model")
    assert made == ["model", "effects: stratified", "model"]


def test_nothing_is_measured_in_place_of_a_damaged_part(tiny, made):
    asked = Measurements(tiny)
    asked.part("model")
    file = asked.kept.path / "model.zip"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"is damaged: model\.zip has") as caught:
        Measurements(tiny).part("model")
    assert "\n" not in str(caught.value)
    (asked.kept.path / RECORD).write_text("{}")
    with pytest.raises(UserError, match=f"is damaged: {RECORD} cannot be read"):
        Measurements(tiny).part("model")
    assert made == ["model"]


@pytest.fixture
def shipping(tiny, made, monkeypatch, tmp_path) -> Measurements:
    """As if the tiny model shipped, with a measurement of one part."""
    shipped = tmp_path / "shipped"
    book = PageParameters(model="tiny")
    monkeypatch.setattr(model_files, "SHIPPED", tmp_path / "models")
    monkeypatch.setattr(find, "WHOLE", ("tiny",))
    write_model(tmp_path / "models" / "tiny")
    asked = Measurements(book, shipped=shipped)
    ship(asked, shipped / "tiny")
    return asked


def ship(asked: Measurements, path) -> None:
    folder = Folder(path)
    folder.begin(asked.label, asked.settings)
    folder.keep("model", xr.Dataset({"one": ("x", np.arange(3.0))}), {})


def test_a_shipped_measurement_is_read_and_nothing_is_measured(shipping, made):
    assert shipping.should_ship
    assert shipping.part("model").one.values.tolist() == [0, 1, 2]
    assert made == []


def test_other_parameters_are_measured_beside_what_ships(shipping, made):
    other = replace(shipping, parameters=shipping.parameters.model_copy(update={"seed": 1}))
    assert not other.should_ship
    other.part("model")
    assert made == ["model"]


@pytest.mark.parametrize("setting", ["model_sha256", "seed", "corpus_sha256"])
def test_a_foreign_shipped_measurement_is_named(shipping, made, setting):
    foreign = replace(shipping)
    foreign.__dict__["settings"] = shipping.settings | {setting: 7}
    (shipping.shipped / "tiny" / RECORD).unlink()
    ship(foreign, shipping.shipped / "tiny")
    with pytest.raises(UserError, match=f"tiny is damaged: it is of another {setting};") as caught:
        replace(shipping).part("model")
    assert "\n" not in str(caught.value)
    assert made == []


def test_a_shipped_measurement_that_lacks_a_part_or_is_gone_is_refused(shipping, made):
    with pytest.raises(UserError, match="tiny is damaged: it has no part 'effects: stratified'"):
        shipping.part("effects: stratified")
    (shipping.shipped / "tiny" / RECORD).unlink()
    with pytest.raises(UserError, match=f"the measurement tiny is damaged: {RECORD} is missing"):
        replace(shipping).part("model")
    assert made == []


def test_an_unknown_part_is_refused(tiny):
    with pytest.raises(UserError, match="no part 'heds: stratified' of a measurement: there are"):
        parts.measured(Measurements(tiny), "heds: stratified")


def test_what_a_model_and_text_cannot_have_is_kept_as_a_reason(tiny, made, monkeypatch):
    def untestable(asked, name):
        made.append(name)
        raise NotTestableError("no rare token type is left")

    monkeypatch.setattr(parts, "measured", untestable)
    for _ in range(2):
        with pytest.raises(NotTestableError, match="no rare token type is left"):
            Measurements(tiny).part("effects: whole contexts")
    assert made == ["effects: whole contexts"]


def test_what_does_not_ship_is_a_gap_where_nothing_may_be_measured(tiny, made):
    with pytest.raises(NotTestableError, match="model of tiny was not measured"):
        Measurements(tiny, only_shipped=True).part("model")
    assert made == []


def test_steps_are_in_order_and_named_right():
    assert find.step_of("step1000") == 1000
    with pytest.raises(UserError, match="'main' is no checkpoint: write them as step0,step1000"):
        find.step_of("main")
