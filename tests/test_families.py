"""Section pages on other families of models: every page goes on, whatever cannot be tested.

The cells are run in this process, without a kernel; nbval does the same with one for SmolLM2.
"""

import json
from pathlib import Path

import jupytext
import matplotlib.pyplot as plt
import numpy as np
import pytest

from raretok.claims.layers.estimate import read as layers_of
from raretok.claims.study import CORRECTED, ESTIMANDS, PAPER, Study
from raretok.ledger.records import finding_of
from raretok.ledger.verdicts import judged
from raretok.measure import find, source
from raretok.measure.parameters import PageParameters
from raretok.text.protocol import PROTOCOLS
from tests.tiny import write_model

ROOT = Path(__file__).parents[1]
BEYOND = ("thresholds", "layers", "domains", "rivals", "groups")
PAGES = (*PAPER, *BEYOND)


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """Documents of words whose letters have a long tail."""
    rng = np.random.default_rng(0)
    letters = np.array([chr(c) for c in range(33, 127)])
    p = 1 / np.arange(1, letters.size + 1)
    rows = []
    for _ in range(40):
        words = ["".join(rng.choice(letters, 5, p=p / p.sum())) for _ in range(120)]
        rows.append({"text": " ".join(words)})
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="module", params=["docs-llama", "gemma3", "neox-parallel", "few neurons"])
def study(request, texts, tmp_path_factory):
    """A model measured on these texts: a shipped one, two more families, and one too small."""
    folder = tmp_path_factory.mktemp("families")
    model = request.param
    if model != "docs-llama":
        family = "llama" if model == "few neurons" else model
        d_mlp = 48 if model == "few neurons" else 640
        model = str(write_model(folder / family, family, d_mlp=d_mlp, n_layers=3))
    given = PageParameters(model=model, corpus=str(texts), n_ctx=32, n_positions=150)
    with pytest.MonkeyPatch.context() as patch:
        for module in (find, source):
            patch.setattr(module, "RUNS", folder / "runs")
        patch.setattr("raretok.ablation.store.RUNS", folder / "runs")
        study = Study(given)
        study.prepare(PAGES)
        yield study


def cells_of(page: str) -> list[str]:
    """The code of a page, without its parameters and without lines for a notebook alone."""
    file = next((ROOT / "notebooks").glob(f"[0-9][0-9]_{page}.py"))
    cells = [c for c in jupytext.read(file).cells if c.cell_type == "code"]
    code = [c.source for c in cells if "parameters" not in c.metadata.get("tags", [])]
    return ["\n".join(x for x in one.splitlines() if not x.startswith("%")) for one in code]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_to_its_end_and_records_every_estimand(study, page, monkeypatch):
    kept: dict = {}

    def glue(name, value, display=True):
        kept[name] = value

    monkeypatch.setattr("myst_nb.glue", glue)
    monkeypatch.setattr(Study, "beside", lambda self: {})
    namespace = study.parameters.model_dump()
    for cell in cells_of(page):
        exec(cell, namespace)
    plt.close("all")
    found = [finding_of(record, page) for record in kept.get("findings", [])]
    keys = {(one.claim, one.estimand, one.reading) for one in found}
    readings = PROTOCOLS if page in PAPER else (CORRECTED,)
    assert keys == {(*key, one) for key in ESTIMANDS.get(page, ()) for one in readings}
    for one, entry in zip(found, judged(found), strict=False):
        assert (one.estimate is None) == bool(one.reason)
        assert entry.verdict != "not testable" or entry.why


def test_a_layer_deeper_than_the_model_is_a_gap_and_the_others_are_there(study):
    found = layers_of(study)
    if study.architecture.n_layers < 4:
        assert found.gaps[-4] == "layer -4 is deeper than the model: it has 3 layers"
    assert len(found.total) == min(4, study.architecture.n_layers)


def test_activations_are_compared_as_they_are_and_those_of_a_gated_model_by_rank(study):
    sample = study.sample("corrected")
    rows = np.arange(100)
    scores = sample.activations(rows)
    if not study.architecture.gated:
        assert (scores == sample.post[rows]).all()
        assert list(sample.matrices) == ["W_in", "W_out"]
        return
    order = np.argsort(sample.post[rows], axis=0, kind="stable")
    assert (np.diff(np.take_along_axis(scores, order, axis=0), axis=0) >= 0).all()
    assert np.abs(scores).max() < 3
    assert [*sample.imbalance][1:3] == ["log kurtosis", "gate rate"]
    assert ((sample.gate_rate >= 0) & (sample.gate_rate <= 1)).all()
    assert list(sample.matrices) == ["W_in", "W_gate", "W_out"]
