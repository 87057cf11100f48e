"""The command line: pages rerun on other models, and one clear line for every mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import xarray as xr

from raretok import cli, neurons
from raretok.ablation import store
from raretok.ledger.claims import claims
from raretok.ledger.records import read_page
from raretok.measure.effects import ablate
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
    done = raretok(*words, "--no-site", "--out", tmp_path / "out", HF_HUB_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    page = tmp_path / "out" / "05_spectra.ipynb"
    assert done.stdout.strip() == str(page)
    assert {(one.claim, one.reading) for one in read_page(page).findings()} == {
        (name, reading)
        for name, claim in claims().items()
        for reading in PROTOCOLS
        if claim.page == "spectra"
    }


def test_the_ledger_of_a_run_reads_the_pages_of_that_run(tmp_path):
    named = {"model": "another/model", "measurement": "another/3f2a"}
    found = [finding("R1", reading=reading, **named) for reading in PROTOCOLS]
    write_page(tmp_path, "01_regimes", found, {"model": "another/model"})
    words = ["run", "reviews", "ledger", "--no-site", "--model", "docs-gpt2@untrained"]
    done = raretok(*words, "--out", tmp_path)
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
    names = ["run", "table", "positions", "neurons", "seconds", "tokens", "error", "audit"]
    assert list(shown[0]) == names
    assert shown[0]["run"] == str(tmp_path / "run")
    assert shown[0]["table"] == str(tmp_path / "run" / "neurons.parquet")
    assert len(neurons(tmp_path / "run")) == 640
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
    monkeypatch.setattr(store, "RUNS", tmp_path)
    first, again, other = (ablate(llama, texts, 30, seed=s) for s in (0, 0, 1))
    folders = [Path(one.encoding["source"]).parent for one in (first, again, other)]
    assert folders[0] == folders[1] != folders[2]
    assert [folder.parent for folder in folders] == 3 * [tmp_path]
    assert first.load().identical(again.load())


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
        ({"revision": "step7"}, "tiny-llama has no revision 'step7'"),
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


@pytest.mark.parametrize("out", ["letters.txt/run", "/proc/run", "x" * 300])
def test_a_folder_that_cannot_be_written_is_refused_before_the_model_is_read(
    llama, texts, tmp_path, out, capsys, monkeypatch
):
    (tmp_path / "letters.txt").write_text("dear")
    monkeypatch.setattr("raretok.models.loading.load_model", None)
    words = ablate_words(llama, texts, tmp_path / out)
    refused(words, "cannot write to ", capsys, monkeypatch)


def test_ablate_at_a_revision_of_a_hub_id_writes_nothing_beside_its_folder(
    llama, texts, tmp_path, monkeypatch, capsys
):
    cache = fake_hub_cache(tmp_path / "hub", llama, "EleutherAI/pythia-70m")
    earlier = write_model(tmp_path / "step1000", "neox-parallel")
    fake_hub_cache(cache, earlier, "EleutherAI/pythia-70m", revision="step1000")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(store, "RUNS", tmp_path / "runs")
    before = sorted(path for path in tmp_path.rglob("*"))
    hub = ablate_words("EleutherAI/pythia-70m", texts, tmp_path / "run", revision="step1000")
    monkeypatch.setattr(sys, "argv", ["raretok", *hub])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0, capsys.readouterr().err
    local = ablate(earlier, texts, 30, out=tmp_path / "local")
    with xr.open_zarr(tmp_path / "run" / "data.zarr", chunks=None) as data:
        np.testing.assert_array_equal(data.delta_loss, local.delta_loss)
    made = pyarrow.parquet.read_schema(tmp_path / "run" / "neurons.parquet").metadata[b"raretok"]
    assert json.loads(made)["revision"] == "step1000"
    after = [path for path in tmp_path.rglob("*") if not {"run", "local"} & {*path.parts}]
    assert sorted(after) == before


def test_ablate_with_other_settings_is_refused(llama, texts, tmp_path, capsys, monkeypatch):
    ablate(llama, texts, 30, out=tmp_path / "run")
    words = ablate_words(llama, texts, tmp_path / "run", seed=1)
    refused(words, "is a run with other settings (positions_sha256, seed)", capsys, monkeypatch)
