"""Tiny models of every family, loaded once for the tests of the engine."""

import shutil
from pathlib import Path

import pytest
import torch

from raretok.models.adapter import LanguageModel
from raretok.models.loading import load_model
from tests.ablation.reference import at_scored_positions
from tests.tiny import FAMILIES, write_model


@pytest.fixture(scope="package", params=FAMILIES)
def model(request, tmp_path_factory) -> LanguageModel:
    family = request.param
    return load_model(str(write_model(tmp_path_factory.mktemp(family) / family, family)))


@pytest.fixture(scope="package")
def gpt2(tmp_path_factory) -> LanguageModel:
    """One of them, where the family is no matter."""
    return load_model(str(write_model(tmp_path_factory.mktemp("gpt2") / "gpt2")))


@pytest.fixture(scope="module", autouse=True)
def small_work():
    """One thread: tensors this small gain nothing from more, and waiting for them costs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(1, 257, (2, 20), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def scored(model, tokens):
    return at_scored_positions(model, tokens)


@pytest.fixture(scope="module")
def whole(work, tmp_path_factory) -> Path:
    """A run on disk, by the `work` of the test module."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    work(folder)
    return folder


@pytest.fixture
def finished(whole, tmp_path) -> Path:
    """A copy of that run, which a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "run"))
