"""Bad input of every kind, and the one line that it gets: no traceback, nothing half-written."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from raretok import cli
from tests.tiny import write_model

ROOT = Path(__file__).parents[1]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"

# What is typed, and how the line begins that it gets.
COMMANDS = {
    "frobnicate": "No such command 'frobnicate': see raretok --help",
    "--modl x": "No such option: --modl",
    "inspect": "Missing argument 'model': see raretok inspect --help",
    "run -1": "No such option: -1: see raretok run --help",
    "run 1 --modl base": "No such option: --modl (Possible options: --model): see raretok run",
    "run 1 --jobs x": "Invalid value for '--jobs': ",
    "run 1 --jobs 0": "Invalid value for '--jobs': ",
    "run regims": "there is no page 'regims'; the pages are: 01_regimes",
    "run 1 --profile slow": "Invalid value for '--profile': Value error, 'slow' is not one of ",
    "run 1 --protocol mine": "parameter protocol: ",
    "run 1 -p seed": "-p seed: write name=value",
    "run 1 -p seed=-1": "parameter seed: ",
    "run 1 -p rare_percent=10": "unknown parameter 'rare_percent': a page takes model, revision",
    "run 1 -p rare_percentile=nan": "parameter rare_percentile: input should be a finite number",
    "run 1 -p rare_percentile=inf": "parameter rare_percentile: input should be a finite number",
    "run 1 -p rare_percentile=50": "parameter rare_percentile: input should be less than 50",
    "run 1 -p group_percent=0": "parameter group_percent: input should be greater than 0",
    "run 1 -p n_positions=many": "parameter n_positions: ",
    "run 1 -p n_positions=1.5": "parameter n_positions: ",
    "run 1 -p n_ctx=4": "parameter n_ctx: input should be greater than or equal to 32",
    "run 1 -p dtype=int8": "parameter dtype: input should be 'float32' or 'bfloat16'",
    "run 1 -p device=tpu": "parameter device: input should be 'cpu', 'cuda' or 'auto'",
    "run dynamics -p revisions=main": "parameter revisions: ",
    "run 1 --out texts.jsonl/out": "cannot write to texts.jsonl/out: not a directory",
    f"run 1 --out {ROOT}/book": "--out book would replace the pages of the book: choose another",
    "run 1 --out /proc/out": "cannot write to /proc/out: ",
    "run 1 --model base --corpus texts.jsonl --revision step9": "base has no revision 'step9'",
    "measure a b": "Got unexpected extra argument(s) (b): see raretok measure --help",
    "measure docs-gpt2 --revision step9": "docs-gpt2 has no revision 'step9'",
    "measure docs-gpt2 --device tpu": "parameter device: ",
    "measure somebody/gpt2 --count": "somebody/gpt2 does not ship: give counts",
    "calibrate --runs 0": "Invalid value for '--runs': ",
    "calibrate --jobs 0": "Invalid value for '--jobs': ",
    "calibrate ./nowhere": "the model directory ./nowhere does not exist",
    "train ../x": "'../x' is no name for a folder",
    "train x --tokens 0": "n_tokens must be positive, got 0",
    "train x --seed -1": "Invalid value for '--seed': ",
    "train x --family bert": "Invalid value for '--family': Value error, 'bert' is not one of ",
    "train x --device tpu": "no device 'tpu': use cpu or cuda",
    "train x --checkpoints 0-9": "--checkpoints 0-9: write steps with commas between",
    "train x --work texts.jsonl/work": "cannot write to texts.jsonl/work: not a directory",
    "train x --without cooking": "no domain 'cooking' to leave out: there are arr",
    "text novels .": "no text 'novels': there are addresses, licences",
    "text licences .": " has no licenses/*.json: unpack spdx-license-list there",
    "bench --shape big": "unknown shape 'big': choose from docs-gpt2, gpt2-small, pythia-1b",
    "bench --positions 0": "positions must be 1 or more, got 0",
    "bench --device tpu": "no device 'tpu': use cpu or cuda",
    "bench --json nowhere/b.json": "cannot write nowhere/b.json: give a file in a folder",
    "bench --scaling --shape docs-gpt2": "--scaling uses heads of its own",
    "ablate --positions many": "Invalid value for '--positions': ",
    "ablate --mode median": "unknown ablation mode 'median': choose one of mean, zero, resample",
    "ablate --effect both": "unknown effect 'both': choose one of total, direct",
    "ablate --tolerance nan": "a tolerance of nan nats cannot be kept",
    "ablate --dtype int8": "parameter dtype: input should be 'float32' or 'bfloat16'",
    "ablate --out texts.jsonl": "texts.jsonl is a file: give a directory",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def here(base, tmp_path, monkeypatch) -> Path:
    """A folder of the user's to stand in, with a model that may be damaged and a corpus."""
    shutil.copytree(base, tmp_path / "base")
    rows = np.random.default_rng(0).geometric(0.05, size=(24, 400)) % 94 + 33
    lines = (json.dumps({"text": "".join(map(chr, row))}) for row in rows)
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("raretok.measure.find.RUNS", tmp_path / "runs")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def refused(words: list[str], line: str, here: Path, capsys, monkeypatch) -> None:
    """One line that begins so, exit status 2, nothing written, no folder of this machine named."""
    before = sorted(here.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["raretok", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2, said
    assert len(said) == 1, said
    assert said[0].startswith(f"raretok: {line}"), said
    for machine in (here, Path.home(), ROOT):
        assert f"{machine}/" not in said[0]
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("words", COMMANDS)
def test_commands(here, words, capsys, monkeypatch):
    refused(words.split(), COMMANDS[words], here, capsys, monkeypatch)


MODELS = {  # what is given as a model that is none
    "": "'' is no model: give a shipped name",
    "nowhere/at/all": "the model directory nowhere/at/all does not exist",
    "~/nowhere": "the model directory ~/nowhere does not exist",
    "C:\\models\\x": "'C:\\\\models\\\\x' is no model: give a shipped name",
    "nowhere.gguf": "the model file nowhere.gguf does not exist",
    "package:no_such": "package:no_such: the package 'no_such' is not installed",
    "base/model.safetensors": "model.safetensors is a file, and no .gguf file: give the directory",
    ".": "",  # the folder that one stands in has a name too
    "https://huggingface.co/some/model": "https://huggingface.co/some/model is an address: give",
    "some/model@step1000": "some/model@step1000 is no Hub id: give some/model and its revision",
    "some/model": "some/model is not in the local cache and the Hub cannot be reached",
}


@pytest.mark.parametrize("model", MODELS)
def test_names_of_models(here, model, capsys, monkeypatch):
    line = MODELS[model] or f"{here.name} has no config.json: give a Hugging Face model directory"
    words = ["ablate", "--model", model, "--corpus", "texts.jsonl", "--out", "out"]
    refused(words, line, here, capsys, monkeypatch)


GGUF = {  # what a .gguf file holds
    "text.gguf": (b"not a model, but long enough for one", "cannot read text.gguf: it is no GGUF"),
    "empty.gguf": (b"", "empty.gguf is an empty file: download it again"),
    "pointer.gguf": (POINTER.encode(), "pointer.gguf is a git-lfs pointer in place of the file"),
}


@pytest.mark.parametrize("name", GGUF)
def test_gguf_files(here, name, capsys, monkeypatch):
    held, line = GGUF[name]
    (here / name).write_bytes(held)
    monkeypatch.setattr("raretok.models.gguf.KEPT", here.parent / "cache")
    words = ["ablate", "--model", name, "--corpus", "texts.jsonl", "--out", "out"]
    refused(words, line, here, capsys, monkeypatch)


def config(**values: object) -> Callable[[Path], object]:
    """Another configuration beside the weights."""

    def write(base: Path) -> None:
        file = base / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return write


def content(name: str, text: str) -> Callable[[Path], object]:
    return lambda base: (base / name).write_text(text)


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def write(base: Path) -> None:
        held = load_file(base / "model.safetensors")
        change(held)
        save_file(held, base / "model.safetensors", metadata={"format": "pt"})

    return write


def nan_in(name: str) -> Callable[[Path], object]:
    return weights(lambda held: held[name].fill_(float("nan")))


def few_bits(held: dict[str, torch.Tensor]) -> None:
    held["transformer.h.0.mlp.c_fc.weight"] = held["transformer.h.0.mlp.c_fc.weight"].to(
        torch.float8_e4m3fn
    )


def a_token_out_of_place(base: Path) -> None:
    file = base / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 400, "content": "<x>"})
    file.write_text(json.dumps(tokenizer))


def a_gguf_beside(base: Path) -> None:
    (base / "config.json").unlink()
    (base / "m.gguf").write_bytes(b"GGUF")


def half_a_tokenizer(base: Path) -> None:
    (base / "tokenizer.json").unlink()
    (base / "vocab.json").write_text("{}")


DAMAGED = {  # what is wrong with the model directory `base`
    "no weights": (
        lambda base: (base / "model.safetensors").unlink(),
        "base has no weights: no .safetensors file",
    ),
    "pickle": (
        lambda base: (base / "model.safetensors").rename(base / "pytorch_model.bin"),
        "base holds pickle weights only (pytorch_model.bin); raretok reads safetensors",
    ),
    "pointer": (
        content("model.safetensors", POINTER),
        "model.safetensors of base is a git-lfs pointer in place of the file: download it again",
    ),
    "pointer tokenizer": (
        content("tokenizer.json", POINTER),
        "tokenizer.json of base is a git-lfs pointer in place of the file",
    ),
    "empty weights": (content("model.safetensors", ""), "model.safetensors of base is an empty"),
    "empty config": (content("config.json", ""), "config.json of base is an empty file"),
    "config no JSON": (content("config.json", "{"), "cannot read config.json of base: "),
    "code": (config(model_type="mine"), "cannot read config.json of base: The checkpoint you"),
    "adapter": (
        lambda base: (base / "config.json").rename(base / "adapter_config.json"),
        "base has no config.json: it is an adapter (LoRA), merge it into its model",
    ),
    "gguf": (a_gguf_beside, "base has no config.json: give the path of its file m.gguf"),
    "other model": (config(model_type="bert"), "the weights of base do not fit its config.json"),
    "no layers": (config(n_layer=0), "base has 0 layers, and 1 or more are needed"),
    "fewer layers": (
        config(n_layer=1),
        "no place in the model for 11 of the weights of base, such",
    ),
    "short": (config(n_positions=4), "base has 4 positions, and 16 or more are needed"),
    "NaN": (nan_in("transformer.wte.weight"), "the weights of base are damaged: transformer.wte"),
    "NaN behind": (nan_in("transformer.ln_f.bias"), "the weights of base are damaged: transform"),
    "float8": (weights(few_bits), "transformer.h.0.mlp.c_fc.weight of base is stored as F8_E4M3"),
    "no tokenizer": (
        lambda base: (base / "tokenizer.json").unlink(),
        "base has no tokenizer: put its tokenizer.json beside config.json",
    ),
    "half a tokenizer": (half_a_tokenizer, "the tokenizer of base has vocab.json without merges"),
    "token out of place": (a_token_out_of_place, "the tokenizer of base is damaged: '<x>' is 400"),
    "empty counts": (content("unigram_counts.npy", ""), "cannot read token counts from unigram_c"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_models(here, damage, capsys, monkeypatch):
    spoil, line = DAMAGED[damage]
    spoil(here / "base")
    words = ["ablate", "--model", "base", "--corpus", "texts.jsonl", "--positions", "20"]
    refused([*words, "--out", "out"], line, here, capsys, monkeypatch)


CORPORA = {  # what a corpus file holds
    "nothing.txt": (b"", "the corpus nothing.txt is empty"),
    "latin.txt": (b"caf\xe9 " * 99, "latin.txt is not UTF-8 text (byte 3): convert it first"),
    "cut.jsonl": (b'{"text": "a', "cut.jsonl, line 1: not JSON"),
    "list.jsonl": (b'["a"]', "list.jsonl, line 1: not a JSON object"),
    "other.jsonl": (b'{"words": "a"}', "other.jsonl"),
    "short.txt": (b"a few words", "the corpus short is too short"),
    "array.json": (b'[{"text": "a"}]', "cannot read array.json: a corpus is one of"),
    "null.jsonl": (b'{"text": "a"}\n{"text": null}', "null.jsonl, "),
    "words.jsonl": (b'{"text": ["a", "b"]}', "words.jsonl, "),
    "half.jsonl": (b'{"text": "a"}\n{"text": "\\ud83d"}', "half.jsonl, line 2: "),
    "deep.jsonl": (b"[" * 100_000, "deep.jsonl, line 1: "),
    "digits.jsonl": (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "digits.jsonl, line 1: "),
    "pointer.jsonl": (POINTER.encode(), "pointer.jsonl"),
    "no.parquet": (b"PAR1", "no.parquet is not a Parquet file"),
}


@pytest.mark.parametrize("name", CORPORA)
def test_corpora(here, name, capsys, monkeypatch):
    held, line = CORPORA[name]
    (here / name).write_bytes(held)
    words = ["ablate", "--model", "base", "--corpus", name, "--out", "out"]
    refused(words, line, here, capsys, monkeypatch)


SOURCES = {  # what else is given beside the model, checked before a page starts
    "--corpus nowhere.txt": "no corpus file nowhere.txt: give 'docs' or a .txt, .jsonl or",
    "--corpus base": "the corpus base is a directory",
    "--corpus texts.jsonl -p unigram=nowhere.npy": "cannot read token counts from nowhere.npy",
    "--corpus texts.jsonl -p unigram=texts.jsonl.npy": "texts.jsonl.npy holds float64 values of",
    "--corpus texts.jsonl -p unigram=long.npy": "301 unigram counts do not fit a vocabulary of 300",
    "--corpus texts.jsonl -p unigram=base": "cannot read token counts from base",
}


@pytest.mark.parametrize("words", SOURCES)
def test_what_is_given_beside_a_model(here, words, capsys, monkeypatch):
    np.save(here / "texts.jsonl.npy", np.zeros((2, 2)))
    np.save(here / "long.npy", np.ones(301, int))
    given = ["run", "1", "--model", "base", *words.split(), "--out", "out"]
    refused(given, SOURCES[words], here, capsys, monkeypatch)


@pytest.mark.filterwarnings("always")  # a command shows a warning as a line; an error would end it
def test_weights_without_a_place_are_named_and_left_out(here, capsys, monkeypatch):
    extra = {"score.weight": torch.zeros(2, 16), "transformer.h.0.attn.masked_bias": torch.zeros(1)}
    weights(lambda held: held.update(extra))(here / "base")
    words = ["ablate", "--model", "base", "--corpus", "texts.jsonl", "--positions", "20"]
    monkeypatch.setattr(sys, "argv", ["raretok", *words, "--out", "out"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr().err
    assert stopped.value.code == 0, said
    what = "no place in the model for 1 of the weights of base, such as score.weight"
    assert said == f"raretok: {what}: they are left out\n"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (KeyboardInterrupt(), 130, "stopped"),
        (OSError(28, "No space left on device"), 2, "cannot read or write results or temporary"),
        (
            PermissionError(13, "Permission denied", "/a/b/c.txt"),
            2,
            "cannot read or write c.txt: p",
        ),
    ],
)
def test_what_stops_a_command_is_one_line(error, status, line, capsys, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("raretok.text.shelf.make_text", stop)
    monkeypatch.setattr(sys, "argv", ["raretok", "text", "licences", "."])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr().err.strip().splitlines()
    assert (stopped.value.code, len(said)) == (status, 1)
    assert said[0].startswith(f"raretok: {line}")


def test_an_error_of_ours_keeps_its_traceback(monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise EOFError

    monkeypatch.setattr("raretok.text.shelf.make_text", stop)
    monkeypatch.setattr(sys, "argv", ["raretok", "text", "licences", "."])
    with pytest.raises(EOFError):
        cli.main()
