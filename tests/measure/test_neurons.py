"""The table of a run against loops, the model's own weights and another run; the page's example."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.stats import t as student
from transformers import AutoModelForCausalLM, AutoTokenizer

from raretok import __version__, ablate, neurons
from raretok.ablation import store
from raretok.measure.neurons import COLUMNS, OF_MODEL, column_table
from raretok.stats.jackknife import deal
from raretok.text.corpus import text_of
from raretok.text.rarity import RARE
from tests.tiny import write_model

PAGE = Path(__file__).parents[2] / "book" / "ablate.md"
D_MLP = 96


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, a text and a run, named as the page names them."""
    folder = tmp_path_factory.mktemp("place")
    write_model(folder / "my-model", "llama", d_mlp=D_MLP)
    rng = np.random.default_rng(0)
    letters = np.array([chr(c) for c in range(33, 127)])
    p = 1 / np.arange(1, letters.size + 1)
    rows = [{"text": "".join(rng.choice(letters, 400, p=p / p.sum()))} for _ in range(24)]
    (folder / "my-texts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    again(folder)
    return folder


def again(place, **options):
    """The call that made the run, given again."""
    options = {"out": place / "my-run"} | options
    return ablate(place / "my-model", place / "my-texts.jsonl", 300, **options)


def test_effects_and_their_intervals_are_what_loops_give(place):
    data = again(place)
    table = neurons(data)
    assert list(table) == [name for name in COLUMNS if name in table]
    rows = np.flatnonzero(data.stratum.values == RARE)
    effect, weight = data.delta_loss.values[:, 5].astype(float), data.weight.values
    rng = np.random.default_rng([0, *b"table of neurons"])
    block = deal(data.document.values, rng=rng).of(data.document.values)
    left_out = [effect[[r for r in rows if block[r] != b]].mean() for b in range(16)]
    sd = np.sqrt(15 / 16 * np.square(left_out - np.mean(left_out)).sum())
    reach = student.ppf(0.975, 15) * sd
    value = effect[rows].mean()
    found = table.loc[5, [f"delta_loss_rare{end}" for end in ("", "_low", "_high")]].astype(float)
    np.testing.assert_allclose(found, [value, value - reach, value + reach])
    assert table.delta_loss_all[5] == pytest.approx(np.average(effect, weights=weight))
    post = data.post.values[:, 5].astype(float)
    mean = np.average(post, weights=weight)
    sd = np.sqrt(np.average((post - mean) ** 2, weights=weight))
    np.testing.assert_allclose(table.activation_sd[5], sd)
    assert table.firing_rate[5] == pytest.approx(np.average(post > 0, weights=weight))
    order = table.sort_values("rank").delta_loss_rare.values
    assert (np.diff(order) <= 0).all()
    assert sorted(table["rank"]) == list(range(1, D_MLP + 1))


def test_lengths_and_tokens_are_those_of_the_models_own_weights(place):
    table = neurons(place / "my-run")
    model = AutoModelForCausalLM.from_pretrained(place / "my-model")
    tokenizer = AutoTokenizer.from_pretrained(place / "my-model")
    mlp = model.model.layers[-1].mlp
    for name, weight in (("W_in", mlp.up_proj.weight), ("W_gate", mlp.gate_proj.weight)):
        np.testing.assert_allclose(table[f"{name}_norm"], weight.norm(dim=1).detach(), rtol=1e-5)
    W_out = mlp.down_proj.weight.detach()
    np.testing.assert_allclose(table.W_out_norm, W_out.norm(dim=0), rtol=1e-5)
    logits = model.lm_head.weight @ (model.model.norm.weight[:, None] * W_out)
    order = logits[:257, 7].argsort(descending=True).tolist()  # the rest of W_U has no token
    texts = [text_of(tokenizer, i) for i in order]
    assert table.promotes[7] == texts[:8]
    assert table.suppresses[7] == texts[:-9:-1]
    assert "b_in" not in table
    assert table.gate_rate.between(0, 1).all()


def test_a_token_is_shown_as_its_text_spaces_and_parts_of_characters_too(place):
    tokenizer = AutoTokenizer.from_pretrained(place / "my-model")
    names = [text_of(tokenizer, tokenizer.convert_tokens_to_ids(name)) for name in ("a", "Ġ", "Ã")]
    assert names == ["a", " ", "Ã"]
    drops = SimpleNamespace(convert_ids_to_tokens=lambda i: "▁the", decode=lambda ids: "the")
    assert text_of(drops, 0) == " the"


def test_the_file_says_what_it_is_and_is_made_again_to_the_byte(place):
    run = place / "my-run"
    file, data = run / "neurons.parquet", again(place)
    content, record = file.read_bytes(), (run / "run.json").read_bytes()
    made = json.loads(pq.read_schema(file).metadata[b"raretok"])
    named = (made["model"], made["corpus"], made["raretok"], made["run"])
    assert named == ("my-model", "my-texts", __version__, json.loads(record)["key"])
    assert made["corpus_sha256"] == data.corpus_sha256
    assert made["columns"]["delta_loss_rare"]["unit"] == "nats"
    assert set(made["columns"]) == set(pq.read_schema(file).names)
    assert str(place).encode() not in content
    read = pd.read_parquet(file)
    assert read.promotes.map(list).tolist() == neurons(run).promotes.tolist()
    numbers = [name for name in read if name not in ("promotes", "suppresses")]
    pd.testing.assert_frame_equal(read[numbers], neurons(run)[numbers], check_dtype=False)
    foreign = {"raretok": json.dumps(made | {"run": "0" * 16})}
    pq.write_table(pq.read_table(file).replace_schema_metadata(foreign), file)
    for damage in (file.read_bytes(), b"", content[:500]):
        file.write_bytes(damage)
        assert not set(OF_MODEL) & set(neurons(run))  # what needs no model is there
        again(place)
        assert file.read_bytes() == content
    assert (run / "run.json").read_bytes() == record
    assert not list(run.rglob("*.partial"))


def test_some_of_the_positions_have_a_table_of_their_own(place):
    data = again(place)
    common = data.isel(position=data.target_class == "common")
    table = neurons(common)
    np.testing.assert_allclose(table.delta_loss_common, neurons(data).delta_loss_common)
    assert table.delta_loss_rare.isna().all()
    assert table["rank"].isna().all()
    few = neurons(data.isel(position=data.document < 3))
    assert few.delta_loss_all.notna().all()
    assert few.delta_loss_all_low.isna().all()
    assert (data.target_text.values[data.target.values == 1] == "!").all()


def test_of_an_earlier_layer_the_screen_stands_beside_what_is_exact(place):
    data = again(place, layer=0, out=place / "earlier")
    table = neurons(place / "earlier")
    assert len(table) == D_MLP
    exact = table.top | table.random
    assert sorted(table.neuron[exact]) == data.neuron.values.tolist()
    assert exact.sum() < D_MLP
    assert table.delta_loss_rare.notna().equals(exact)
    np.testing.assert_array_equal(table.screen_rare, data.screen.sel(token_class="rare"))
    assert not {"activation_sd", "gate_rate", "sampling_error"} & set(table)
    model = AutoModelForCausalLM.from_pretrained(place / "my-model")
    W_out = model.model.layers[0].mlp.down_proj.weight.detach()
    np.testing.assert_allclose(table.W_out_norm, W_out.norm(dim=0), rtol=1e-5)


def test_the_pages_python_runs_as_printed(place, tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks[0].strip().splitlines()) == 5
    monkeypatch.chdir(place)
    monkeypatch.setattr(store, "RUNS", tmp_path)
    names = {}
    for block in blocks:
        exec(block, names)
    assert names["effects"].sizes == {"position": 2000, "neuron": D_MLP, "place": 8}
    assert "promotes" in capsys.readouterr().out
    found = names["rare"].values[names["table"].neuron]
    np.testing.assert_allclose(found, names["table"].delta_loss_rare, atol=1e-7)


def test_the_page_explains_every_column():
    rows = column_table().splitlines()
    said = {row.split("`")[1] for row in rows[2:]}
    assert said | {f"{c}{end}" for c in said for end in ("_low", "_high")} >= set(COLUMNS)
    assert all(len(row.split("|")) == 4 for row in rows)  # a bar in a meaning would be a cell


def test_a_table_is_read_without_torch(place):
    code = "import sys, raretok; n = len(raretok.neurons(sys.argv[1])); "
    code += "print(n, 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, str(place / "my-run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(D_MLP), "False"]
