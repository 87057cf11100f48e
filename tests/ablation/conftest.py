"""Tiny models of every family, loaded once for the tests of the engine."""

from types import SimpleNamespace

import pytest
import torch

from raretok.models import LanguageModel, capture, load_model
from tests.tiny import FAMILIES, write_model


@pytest.fixture(scope="package", params=FAMILIES)
def model(request, tmp_path_factory) -> LanguageModel:
    family = request.param
    return load_model(str(write_model(tmp_path_factory.mktemp(family) / family, family)))


@pytest.fixture(scope="package")
def gemma(tmp_path_factory) -> LanguageModel:
    return load_model(str(write_model(tmp_path_factory.mktemp("gemma2") / "gemma2", "gemma2")))


@pytest.fixture(autouse=True)
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
    """Residuals, activations, targets and mean activations at all positions but the last."""
    captured = capture(model, tokens)
    return SimpleNamespace(
        resid=captured.resid[:, :-1].flatten(0, 1),
        post=captured.post[:, :-1].flatten(0, 1),
        target=tokens[:, 1:].flatten(),
        mean=captured.post.mean(dim=(0, 1)),
    )
