"""The shipped model: trained as recorded, on the pinned corpus, and ablated exactly."""

import json

import numpy as np
import pytest
import torch

from raretok.ablation.closed_form import delta_loss
from raretok.ablation.head import final_head
from raretok.book.renewal import parts_to_ship, shipped
from raretok.claims.study import Study
from raretok.measure.find import LEAD, TRAINED, UNTRAINED, WITHOUT, Measurements
from raretok.measure.find import SHIPPED as MEASUREMENTS
from raretok.measure.parameters import PageParameters
from raretok.measure.source import Source
from raretok.models.files import COUNTS_FILE, SHIPPED
from raretok.models.rerun import capture
from raretok.text import docstrings
from tests.ablation.modules import delta_loss_modules, real_modules

MODEL = SHIPPED / "docs-gpt2"
RECENT = {"family": "gpt2", "checkpoints": []}  # settings younger than its record


@pytest.fixture(scope="module")
def source() -> Source:
    return Source(PageParameters(model="docs-gpt2"))


def test_it_was_trained_on_the_train_part_and_predicts_the_rest():
    record = json.loads((MODEL / "training.json").read_text())
    manifest = json.loads(docstrings.MANIFEST.read_text())
    assert record["corpus_sha256"] == manifest["parts"]["train"]["sha256"]
    assert record["held_out_loss"] <= 3.2
    losses = [loss for _, loss in record["loss_curve"]]
    assert losses[0] > 6 > 3.5 > losses[-1]


def test_its_weights_are_16_bit_safetensors_and_data_stays_small():
    assert not [file for file in MODEL.iterdir() if file.suffix in (".bin", ".pt", ".pkl")]
    assert (MODEL / "model.safetensors").stat().st_size < 15e6
    data = MODEL.parents[1]
    assert sum(file.stat().st_size for file in data.rglob("*") if file.is_file()) < 150e6


def test_the_measurements_are_of_these_models_small_and_audited():
    limits = {LEAD: 40e6, "docs-gpt2": 16e6, UNTRAINED: 10e6}
    for parameters in shipped():
        one = Measurements(parameters, only_shipped=True)
        assert one.ready.record()["key"] == one.key
        sizes = [file.stat().st_size for file in (MEASUREMENTS / one.label).iterdir()]
        assert sum(sizes) <= limits.get(parameters.model, 9e6)
        there = one.ready.record()["parts"]
        assert set(parts_to_ship(parameters)) <= there.keys()
        parts = [name for name in there if name.startswith("effects")]
        for name in parts:
            effects = one.part(name)
            assert effects.audit_passed == 1
            assert effects.audit_max_error < 1e-4


def test_every_run_was_trained_on_the_same_tokens_and_ends_near_the_first():
    records = {name: json.loads((SHIPPED / name / "training.json").read_text()) for name in TRAINED}
    first = records["docs-gpt2"]
    for record in records.values():
        assert record["corpus_sha256"] == first["corpus_sha256"]
        assert record["tokens_seen"] == first["tokens_seen"]
        assert abs(record["held_out_loss"] - first["held_out_loss"]) <= 0.3


def test_one_run_never_saw_one_domain_and_its_counts_say_so():
    without = json.loads((SHIPPED / WITHOUT / "training.json").read_text())
    first = json.loads((MODEL / "training.json").read_text())
    assert without["config"] == {**first["config"], **RECENT, "without": "mathematics"}
    assert without["tokens_seen"] == first["tokens_seen"]
    counts = [np.load(SHIPPED / name / COUNTS_FILE) for name in (WITHOUT, "docs-gpt2")]
    assert (counts[0] <= counts[1]).all()
    assert counts[0].sum() < counts[1].sum()


def test_the_real_model_has_enough_targets_and_counts_of_the_train_part():
    study = Study(PageParameters(model=LEAD))
    stratum = study.effects("corrected").stratum.values
    assert (np.bincount(stratum)[1:] >= 1_600).all()
    counts, counted = study.part("model").counts.values, study.part("model").counted.values
    assert counts.size == counted.size == 49_152
    assert 10_000 < counted.sum() < 20_000  # the types that the scored text has
    rare, common = (getattr(study.classes("corrected"), name) for name in ("rare", "common"))
    assert counts[rare].max() < counts[common].min()
    assert 0.14 < rare.sum() / counted.sum() < 0.16


def test_its_recorded_loss_is_the_one_it_has(source):
    """On a sample of contexts, within the noise of the sample."""
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(source.contexts), 12, replace=False)
    losses = []
    for context in chosen:
        ids = torch.from_numpy(source.contexts.tokens[context, : source.contexts.length[context]])
        loss = source.model.bridge(ids[None], return_type="loss", loss_per_token=True)
        losses.append(loss[0].detach())
    per_context = np.array([float(loss.mean()) for loss in losses])
    record = json.loads((MODEL / "training.json").read_text())
    spread = per_context.std() / np.sqrt(chosen.size)
    assert abs(float(torch.cat(losses).mean()) - record["held_out_loss"]) < 4 * spread


def test_there_are_enough_rare_and_common_positions(source):
    positions = source.positions("stratified")
    assert (np.bincount(positions.stratum)[1:] >= 1_500).all()
    assert np.unique(positions.document).size > 100


def test_every_neuron_at_some_positions_equals_brute_force(source):
    positions = source.positions("stratified")[::800]
    tokens = torch.from_numpy(source.contexts.tokens[positions.context])
    captured = capture(source.model, tokens)
    rows = torch.arange(len(positions))
    pos, target = torch.from_numpy(positions.pos), torch.from_numpy(positions.target)
    resid, post = captured.resid[rows, pos], captured.post[rows, pos]
    mean = captured.post.mean(dim=(0, 1))
    found = delta_loss(final_head(source.model), resid, post, target, mean)
    row = rows.repeat_interleave(post.shape[1])
    neuron = torch.arange(post.shape[1]).repeat(len(rows))
    exact = torch.cat(
        [
            delta_loss_modules(modules, resid[r], post[r], target[r], n, mean[n])
            for modules in [real_modules(source.model)]
            for r, n in zip(row.split(1024), neuron.split(1024), strict=True)
        ]
    ).view_as(found)
    assert float((found - exact).abs().max()) < 2e-6
    assert float(exact.abs().max()) > 1e-3


def test_one_neuron_equals_a_hook_of_transformer_lens(source):
    positions = source.positions("stratified")[:1]
    context, pos = int(positions.context[0]), int(positions.pos[0])
    tokens = torch.from_numpy(source.contexts.tokens[context : context + 1])
    captured = capture(source.model, tokens)
    mean = captured.post.mean(dim=(0, 1))
    found = delta_loss(
        final_head(source.model),
        captured.resid[0, pos : pos + 1],
        captured.post[0, pos : pos + 1],
        torch.from_numpy(positions.target),
        mean,
    )[0]
    neuron = int(found.abs().argmax())

    def ablated(post, hook):
        post = post.clone()
        post[..., neuron] = mean[neuron]
        return post

    layer = source.model.architecture.n_layers - 1
    hooks = [(f"blocks.{layer}.mlp.hook_post", ablated)]
    options = {"return_type": "loss", "loss_per_token": True}
    with torch.no_grad():
        clean = source.model.bridge(tokens, **options)[0, pos]
        changed = source.model.bridge.run_with_hooks(tokens, fwd_hooks=hooks, **options)[0, pos]
    assert float(changed - clean) == pytest.approx(float(found[neuron]), abs=5e-6)
