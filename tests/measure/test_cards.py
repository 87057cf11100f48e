"""What neurons respond to, against the model's own activations at every token of a text."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from raretok.errors import NotTestableError
from raretok.measure import cards
from raretok.measure.find import Measurements
from raretok.measure.parameters import PageParameters
from raretok.measure.source import STRATIFIED, Source
from raretok.text.rarity import RARE
from tests.tiny import write_model


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def measured(request, tmp_path_factory):
    """The part of a tiny model, its source, and what it was chosen from."""
    folder = tmp_path_factory.mktemp("cards")
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 5)) for _ in range(60)]
    text = folder / "text.txt"
    text.write_text("\n<|endoftext|>\n".join(" ".join(rng.choice(words, 80)) for _ in range(24)))
    model = write_model(folder / "tiny", request.param, d_mlp=200)
    given = PageParameters(model=str(model), corpus=str(text), n_ctx=32, n_positions=120)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("find", "source"):
            patch.setattr(f"raretok.measure.{name}.RUNS", folder / "runs")
        patch.setattr("raretok.ablation.store.RUNS", folder / "runs")
        asked = Measurements(given)
        part, effects = asked.part("cards"), asked.part(f"effects: {STRATIFIED}")
        assert not list((folder / "runs").glob("cards-*"))  # what was kept on the way is gone
    return part, effects, Source(given), AutoModelForCausalLM.from_pretrained(model).eval()


@pytest.fixture(scope="module")
def everywhere(measured):
    """Activations of all neurons by a hook of PyTorch: context, position, neuron."""
    _, _, source, model = measured
    layer = (
        model.transformer.h[-1].mlp if hasattr(model, "transformer") else model.model.layers[-1].mlp
    )
    out = layer.c_proj if hasattr(layer, "c_proj") else layer.down_proj
    seen: list[torch.Tensor] = []
    handle = out.register_forward_pre_hook(lambda module, args: seen.append(args[0][0]))
    contexts = source.contexts
    found = np.full((*contexts.tokens.shape, 200), np.nan)
    with torch.no_grad():
        for i, n in enumerate(contexts.length):
            model(torch.from_numpy(contexts.tokens[i : i + 1, :n]))
            found[i, 1:n] = seen[-1][1:].numpy()
    handle.remove()
    return found


def test_the_head_is_the_top_of_the_layer_and_controls_are_others(measured):
    part, effects, _, _ = measured
    rare = effects.stratum.values == RARE
    mean = effects.weight.values[rare] @ effects.delta_loss.values[rare]
    neurons, matched = part.neuron.values, part.matched.values
    assert neurons[matched < 0].tolist() == np.argsort(-mean)[:2].tolist()
    assert (matched >= 0).sum() == cards.CONTROLS
    assert np.unique(neurons).size == neurons.size
    assert set(matched[2:]) == set(neurons[:2])


@pytest.mark.parametrize(("kind", "sign"), [("top", 1), ("bottom", -1)])
def test_windows_are_around_the_largest_activations_one_a_document(
    measured, everywhere, kind, sign
):
    part, _, source, _ = measured
    rows = [one == kind for one in part.kinds]
    if kind == "bottom" and not source.model.architecture.gated:
        assert not any(rows)
        return
    documents = np.unique(source.contexts.document)
    for card, neuron in enumerate(part.neuron.values):
        peaks = {
            d: np.nanmax(sign * everywhere[source.contexts.document == d, :, neuron])
            for d in documents
        }
        best = sorted(peaks, key=peaks.get, reverse=True)[: sum(rows)]
        assert part.document.values[card, rows].tolist() == best
        found = sign * part.activation.values[card, rows, part.peak]
        np.testing.assert_allclose(found, [peaks[d] for d in best], rtol=2.0**-8)
    assert sum(rows) == cards.KINDS[kind]


def test_every_token_of_every_window_has_the_activation_of_the_model(measured, everywhere):
    part, _, source, _ = measured
    contexts, there = source.contexts, 0
    context, pos, token, value = (part[n].values for n in ("context", "pos", "token", "activation"))
    for card, window, place in np.ndindex(token.shape):
        c, at = context[card, window], pos[card, window] + place - cards.BEFORE
        if not 1 <= at < contexts.length[c]:
            assert (token[card, window, place], value[card, window, place]) == (-1, 0)
            continue
        assert token[card, window, place] == contexts.tokens[c, at]
        own = everywhere[c, at, part.neuron.values[card]]
        assert value[card, window, place] == pytest.approx(own, rel=2.0**-8, abs=1e-6)
        assert str(token[card, window, place]) in part.texts
        there += 1
    assert there > token.size / 3
    assert (token[..., cards.BEFORE] >= 0).all()


def test_random_windows_are_of_different_documents_and_not_the_largest(measured):
    part = measured[0]
    rows = [one == "random" for one in part.kinds]
    assert all(np.unique(some).size == 4 for some in part.document.values[:, rows])
    peaks = part.activation.values[..., part.peak]
    assert peaks[:, rows].mean() < peaks[:, [one == "top" for one in part.kinds]].mean()


def test_squares_are_those_of_all_tokens(measured, everywhere):
    part = measured[0]
    every = everywhere[..., part.neuron.values]
    for side, sign in enumerate((1, -1)):
        own = np.nanmean(np.maximum(sign * every, 0) ** 2, axis=(0, 1))
        np.testing.assert_allclose(part.square.values[side], own, rtol=1e-4, atol=1e-9)


def test_tokens_written_to_are_those_of_the_weights(measured):
    part, _, source, model = measured
    norm = getattr(model, "transformer", model.get_decoder())
    norm = norm.ln_f if hasattr(norm, "ln_f") else norm.norm
    W_out = source.model.W_out.double()[part.neuron.values]
    if hasattr(norm, "bias") and norm.bias is not None:
        W_out = W_out - W_out.mean(dim=1, keepdim=True)
    logits = (W_out * norm.weight.detach().double()) @ model.lm_head.weight.detach().double().T
    logits = (logits - logits.mean(dim=1, keepdim=True)).numpy()  # common to all: changes no loss
    real = logits[:, :257]  # the tokenizer's; the rest is padding
    for card, row in enumerate(real):
        order = np.argsort(-row)
        assert part.type.values[card, 0].tolist() == order[:10].tolist()
        assert part.type.values[card, 1].tolist() == order[::-1][:10].tolist()
        np.testing.assert_allclose(part.logit.values[card, 0], row[order[:10]], rtol=1e-4)


def test_a_layer_without_room_for_controls_has_no_cards(measured, monkeypatch):
    _, effects, source, _ = measured
    monkeypatch.setattr(cards, "PERCENT", 60.0)
    with pytest.raises(NotTestableError, match="too few are left"):
        cards.chosen(effects, source)
