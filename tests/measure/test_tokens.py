"""The tokens that neurons write to, against the model's own weights; and the check of them."""

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from raretok.measure.check import check
from raretok.measure.find import Measurements
from raretok.measure.neurons import of_measurement
from raretok.measure.parameters import PageParameters
from raretok.measure.record import Folder
from raretok.text.corpus import text_of
from tests.tiny import write_model

CONTENT = 257  # types of the tiny vocabulary that are tokens


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A tiny gated model whose tokens, effects and weights are measured."""
    folder = tmp_path_factory.mktemp("tokens")
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 5)) for _ in range(60)]
    text = folder / "text.txt"
    text.write_text("\n\n".join(" ".join(rng.choice(words, 80)) for _ in range(20)))
    model = write_model(folder / "tiny", "llama")
    given = PageParameters(model=str(model), corpus=str(text), n_ctx=32, n_positions=120)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("find", "source"):
            patch.setattr(f"raretok.measure.{module}.RUNS", folder / "runs")
        patch.setattr("raretok.ablation.store.RUNS", folder / "runs")
        yield Measurements(given)


def test_they_are_the_ends_of_the_order_of_all_logits(asked):
    data = asked.part("tokens")
    model = AutoModelForCausalLM.from_pretrained(asked.parameters.model)
    W_out = model.model.layers[-1].mlp.down_proj.weight.detach().double()
    W_U = model.lm_head.weight.detach().double()[:CONTENT]
    W_U -= model.lm_head.weight.detach().double().mean(dim=0)  # a shift of all logits says nothing
    logits = (W_U * model.model.norm.weight.double()).detach() @ W_out
    for neuron in (0, 7, 40):
        order = logits[:, neuron].argsort(descending=True).numpy()
        np.testing.assert_array_equal(data.promotes[neuron], order[:8])
        np.testing.assert_array_equal(data.suppresses[neuron], order[:-9:-1])
        own = logits[order[:8], neuron].numpy()
        np.testing.assert_allclose(data.raises[neuron], own, rtol=2**-10, atol=1e-6)
        own = logits[order[:-9:-1].copy(), neuron].numpy()
        np.testing.assert_allclose(data.lowers[neuron], own, rtol=2**-10, atol=1e-6)


def test_the_table_of_a_users_model_measures_what_is_missing_and_names_the_tokens(asked):
    table = of_measurement(asked.part)
    data, tokenizer = asked.part("tokens"), asked_tokenizer(asked)
    assert table.promotes[7] == [text_of(tokenizer, int(i)) for i in data.promotes.values[7]]
    effects = asked.part("effects: stratified")
    rows = effects.stratum.values == 1
    np.testing.assert_allclose(table.delta_loss_rare, effects.delta_loss.values[rows].mean(axis=0))
    np.testing.assert_allclose(
        table.W_gate_norm, np.linalg.norm(asked.part("model").W_gate.values, axis=1)
    )
    assert table.gate_rate.between(0, 1).all()


def asked_tokenizer(asked):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(asked.parameters.model)


@pytest.mark.parametrize(
    ("what", "named"),
    [("an id", {"raises"}), ("a text", {"texts"}), ("a number", {"lowers"}), ("nothing", set())],
)
def test_the_check_names_what_was_changed(asked, monkeypatch, what, named):
    asked.part("tokens")
    read = Folder.read

    def changed(self, part):
        data = read(self, part)
        if part == "tokens" and what == "an id":
            data.promotes[3, 0] = (data.promotes[3, 0] + 1) % CONTENT
        if part == "tokens" and what == "a text":
            data.attrs["texts"] = ["another", *data.attrs["texts"][1:]]
        if part == "tokens" and what == "a number":
            data["lowers"] = 1.02 * data.lowers
        return data

    monkeypatch.setattr(Folder, "read", changed)
    found = [one for one in check(asked) if one.part == "tokens"]
    assert {one.quantity for one in found} == {"raises", "lowers", "texts"}
    assert {one.quantity for one in found if not one.passed} == named
