"""A run: the right positions, the right mean, labels, an audit that bites."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from raretok.ablation import batches, gather, plan
from raretok.ablation.closed_form import delta_loss
from raretok.ablation.head import clean_loss, final_head
from raretok.ablation.method import apply_method
from raretok.errors import UserError
from raretok.models.rerun import capture
from raretok.text.corpus import Contexts
from raretok.text.rarity import Positions
from tests.ablation import reference
from tests.ablation.reference import ablate
from tests.tiny import positions_at


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    """Five contexts of unequal length: token 0, random bytes, padding."""
    length = np.array([12, 32, 7, 20, 9])
    tokens = np.random.default_rng(0).integers(1, 257, size=(5, 32))
    tokens[:, 0] = 0
    tokens[np.arange(32) >= length[:, None]] = 0
    return Contexts(tokens, length, document=np.array([0, 0, 1, 2, 3]))


@pytest.fixture(scope="module")
def positions(contexts) -> Positions:
    """Some positions of three of the contexts; contexts 0 and 4 hold none."""
    context = np.array([1, 1, 1, 2, 3, 3])
    pos = np.array([3, 17, 30, 4, 3, 18])
    return positions_at(contexts, context, pos, np.array([0, 1, 2, 1, 2, 0]))


@pytest.fixture(scope="module")
def found(model, contexts, positions) -> xr.Dataset:
    """A run with nothing but defaults."""
    return ablate(model, contexts, positions)


def alone(model, contexts, context):
    """Activations of one context run by itself, without padding."""
    tokens = torch.from_numpy(contexts.tokens[context, : contexts.length[context]])
    captured = capture(model, tokens[None])
    return captured.resid[0], captured.post[0]


def test_the_mean_runs_over_real_tokens_of_the_contexts_run(model, contexts, found):
    posts = [alone(model, contexts, c)[1][1:] for c in (1, 2, 3)]
    np.testing.assert_allclose(found.mean_post, torch.cat(posts).mean(dim=0), atol=1e-6)


def test_the_mean_takes_in_first_tokens_where_asked_for(gpt2, contexts, positions):
    found = ablate(gpt2, contexts, positions, include_first=True)
    posts = [alone(gpt2, contexts, c)[1] for c in (1, 2, 3)]
    np.testing.assert_allclose(found.mean_post, torch.cat(posts).mean(dim=0), atol=1e-6)


def test_each_position_is_scored_as_if_alone(model, contexts, positions, found):
    head, mean = final_head(model), torch.from_numpy(found.mean_post.values)
    for row, (context, pos) in enumerate(zip(positions.context, positions.pos, strict=True)):
        resid, post = alone(model, contexts, context)
        one = (resid[pos][None], post[pos][None])
        target = torch.tensor([contexts.tokens[context, pos + 1]])
        np.testing.assert_allclose(found.post[row], post[pos], atol=2e-5)
        np.testing.assert_allclose(found.loss[row], clean_loss(head, one[0], target)[0], atol=2e-5)
        np.testing.assert_allclose(
            found.delta_loss[row], delta_loss(head, *one, target, mean)[0], atol=2e-5
        )
    assert float(abs(found.delta_loss).max()) > 0.1


def test_the_result_is_labelled(model, positions, found):
    assert found.delta_loss.dims == ("position", "neuron")
    assert found.delta_loss.dtype == found.post.dtype == np.float32
    assert dict(found.sizes) == {"position": 6, "neuron": 48}
    for name, values in vars(positions).items():
        np.testing.assert_array_equal(found[name], values)
    assert found.attrs["model"] == model.name
    assert found.attrs["files_sha256"] == model.files_sha256
    assert found.attrs["layer"] == 1
    assert found.attrs["basis"] == "raw"


def test_a_run_repeats_to_the_bit(model, contexts, positions, found, capsys):
    assert ablate(model, contexts, positions).identical(found)
    assert capsys.readouterr() == ("", "")  # no terminal, no progress bar


def test_only_contexts_with_scored_positions_run(gpt2, contexts, positions, monkeypatch):
    seen = []

    def counting(model, tokens):
        seen.append(tuple(tokens.shape))
        return capture(model, tokens)

    monkeypatch.setattr(gather, "capture", counting)
    monkeypatch.setattr(batches, "BATCH", 2)
    ablate(gpt2, contexts, positions)
    assert seen == [(2, 20), (1, 32)]  # the shorter two together


def test_batches_and_blocks_do_not_change_the_numbers(
    model, contexts, positions, found, monkeypatch
):
    monkeypatch.setattr(batches, "BATCH", 1)
    monkeypatch.setattr(plan, "BLOCK", 4)
    pieces = ablate(model, contexts, positions)
    np.testing.assert_allclose(pieces.delta_loss, found.delta_loss, atol=2e-5)


def test_the_audit_finds_rounding_only(positions, found):
    assert found.attrs["audit_pairs"] == len(positions)
    assert 0 < found.attrs["audit_max_error"] < 2e-6


@pytest.mark.parametrize("mode", ["zero", "resample"])
def test_the_mode_decides_what_is_put_in_place(model, contexts, positions, found, mode):
    rng = np.random.default_rng(5)
    mean, found = found, ablate(model, contexts, positions, mode=mode, rng=rng)
    post = torch.from_numpy(found.post.values)
    # The only other position of each stratum, under `resample`.
    new = post[[5, 3, 4, 1, 2, 0]] if mode == "resample" else torch.zeros_like(post)
    resid = torch.stack(
        [
            alone(model, contexts, c)[0][p]
            for c, p in zip(positions.context, positions.pos, strict=True)
        ]
    )
    target = torch.from_numpy(positions.target)
    expected = delta_loss(final_head(model), resid, post, target, new)
    np.testing.assert_allclose(found.delta_loss, expected, atol=2e-5)
    assert float(abs(found.delta_loss - mean.delta_loss).max()) > 0.1
    assert found.attrs["mode"] == mode
    assert 0 < found.attrs["audit_max_error"] < 4e-6


def test_the_direct_effect_is_audited_as_such(model, contexts, positions, found):
    total, direct = found, ablate(model, contexts, positions, effect="direct")
    assert (total.attrs["effect"], direct.attrs["effect"]) == ("total", "direct")
    assert float(abs(direct.delta_loss - total.delta_loss).max()) > 1e-2
    assert 0 < direct.attrs["audit_max_error"] < 2e-6
    with pytest.raises(UserError, match="unknown effect 'both'"):
        ablate(model, contexts, positions, effect="both")


def test_a_mode_that_cannot_be_served_is_refused_before_the_model_runs(
    gpt2, contexts, positions, monkeypatch
):
    monkeypatch.setattr(gather, "capture", None)
    with pytest.raises(UserError, match="unknown ablation mode 'median'"):
        ablate(gpt2, contexts, positions, mode="median")
    with pytest.raises(UserError, match="has 1 position: score more positions"):
        ablate(gpt2, contexts, positions[:1], mode="resample")


def test_the_audit_speaks_up_for_a_wrong_closed_form(gpt2, contexts, positions, monkeypatch):
    def wrong(*args):
        found = apply_method(*args)
        return replace(found, delta_loss=1.05 * found.delta_loss)

    monkeypatch.setattr(reference, "apply_method", wrong)
    with pytest.warns(UserWarning, match=r"THE AUDIT FAILED: .* up to 0\.\d+ nats off"):
        found = ablate(gpt2, contexts, positions)
    assert found.attrs["audit_passed"] == 0


def test_contexts_longer_than_the_model_reads_are_refused(gpt2, contexts, positions):
    wide = Contexts(np.pad(contexts.tokens, ((0, 0), (0, 1))), contexts.length, contexts.document)
    with pytest.raises(UserError, match=r"contexts of 33 tokens do not fit .* reads 32"):
        ablate(gpt2, wide, positions)
