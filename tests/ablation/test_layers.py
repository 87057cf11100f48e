"""Neurons of any layer: exact effects and screen against hooks on the whole model."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from raretok.ablation import batches, layers, stacked
from raretok.ablation.batches import scored_batches
from raretok.ablation.checkpoints import Checkpoints
from raretok.ablation.layers import LayerOptions, ablate_layer, summary
from raretok.errors import UserError
from raretok.models.loading import load_model
from raretok.models.rerun import capture, run_from, run_from_at
from raretok.text.corpus import Contexts
from raretok.text.rarity import Positions
from tests.ablation.reference import ablate, layer_alone
from tests.tiny import FAMILIES, positions_at, write_model

N_LAYERS = 3


@pytest.fixture(autouse=True)
def short_audit(monkeypatch):
    """Its whole runs would be most of the time of these tests."""
    monkeypatch.setattr(stacked, "AUDIT_PAIRS", 2)
    monkeypatch.setattr(layers, "RESAMPLES", 50)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    family = request.param
    return write_model(tmp_path_factory.mktemp(family) / family, family, n_layers=N_LAYERS)


@pytest.fixture(scope="module")
def deep(folder):
    return load_model(str(folder))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return load_model(str(write_model(tmp_path_factory.mktemp("gpt2") / "gpt2", n_layers=N_LAYERS)))


@pytest.fixture
def contexts() -> Contexts:
    """Six contexts of unequal length in five documents: token 0, random bytes, padding."""
    length = np.array([12, 32, 7, 20, 9, 15])
    tokens = np.random.default_rng(0).integers(1, 257, size=(6, 32))
    tokens[:, 0] = 0
    tokens[np.arange(32) >= length[:, None]] = 0
    return Contexts(tokens, length, document=np.array([0, 0, 1, 2, 3, 4]))


@pytest.fixture
def positions(contexts) -> Positions:
    """Positions of five contexts, none of them the last of its context; context 4 has none."""
    context = np.array([0, 0, 1, 1, 1, 2, 3, 3, 3, 5])
    pos = np.array([4, 8, 3, 17, 29, 4, 3, 11, 17, 10])
    return positions_at(contexts, context, pos, np.array([1, 2, 0, 1, 2, 1, 2, 1, 0, 2]))


def run_layer(model, contexts, positions, layer=-2, **options):
    given = {"n_top": 4, "n_random": 4, "tolerance": 0.0} | options
    return layer_alone(model, contexts, positions, LayerOptions(layer, **given))


def hooked(model, contexts, positions, layer, neuron, change):
    """Loss at each scored position, each context whole and alone, `change(post)` for its text."""
    losses = np.empty(len(positions))

    def ablated(post, hook):
        new = post.clone()
        new[:, 1:, neuron] = change(post[:, 1:, neuron])
        return new

    for context in np.unique(positions.context):
        mine = np.flatnonzero(positions.context == context)
        tokens = torch.from_numpy(contexts.tokens[context, : contexts.length[context]])[None]
        hooks = [(f"blocks.{layer}.mlp.hook_post", ablated)]
        logits = model.bridge.run_with_hooks(tokens, return_type="logits", fwd_hooks=hooks)
        log_p = logits[0, positions.pos[mine]].double().log_softmax(dim=-1)
        losses[mine] = -log_p[torch.arange(len(mine)), positions.target[mine]]
    return losses


@pytest.mark.parametrize(("layer", "mode"), [(-3, "mean"), (-2, "zero")])
def test_exact_effects_equal_hooks_on_the_whole_model(deep, contexts, positions, layer, mode):
    found = run_layer(deep, contexts, positions, layer, mode=mode)
    index = N_LAYERS + layer
    assert found.attrs["layer"] == index
    clean = hooked(deep, contexts, positions, index, 0, lambda post: post)
    np.testing.assert_allclose(found.loss, clean, atol=1e-5)
    value = found.mean_post.values if mode == "mean" else np.zeros(48)
    for neuron in found.neuron.values[:3]:
        new = float(value[neuron])
        expected = hooked(
            deep, contexts, positions, index, neuron, lambda post, new=new: post * 0 + new
        )
        np.testing.assert_allclose(found.delta_loss.sel(neuron=neuron), expected - clean, atol=2e-5)
    assert float(abs(found.delta_loss).max()) > 0.01
    assert found.attrs["audit_max_error"] < 2e-5


def test_the_mean_runs_over_the_text_of_the_contexts_run(gpt2, contexts, positions):
    found = run_layer(gpt2, contexts, positions, 0)
    posts = [
        capture(gpt2, torch.from_numpy(contexts.tokens[c, : contexts.length[c]])[None], 0).post[
            0, 1:
        ]
        for c in (0, 1, 2, 3, 5)
    ]
    np.testing.assert_allclose(found.mean_post, torch.cat(posts).mean(dim=0), atol=1e-6)


def test_the_last_layer_is_the_ablation_of_one_position_at_a_time(deep, contexts, positions):
    found = run_layer(deep, contexts, positions, -1)
    alone = ablate(deep, contexts, positions)
    np.testing.assert_allclose(found.mean_post, alone.mean_post, atol=1e-6)
    np.testing.assert_allclose(found.loss, alone.loss, atol=1e-5)
    np.testing.assert_allclose(found.delta_loss, alone.delta_loss[:, found.neuron], atol=2e-5)


@pytest.mark.parametrize("layer", [-3, -1])
def test_the_screen_is_the_effect_of_a_tiny_step(folder, contexts, positions, layer):
    model = load_model(str(folder), dtype=torch.float64)
    # Transformers rounds to float32 inside RMSNorm, which a tinier step would show.
    eps, atol = (1e-4, 1e-6) if model.architecture.norm == "LayerNorm" else (3e-3, 5e-4)
    found = run_layer(model, contexts, positions, layer)
    for neuron in (0, 40):
        value = float(found.mean_post[neuron])
        up, down = (
            hooked(
                model,
                contexts,
                positions,
                N_LAYERS + layer,
                neuron,
                lambda post, step=step, value=value: post + step * (value - post),
            )
            for step in (eps, -eps)
        )
        slope = (up - down) / (2 * eps)
        for name, stratum in (("rare", 1), ("common", 2)):
            weight = positions.weight * (positions.stratum == stratum)
            expected = weight @ slope / weight.sum()
            np.testing.assert_allclose(
                found.screen.sel(token_class=name)[neuron], expected, rtol=0, atol=atol
            )


def test_only_later_blocks_run_and_all_run_again_afterwards(deep):
    tokens = torch.randint(1, 257, (2, 12), generator=torch.Generator().manual_seed(0))
    captured = capture(deep, tokens, 1)
    ran = []
    handles = [
        deep.bridge.blocks[index].mlp.register_forward_pre_hook(lambda *_, i=index: ran.append(i))
        for index in range(N_LAYERS)
    ]
    final = run_from(deep, captured.resid, 1)
    assert ran == [2]
    capture(deep, tokens, 1)
    assert ran == [2, 0, 1, 2]
    for handle in handles:
        handle.remove()
    assert torch.equal(final, captured.final)


def test_the_last_mlp_may_run_at_some_positions_alone(deep):
    tokens = torch.randint(1, 257, (2, 12), generator=torch.Generator().manual_seed(0))
    captured = capture(deep, tokens, 0)
    place, pos = torch.tensor([1, 0, 1]), torch.tensor([3, 11, 10])
    seen = []
    handle = deep.last_block.mlp.original_component.register_forward_hook(
        lambda module, args, out: seen.append(out)
    )
    found = run_from_at(deep, captured.resid, 0, place, pos)
    handle.remove()
    assert int((seen[0] != 0).any(dim=-1).sum()) == 3
    torch.testing.assert_close(found, captured.final[place, pos], rtol=1e-5, atol=1e-5)
    assert torch.equal(capture(deep, tokens, 0).final, captured.final)


def test_batches_and_stacks_do_not_change_the_numbers(gpt2, contexts, positions, monkeypatch):
    options = LayerOptions(-2, n_top=4, n_random=4, tolerance=1e-5)
    at_once = layer_alone(gpt2, contexts, positions, options)
    assert at_once.identical(layer_alone(gpt2, contexts, positions, options))
    monkeypatch.setattr(batches, "BATCH", 2)
    monkeypatch.setattr(batches, "SCORED", 4)
    pieces = layer_alone(gpt2, contexts, positions, options, stack=1)
    np.testing.assert_array_equal(pieces.neuron, at_once.neuron)
    np.testing.assert_allclose(pieces.delta_loss, at_once.delta_loss, atol=2e-5)
    np.testing.assert_allclose(pieces.screen, at_once.screen, atol=1e-5)


def test_top_and_random_neurons_are_labelled(gpt2, contexts, positions):
    found = run_layer(gpt2, contexts, positions, n_top=5, n_random=7)
    size = abs(found.screen.sel(token_class="rare")).values
    top = found.neuron[found.top].values
    assert set(top) == set(np.argsort(-size)[:5])
    assert int(found.random.sum()) == 7
    assert (found.top | found.random).all()
    assert found.screen.shape == (2, 48)
    for name, values in vars(positions).items():
        np.testing.assert_array_equal(found[name], values)
    assert "Spearman" in summary(found)
    assert len(summary(found).splitlines()) == 6


def test_agreement_is_that_of_the_weighted_means(gpt2, contexts, positions):
    found = run_layer(gpt2, contexts, positions, n_top=48, n_random=48)
    weight = positions.weight * (positions.stratum == 1)
    exact = weight @ found.delta_loss.values / weight.sum()
    ranks = (np.argsort(np.argsort(part)) for part in (exact, found.screen[0].values))
    expected = np.corrcoef(*ranks)[0, 1]
    for subset in ("top", "random"):
        value, low, high = found.agreement.sel(
            token_class="rare", subset=subset, measure="spearman"
        ).values
        assert value == pytest.approx(expected, abs=1e-4)
        assert low < high


def test_a_wrong_effect_fails_the_audit(gpt2, contexts, positions, monkeypatch):
    def doubled(*args):
        return 2 * pushes(*args)

    pushes = stacked.pushes
    monkeypatch.setattr(stacked, "pushes", doubled)
    with pytest.warns(
        UserWarning, match=r"THE AUDIT FAILED: .* up to .* nats off the own forward pass of gpt2"
    ):
        found = run_layer(gpt2, contexts, positions)
    assert found.attrs["audit_passed"] == 0
    assert "THE AUDIT FAILED" in summary(found)


def test_effects_that_are_no_numbers_fail_the_audit(gpt2, contexts, positions, monkeypatch):
    def holed(*args, **options):
        delta, loss = exact(*args, **options)
        delta[-1, -1] = np.nan
        return delta, loss

    exact = layers.exact
    monkeypatch.setattr(layers, "exact", holed)
    monkeypatch.setattr(layers, "agreements", lambda *args: np.zeros((2, 2, 3, 3)))
    with pytest.warns(UserWarning, match="THE AUDIT FAILED"):
        assert run_layer(gpt2, contexts, positions).attrs["audit_passed"] == 0


def test_weights_that_are_no_numbers_are_named(tmp_path, contexts, positions):
    broken = load_model(str(write_model(tmp_path / "gpt2", n_layers=N_LAYERS)))
    broken.bridge.blocks[1].mlp.W_out[0, 0] = torch.nan
    for work in (run_layer, ablate):
        with pytest.raises(UserError, match="overflow or are no numbers: its weights are damaged"):
            work(broken, contexts, positions)


def test_the_interval_of_the_top_resamples_documents_alone(
    gpt2, contexts, positions, monkeypatch, tmp_path
):
    """By hand: weighted means over resampled documents, their ranks, the spread of these."""
    monkeypatch.setattr(layers, "RESAMPLES", 4000)
    found = run_layer(gpt2, contexts, positions, n_top=48, n_random=48)
    weight = positions.weight * (positions.stratum == 2)
    documents = np.unique(positions.document)
    kept = Checkpoints(tmp_path)
    options = LayerOptions(-2, n_top=48, n_random=48, tolerance=0.0)
    ablate_layer(gpt2, contexts, positions, options, kept=kept)
    batch = scored_batches(gpt2, contexts, positions)
    screens = np.zeros((documents.size, 48))
    for k, part in enumerate(batch):
        of_context = kept.read(f"screen-{k}")["total"][1]
        for place, context in enumerate(part.contexts):
            document = positions.document[positions.context == context][0]
            screens[np.searchsorted(documents, document)] += of_context[place]
    exact = np.stack(
        [weight[m] @ found.delta_loss.values[m] for m in positions.document == documents[:, None]]
    )
    rng, draws = np.random.default_rng(5), []
    for _ in range(1000):
        drawn = rng.integers(documents.size, size=documents.size)
        a, b = screens[drawn].sum(axis=0), exact[drawn].sum(axis=0)
        if a.any() and b.any():
            draws.append(spearmanr(a, b).statistic)
    value, low, _ = found.agreement.sel(token_class="common", subset="top", measure="spearman")
    assert float(value) == pytest.approx(
        spearmanr(screens.sum(axis=0), exact.sum(axis=0)).statistic, abs=1e-3
    )
    assert float(value - low) == pytest.approx(1.96 * np.std(draws), rel=0.15)
    of_random = found.agreement.sel(token_class="common", subset="random", measure="spearman")
    assert float(of_random[0] - of_random[1]) > 1.1 * float(value - low)  # neurons resampled too


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 3}, "has no layer 3: it has 0 to 2, or -3 to -1 counted from the last"),
        ({"layer": -4}, "has no layer -4"),
        ({"mode": "resample"}, "mode 'resample' does not serve .*: choose one of mean, zero"),
        ({"tolerance": 1e-12}, "a tolerance of 1e-12 nats cannot be kept"),
        ({"n_top": 49}, "n_top must lie between 3 and the 48 neurons of the layer, got 49"),
        ({"n_random": 2}, "n_random must lie between 3 and the 48 neurons of the layer, got 2"),
    ],
)
def test_bad_input_is_refused(gpt2, contexts, positions, options, message):
    with pytest.raises(UserError, match=message):
        run_layer(gpt2, contexts, positions, **options)


def test_positions_that_give_no_interval_are_refused(gpt2, contexts, positions):
    with pytest.raises(UserError, match="needs 3 with rare positions, got 0"):
        run_layer(gpt2, contexts, positions[positions.stratum != 1])
    few = positions[(positions.stratum != 1) | (positions.document < 2)]
    with pytest.raises(UserError, match="needs 3 with rare positions, got 2: score more"):
        run_layer(gpt2, contexts, few)
