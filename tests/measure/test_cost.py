"""What a run is said to cost: every part that is missing, near what it then takes; and inspect."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raretok.bench import scale
from raretok.book.inspection import obstacles, report
from raretok.claims.study import NEEDS, Study, parts_of
from raretok.measure import cost, find, source
from raretok.measure.parameters import PageParameters
from raretok.measure.parts import source_of
from tests.tiny import write_model


@pytest.fixture(scope="module")
def parameters(tmp_path_factory) -> PageParameters:
    folder, rng = tmp_path_factory.mktemp("cost"), np.random.default_rng(0)
    letters = np.array([chr(c) for c in range(33, 127)])
    p = 1 / np.arange(1, letters.size + 1)
    words = [
        ["".join(rng.choice(letters, 5, p=p / p.sum())) for _ in range(120)] for _ in range(40)
    ]
    rows = [json.dumps({"text": " ".join(some)}) for some in words]
    (folder / "texts.jsonl").write_text("\n".join(rows))
    model = write_model(folder / "llama", "llama", d_mlp=640, n_layers=3)
    text = str(folder / "texts.jsonl")
    return PageParameters(model=str(model), corpus=text, n_ctx=32, n_positions=250)


@pytest.fixture(scope="module")
def study(parameters, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for module in (find, source):
            patch.setattr(module, "RUNS", runs)
        patch.setattr("raretok.ablation.store.RUNS", runs)
        yield Study(parameters)


def test_every_part_is_foretold_but_those_that_cannot_be_had(study):
    said = cost.cost_of_run(study.measurements, parts_of(NEEDS)).seconds
    every = {name for some in NEEDS.values() for name in some}
    assert said.keys() == {"model", *every, "pages"} - {"domains", "layer: -4"}
    assert all(some > 0 for some in said.values())  # none is not a number


def test_what_is_foretold_is_near_what_it_takes_and_then_costs_nothing(study):
    pages = parts_of(["regimes", "layers", "groups", "ledger"])
    said = cost.cost_of_run(study.measurements, pages)
    study.prepare(pages)
    record = study.measurements.kept.record()["parts"]
    made = {name: one["made"]["seconds"] for name, one in record.items() if "made" in one}
    assert said.seconds.keys() - {"pages"} == made.keys()
    # Other processes may be busy here, and types are checked: the docs have the figures.
    foretold = sum(said.seconds[name] for name in made if name != "model")
    assert 0.2 < foretold / sum(made[name] for name in made if name != "model") < 5
    files = [one for one in study.measurements.kept.path.parent.rglob("*") if one.is_file()]
    assert 0.5 < said.disk / sum(one.stat().st_size for one in files) < 2
    again = cost.cost_of_run(study.measurements, pages)
    assert again.seconds.keys() == {"pages"}


def test_checkpoints_are_foretold_where_some_are_named(parameters, monkeypatch):
    asked = parameters.model_copy(update={"revisions": "step0,step8"})
    monkeypatch.setattr(find.Measurements, "there", lambda self, _: not self.parameters.revision)
    said = cost.cost_of_run(find.Measurements(asked), {"dynamics": ()})
    assert said.seconds["checkpoints"] > 0


def test_the_lines_add_up_and_say_where_they_are_from():
    parts = {"effects: stratified": 186.0, "groups": 12_000.0, "pages": 4.25}
    lines = cost.Cost(parts, 2.1e9, 3e8, 14.0).lines()
    assert [line.split("  ")[-1].strip() for line in lines[:-1]] == [
        "3.1 min",
        "3.3 h",
        "4.2 s",
        "3.4 h",
    ]
    assert lines[-1].startswith("2.1 GB of memory at most, 0.3 GB of disk; estimated from 14 s")
    assert len({len(line) for line in lines[:-1]}) == 1


def test_inspect_says_what_can_be_tested_and_what_it_takes(study):
    lines = list(report(study.parameters))
    said = {line[:2]: line for line in lines if line[:2] in ("R0", "D1", "G5")}
    assert said["R0"].endswith("can be tested")
    assert "no checkpoints" in said["D1"]
    assert "domains" in said["G5"]
    assert "d_mlp          640" in lines
    assert lines[-1].endswith("of measuring here")


@pytest.mark.parametrize(
    ("changed", "claims", "why"),
    [
        ({"d_mlp": 48}, "C1 I1 M1 A3 A4 S1", "neurons is 2, at least 5 is needed"),
        ({"n_layers": 1}, "G3", "the model has one layer"),
        ({"n_layers": 1, "parallel": True}, "A3 A4", "no head of the last two layers reaches"),
    ],
)
def test_what_the_architecture_rules_out(parameters, changed, claims, why, monkeypatch):
    made = source_of(parameters)
    architecture = replace(made.model.architecture, **changed)
    monkeypatch.setattr(made, "model", replace(made.model, architecture=architecture))
    monkeypatch.setattr("raretok.book.inspection.final_head", lambda model: None)
    found = obstacles(made)
    for claim in claims.split():
        assert found[claim].startswith(why)
    assert not found["R0"]


def test_a_text_of_few_documents_rules_out_what_asks_for_more(parameters, tmp_path):
    file = tmp_path / "few.jsonl"
    file.write_text("\n".join(Path(parameters.corpus).read_text().splitlines()[:5]))
    few = parameters.model_copy(update={"corpus": str(file)})
    found = obstacles(source_of(few))
    assert found["R1"] == "documents is 5, at least 8 is needed"
    assert found["R2"] == "R1 must be supported first"


def test_published_models_are_extrapolated_by_the_law_of_the_bench():
    text = scale.published()
    assert text.startswith("Extrapolated: none of these was run")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0][2:] for row in rows[1:]] == list(scale.PUBLISHED)
    assert {row.count("|") for row in rows} == {7}
    assert text == scale.published()
    sizes = {"gpt2": 124, "pythia-12b": 11_846, "Qwen3-0.6B": 596, "gemma-3-1b": 1_000}
    for name, millions in sizes.items():
        assert scale.PUBLISHED[name].parameters == pytest.approx(1e6 * millions, rel=0.01)
    row, (lead, made) = scale.measured(), cost.lead()
    own = scale.MODELS["SmolLM2-135M"].load(lead, row)
    took = {name: seconds for name, seconds in made.items() if name != "model"}  # loaded, not made
    assert {name: own.seconds(name) for name in took} == pytest.approx(took)


def test_parts_of_the_lead_model_follow_from_what_a_token_and_a_position_take():
    """Before each is corrected by what it took; groups and screens are cheaper, or dearer."""
    lead, made = cost.lead()
    for name in ("attention: corrected", "heads: stratified, mean", "effects: whole contexts"):
        assert lead.direct(name) == pytest.approx(made[name], rel=0.6)


def test_the_memory_of_an_ablation_is_that_of_the_measurements():
    assert scale.ABLATION == 1e9 * source.MEMORY
