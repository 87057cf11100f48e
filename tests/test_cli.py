"""The command line: pages rerun on other models, and one clear line for every mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from raretok import cli
from raretok.ablation import resumption
from raretok.ledger.claims import claims
from raretok.ledger.records import read_page
from raretok.measure.effects import measure
from raretok.text.protocol import PROTOCOLS
from tests.recorded import finding, write_page
from tests.tiny import fake_hub_cache, write_model

ROOT = Path(__file__).parents[1]
SMALL = ["-p", "n_positions=60", "-p", "n_ctx=32"]


@pytest.fixture(scope="module", autouse=True)
def runs(tmp_path_factory) -> Path:
    """Where what is measured is kept: not beside the code."""
    folder = tmp_path_factory.mktemp("runs")
    os.environ["RARETOK_RUNS"] = str(folder)
    yield folder
    del os.environ["RARETOK_RUNS"]


def raretok(*words: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from raretok.cli import main; main()", *map(str, words)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT)


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """Documents of random words, so that some bytes are rare."""
    rng = np.random.default_rng(0)
    letters = np.array([chr(c) for c in range(33, 127)])
    p = 1 / np.arange(1, letters.size + 1)
    rows = [{"text": "".join(rng.choice(letters, 400, p=p / p.sum()))} for _ in range(24)]
    path = tmp_path_factory.mktemp("corpus") / "texts.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny-llama", "llama", d_mlp=640)


def test_a_page_runs_on_a_hub_id_from_the_offline_cache(tmp_path, llama, texts):
    cache = fake_hub_cache(tmp_path / "hub", llama, "somebody/tiny-llama")
    words = ["run", "spectra", "--model", "somebody/tiny-llama", "--corpus", texts, *SMALL]
    done = raretok(*words, "--out", tmp_path / "out", HF_HUB_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    page = tmp_path / "out" / "05_spectra.ipynb"
    assert done.stdout.strip() == str(page)
    assert {(one.claim, one.reading) for one in read_page(page).findings} == {
        (name, reading)
        for name, claim in claims().items()
        for reading in PROTOCOLS
        if claim.page == "spectra"
    }


def test_the_ledger_of_a_run_reads_the_pages_of_that_run(tmp_path):
    named = {"model": "another/model", "measurement": "another/3f2a"}
    found = [finding("R1", reading=reading, **named) for reading in PROTOCOLS]
    write_page(tmp_path, "01_regimes", found, {"model": "another/model"})
    done = raretok("run", "reviews", "ledger", "--model", "docs-gpt2@untrained", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    written = ["08_ledger.ipynb", "09_reviews.ipynb", "ledger.json"]
    assert done.stdout.split() == [str(tmp_path / name) for name in written]
    records = json.loads((tmp_path / "ledger.json").read_text())
    of_run = [r["measurement"] for r in records if r["model"] == "another/model"]
    assert of_run == 3 * ["another/3f2a"]
    page = (tmp_path / "08_ledger.ipynb").read_text()
    assert "another/model" in page
    assert str(tmp_path) not in page


def refused(words: list[str], message: str, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["raretok", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert message in lines[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "regims"], "there is no page 'regims'; the pages are: 01_regimes"),
        (["run", "1", "-p", "rare_percent=10"], "unknown parameter 'rare_percent'"),
        (["run", "1", "-p", "n_positions=many"], "parameter n_positions: "),
        (["run", "1", "-p", "seed"], "write name=value"),
        (["run", "1", "--protocol", "mine"], "parameter protocol: "),
        (["inspect", "./nowhere"], "the model directory ./nowhere does not exist"),
        (["train", "x", "--tokens", "0"], "n_tokens must be positive, got 0"),
        (["train", "../x"], "is no name for a folder"),
        (["train", "x", "--device", "tpu"], "no device 'tpu'"),
        (["train", "x", "--family", "bert"], "no family 'bert': use gpt2, neox, llama"),
        (["train", "x", "--checkpoints", "0-9"], "--checkpoints 0-9: write steps with commas"),
        (["train", "x", "--checkpoints", "9,5884"], "no checkpoint at step 5884"),
        (["train", "x", "--without", "cooking"], "no domain 'cooking' to leave out: there are arr"),
        (["text", "novels", "."], "no text 'novels': there are addresses, licences"),
        (["text", "licences", "tests"], "tests has no licenses/*.json: unpack spdx-license-list"),
        (["run", "1", "--out", "book"], "choose another folder"),
        (["run", "1", "--model", "nowhere.gguf"], "the model file nowhere.gguf does not exist"),
        (["run", "1", "--model", "package:no_such"], "the package 'no_such' is not installed"),
        (["run", "dynamics", "-p", "revisions=main"], "parameter revisions: "),
        (["inspect", "docs-gpt2", "--revision", "step7"], "docs-gpt2 has no revision 'step7'"),
        (["measure", "somebody/gpt2", "--count"], "somebody/gpt2 does not ship: give counts"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys, monkeypatch):
    refused(words, message, capsys, monkeypatch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--model": "no-such-dir/a/b"}, "the model directory no-such-dir/a/b does not exist"),
        ({"--corpus": "nowhere.txt"}, "no corpus file nowhere.txt"),
    ],
)
def test_a_page_that_cannot_run_says_why_and_leaves_nothing(
    tmp_path, llama, texts, change, message, capsys, monkeypatch
):
    flags = {"--model": str(llama), "--corpus": str(texts), **change}
    words = [word for pair in flags.items() for word in pair]
    refused(["run", "1", *words, *SMALL, "--out", tmp_path / "out"], message, capsys, monkeypatch)
    assert not (tmp_path / "out").exists()


def test_a_hub_id_out_of_reach_stops_a_page_in_one_line(tmp_path, texts):
    words = ["run", "1", "--model", "nobody/nothing", "--corpus", texts, *SMALL]
    done = raretok(*words, "--out", tmp_path / "out")
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "is not in the local cache and the Hub cannot be reached" in last
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("*.ipynb"))


def test_inspect_reports_the_architecture(llama, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["raretok", "inspect", str(llama)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "RMSNorm" in shown
    assert "closed form    holds" in shown


def test_two_sets_of_parameters_get_two_folders():
    assert cli.key_of({"seed": 1}) != cli.key_of({"seed": 2})
    assert cli.key_of({"a": 1, "b": 2}) == cli.key_of({"b": 2, "a": 1})


def ablate_words(llama, texts, out, **changed) -> list[str]:
    flags = {"model": llama, "corpus": texts, "positions": 30, "out": out} | changed
    return [
        "ablate",
        *(str(word) for name, value in flags.items() for word in (f"--{name}", value)),
    ]


def test_ablate_measures_then_opens_what_it_measured(llama, texts, tmp_path, capsys, monkeypatch):
    words = ablate_words(llama, texts, tmp_path / "run")
    shown = []
    for extra in ([], ["--resume"], ["--fresh"]):
        monkeypatch.setattr(sys, "argv", ["raretok", *words, *extra])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 0
        shown.append(dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()))
    names = ["run", "positions", "neurons", "seconds", "tokens", "error", "audit"]
    assert list(shown[0]) == names
    assert shown[0]["run"] == str(tmp_path / "run")
    assert (shown[0]["positions"], shown[0]["neurons"]) == ("30", "640")
    assert len({one["audit"] for one in shown}) == 1


def test_ablate_of_an_earlier_layer_is_a_run_like_any_other(
    llama, texts, tmp_path, capsys, monkeypatch
):
    words = ablate_words(llama, texts, tmp_path / "run", layer=-2, positions=60)
    shown = []
    for extra in ([], ["--resume"]):
        monkeypatch.setattr(sys, "argv", ["raretok", *words, *extra])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 0
        shown.append(capsys.readouterr().out.splitlines())
    assert any("agreement  rare positions, top neurons: Spearman" in line for line in shown[0])
    seconds = next(k for k, line in enumerate(shown[0]) if line.startswith("seconds"))
    for lines in shown:
        del lines[seconds]
    assert shown[0] == shown[1]
    with xr.open_zarr(tmp_path / "run" / "data.zarr", chunks=None) as data:
        assert data.delta_loss.dims == ("position", "neuron")
        assert data.sizes["screened"] == 640
    words = ablate_words(llama, texts, tmp_path / "run", layer=-2, positions=60, mode="zero")
    refused(words, "is a run with other settings (mode): mode is mean, not", capsys, monkeypatch)
    words = ablate_words(llama, texts, tmp_path / "new", layer=-2, effect="direct")
    refused(words, "effect 'direct' holds the final norm's scale", capsys, monkeypatch)
    assert not (tmp_path / "new").exists()


def test_ablate_names_the_folder_of_a_run_by_what_decides_its_numbers(
    llama, texts, tmp_path, monkeypatch
):
    monkeypatch.setattr(resumption, "RUNS", tmp_path)
    first, again, other = (
        measure(str(llama), str(texts), 30, seed=seed, progress=False) for seed in (0, 0, 1)
    )
    assert first.folder == again.folder != other.folder
    assert first.folder.parent == other.folder.parent == tmp_path
    assert first.data.load().identical(again.data.load())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"positions": 10**6}, "1000000 positions were asked for; this corpus has 1 to "),
        ({"positions": 0}, "0 positions were asked for; this corpus has 1 to "),
        ({"device": "tpu"}, "parameter device: "),
        ({"max-memory": 1e-4}, "0.0001 GB is too small for one block"),
        ({"max-memory": "nan"}, "nan GB is too small for one block"),
        ({"seed": -1}, "parameter seed: "),
        ({"mode": "median"}, "unknown ablation mode 'median': choose one of mean, zero, resample"),
        ({"effect": "both"}, "unknown effect 'both': choose one of total, direct"),
        ({"tolerance": 1e-12}, "a tolerance of 1e-12 nats cannot be kept: float32 gives"),
        ({"layer": 7}, "7"),
        ({"corpus": "nowhere.txt"}, "no corpus file nowhere.txt"),
        ({"model": "./nowhere"}, "the model directory ./nowhere does not exist"),
    ],
)
def test_mistakes_of_ablate_are_one_line(
    llama, texts, tmp_path, changed, message, capsys, monkeypatch
):
    words = ablate_words(llama, texts, tmp_path / "run", **changed)
    refused(words, message, capsys, monkeypatch)
    assert not (tmp_path / "run").exists()


def test_ablate_into_a_folder_of_something_else_is_refused(
    llama, texts, tmp_path, capsys, monkeypatch
):
    (tmp_path / "letters.txt").write_text("dear")
    refused(ablate_words(llama, texts, tmp_path), "is not a run: it holds", capsys, monkeypatch)
    file = tmp_path / "letters.txt"
    refused(ablate_words(llama, texts, file), "is a file: give a directory", capsys, monkeypatch)


def test_ablate_with_other_settings_is_refused(llama, texts, tmp_path, capsys, monkeypatch):
    measure(str(llama), str(texts), 30, out=tmp_path / "run", progress=False)
    words = ablate_words(llama, texts, tmp_path / "run", seed=1)
    refused(words, "is a run with other settings (positions_sha256, seed)", capsys, monkeypatch)
