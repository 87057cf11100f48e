"""Neuron cards: they say what the data say, for every neuron that was measured and no other."""

import re
from pathlib import Path

import numpy as np
import pytest

from raretok.book import cards
from raretok.book.atlas import NeuronTable
from raretok.claims.study import Study
from raretok.claims.thresholds.gradient import BINS
from raretok.measure.find import LEAD, WHOLE
from raretok.measure.record import Folder

SMALL = "docs-gpt2"
ROW = dict.fromkeys(("rank", "neuron", "W_out_norm"), 1) | {"promotes": [" <b>"], "suppresses": []}
ROW |= {f"delta_loss_{n}{e}": 0.1 for n in ("rare", "common") for e in ("", "_low", "_high")}
NASTY = ["<script>alert(1)</script>", "``````", "\n", "{{ cards }}", '"><b>', "\x07", " $x$"]


def carded(model: str) -> tuple[int, ...]:
    return cards.carded(Study.shipped(model))


def written(folder: Path, *models: str) -> dict[str, str]:
    """The cards of some models, by file name, and their index as the last."""
    cards.write_cards(folder, [Study.shipped(model) for model in models])
    files = [*sorted((folder / cards.FOLDER).iterdir()), folder / f"{cards.FOLDER}.md"]
    return {file.name: file.read_text(encoding="utf-8") for file in files}


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    return written(tmp_path_factory.mktemp("cards"), *WHOLE)


def number(text: str) -> float:
    return float(text.replace("−", "-"))


@pytest.mark.parametrize("model", WHOLE)
def test_the_head_and_ten_controls_have_a_card_and_no_other_neuron(pages, model):
    study = Study.shipped(model)
    head = study.group_size
    assert len(carded(model)) == head + 10
    names = {f"{model}-{neuron}.md" for neuron in carded(model)}
    assert {name for name in pages if name.startswith(f"{model}-")} == names
    link = cards.card_link(model, carded(model)[0])
    assert link.removeprefix(f"{cards.FOLDER}/").replace(".html", ".md") in names
    for neuron in carded(model)[:head]:
        assert f"{neuron}</a>" in cards.head_line(study).data
    assert cards.head_line(study).data.count("<a ") == head


def test_a_model_without_the_measurement_has_no_card(tmp_path):
    assert carded("docs-llama") == ()
    assert list(written(tmp_path, "docs-llama").values()) == [""]
    assert "<a " not in cards.head_line(Study.shipped("docs-llama")).data


@pytest.mark.parametrize("model", WHOLE)
def test_effects_are_the_mean_over_rare_targets_and_the_head_is_ranked_by_them(pages, model):
    effects = Study.shipped(model).effects("corrected")
    rare = effects.stratum.values == 1
    mean = np.average(effects.delta_loss.values[rare], axis=0, weights=effects.weight.values[rare])
    ranks = (-mean).argsort().argsort() + 1
    for place, neuron in enumerate(carded(model)):
        text = pages[f"{model}-{neuron}.md"]
        value, low, high = re.search(r"rare targets (\S+) <small>\((\S+) to (\S+)\)", text).groups()
        assert number(value) == pytest.approx(1000 * mean[neuron], rel=0.006)
        assert number(low) < number(value) < number(high)
        assert f"rank {ranks[neuron]:,} of {mean.size:,}" in text
        assert ("<b>In the head</b>" in text) == (place < Study.shipped(model).group_size)


def test_a_card_shows_each_window_with_its_peak_underlined(pages):
    part = Study.shipped(SMALL).part("cards")
    for card, neuron in enumerate(carded(SMALL)):
        text = pages[f"{SMALL}-{neuron}.md"]
        shown = [number(one) for one in re.findall(r'<strong[^>]*title="([^"]*)"', text)]
        stored = part.activation.values[card, :, part.peak]
        assert shown == pytest.approx(stored.tolist(), rel=0.006)
        assert text.count("<li>") == part.sizes["window"]


@pytest.mark.parametrize(
    ("name", "quantity"),
    [
        ("cards", "activation"),
        ("cards", "logit"),
        ("effects: stratified", "delta_loss"),
        ("interventions", "delta_loss"),
        ("effects: stratified", "mean_post"),
        ("model", "W_out"),
    ],
)
def test_a_change_of_2_percent_is_seen_on_every_card(pages, tmp_path, monkeypatch, name, quantity):
    read = Folder.read

    def changed(self, part):
        data = read(self, part)
        return data.assign({quantity: 1.02 * data[quantity]}) if part == name else data

    monkeypatch.setattr(Folder, "read", changed)
    for file, text in written(tmp_path, SMALL).items():
        if file.startswith(SMALL):
            assert text != pages[file], file


def test_nothing_that_a_token_holds_is_markup(tmp_path, monkeypatch):
    read = Folder.read

    def changed(self, part):
        data = read(self, part)
        if part == "cards":
            data.attrs["texts"] = {
                key: NASTY[i % len(NASTY)] for i, key in enumerate(data.attrs["texts"])
            }
        return data

    monkeypatch.setattr(Folder, "read", changed)
    for text in written(tmp_path, SMALL).values():
        assert not re.search(r"<script|alert\(1\)<|\"><b>|\x07", text)
        starts = {one for one in text.split("\n") if one.lstrip().startswith("``")}
        assert starts <= {"``````", "``````{raw} html"}
        assert "&lt;script&gt;" in text
        assert "↵" in text


def test_what_would_not_be_seen_in_a_token_is_a_sign():
    tokens = {
        " a\n": "␣a↵",
        "": "(empty)",
        "\x00": "U+0000",
        "<b>": "<b>",
        "\t\r\xa0é": "⇥\\rU+00A0é",
    }
    assert {one: cards.seen(one) for one in tokens} == tokens
    assert cards.seen(" a\n", " ") == " a↵"  # in running text
    assert "<code>␣&lt;b&gt;</code>" in cards.rendered("atlas_head.md", rows=[ROW])


def test_the_figure_names_frequencies_and_has_the_bins_of_the_atlas(pages):
    """Powers of ten lie on a logarithmic axis between the first bin and the last."""
    of, table = cards.Cards(Study.shipped(SMALL)), NeuronTable(SMALL, Study.shipped(SMALL))
    points = of.points(0)
    assert [float(one.replace(",", "")) for _, one, *_ in points["marks"]] == pytest.approx(
        table.frequency, rel=0.03
    )
    assert [rare for rare, *_ in points["marks"]] == [True] * BINS[0] + [False] * BINS[1]
    effects = [value[0] for *_, value in points["marks"]]
    bins = [f"delta_loss_bin_{n + 1}" for n in range(len(effects))]
    of_atlas = table.frame.loc[of.neurons[0], bins].to_numpy(float)
    np.testing.assert_allclose(effects, 1000 * of_atlas, rtol=1e-5)
    names, places = zip(*points["ticks"], strict=True)
    powers = np.log10([float(name.replace(",", "")) for name in names])
    np.testing.assert_array_equal(powers, np.arange(powers[0], powers[-1] + 1))
    ends = np.log10(table.frequency)[[0, -1]]
    np.testing.assert_allclose(places, np.interp(powers, ends, (12, 388)), atol=0.2)
    text = pages[f"{SMALL}-{of.neurons[0]}.md"]
    assert all(f">{name}</text>" in text for name in names)


def test_negative_contexts_are_shown_where_a_gated_neuron_acts_there(pages):
    part = Study.shipped(LEAD).part("cards")
    squares = part.square.values
    negative = squares[1] / squares.sum(axis=0)
    for neuron, share in zip(carded(LEAD), negative, strict=True):
        text = pages[f"{LEAD}-{neuron}.md"]
        assert ("Where it is most negative" in text) == (share >= cards.ACTS)
        assert f"make up {100 * (1 - share):.0f} % of its squared activation" in text


def test_correlations_are_those_of_the_claims(pages):
    """Pearson's r where the target is rare, weighted; docs-gpt2 has no gate, so no ranks."""
    of = cards.Cards(Study.shipped(SMALL))
    sample = of.sample
    rows = sample.stratum == 1
    post = sample.post[rows] - np.average(sample.post[rows], axis=0, weights=sample.weight[rows])
    products = (sample.weight[rows, None] * post).T @ post
    own = products / np.sqrt(np.outer(np.diag(products), np.diag(products)))
    np.fill_diagonal(own, 0)
    np.testing.assert_allclose(of.links, own[list(of.neurons)], atol=1e-6)
    first = np.abs(own[of.neurons[0]]).argmax()
    assert f">{first}<" in pages[f"{SMALL}-{of.neurons[0]}.md"]
