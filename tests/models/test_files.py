"""Hub ids from a cache laid out as the client lays it out, and what the Hub may answer."""

import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from raretok import cli
from raretok.errors import UserError
from raretok.measure.effects import ablate
from raretok.models import files
from tests.tiny import fake_hub_cache, write_model

TOKEN = "hf_madeupmadeupmadeup"
HUB = {  # ids as users type them, with the family that they are of
    "openai-community/gpt2": "gpt2",
    "EleutherAI/pythia-70m": "neox-parallel",
    "meta-llama/Llama-3.2-1B": "llama",
    "Qwen/Qwen3-0.6B": "qwen3",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    made = {hub_id: write_model(root / family, family) for hub_id, family in HUB.items()}
    return made | {"step1000": write_model(root / "step1000", "neox-parallel", seed=1)}


@pytest.fixture
def hub(folders, tmp_path, monkeypatch) -> Path:
    """The client's cache with all of them, and no network."""
    for hub_id in HUB:
        fake_hub_cache(tmp_path / "hub", folders[hub_id], hub_id)
    at = {"revision": "step1000"}
    fake_hub_cache(tmp_path / "hub", folders["step1000"], "EleutherAI/pythia-70m", **at)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    letters = np.random.default_rng(0).geometric(0.05, size=(8, 400)) % 94 + 33
    file = tmp_path_factory.mktemp("corpus") / "texts.txt"
    file.write_text("\n<|endoftext|>\n".join("".join(map(chr, row)) for row in letters))
    return file


def typed(monkeypatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["raretok", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


@pytest.mark.parametrize(
    ("hub_id", "revision"),
    [*((hub_id, "") for hub_id in HUB), ("EleutherAI/pythia-70m", "step1000")],
)
def test_what_is_typed_of_a_hub_id_is_that_model(
    hub, folders, texts, tmp_path, monkeypatch, capsys, hub_id, revision
):
    words = ["ablate", "--model", hub_id, "--corpus", texts, "--positions", 20]
    words += ["--revision", revision] if revision else []
    assert typed(monkeypatch, *words, "--out", tmp_path / "run") == 0, capsys.readouterr().err
    where = {"out": tmp_path / "local"}
    local = ablate(folders[revision or hub_id], texts, 20, **where)
    with xr.open_zarr(tmp_path / "run" / "data.zarr", chunks=None) as found:
        np.testing.assert_array_equal(found.delta_loss, local.delta_loss)


def test_weights_kept_in_bfloat16_are_those_weights_in_float32(folders, texts, tmp_path):
    """Bit for bit what a checkpoint of the rounded weights gives, audit and all."""
    from safetensors.torch import load_file, save_file

    rounded = Path(shutil.copytree(folders["Qwen/Qwen3-0.6B"], tmp_path / "rounded"))
    weights = {k: v.bfloat16() for k, v in load_file(rounded / "model.safetensors").items()}
    save_file(weights, rounded / "model.safetensors", metadata={"format": "pt"})
    kept = {"dtype": "bfloat16", "out": tmp_path / "kept"}
    short = ablate(folders["Qwen/Qwen3-0.6B"], texts, 20, **kept)
    whole = ablate(rounded, texts, 20, out=tmp_path / "whole")
    auto = ablate(rounded, texts, 20, out=tmp_path / "auto", device="auto")
    assert short.audit_passed
    np.testing.assert_array_equal(short.delta_loss, whole.delta_loss)
    np.testing.assert_array_equal(auto.delta_loss, whole.delta_loss)
    with pytest.raises(UserError, match="is a run with other settings"):
        ablate(folders["Qwen/Qwen3-0.6B"], texts, 20, out=tmp_path / "kept")


ANSWERS = {
    "gated": (401, "GatedRepo", "is gated: ask for access on its page, then set HF_TOKEN"),
    "unknown": (404, "RepoNotFound", "the Hub has no model some/model: check name and revision"),
    "private": (401, "RepoNotFound", "the Hub has no model some/model: .*HF_TOKEN"),
    "revision": (404, "RevisionNotFound", "the Hub has no model some/model: check name and rev"),
    "token": (401, "", "the Hub refuses the token for some/model: check HF_TOKEN"),
    "down": (500, "", "some/model is not in the local cache and the Hub cannot be reached"),
}


@pytest.fixture
def server(monkeypatch, tmp_path) -> Iterator[HTTPServer]:
    """A Hub of our own, which answers all with the status and code it is told."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.server.seen.append(self.headers.get("Authorization"))
            self.send_response(self.server.status)
            self.send_header("X-Error-Code", self.server.code)
            self.send_header("X-Error-Message", f"no entry with {self.headers['Authorization']}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as running:
        running.seen, running.status, running.code = [], 401, ""
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        address = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", ANSWERS)
def test_what_the_hub_refuses_is_said_without_the_token(server, monkeypatch, kind):
    server.status, server.code, message = ANSWERS[kind]
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(UserError, match=message) as caught:
        files.hub_snapshot("some/model", None, weights=True)
    assert server.seen[0] == f"Bearer {TOKEN}"
    assert TOKEN not in str(caught.value)
    assert "\n" not in str(caught.value)
