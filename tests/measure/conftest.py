"""Tiny models, loaded once for the tests of a module."""

import pytest
import torch

from raretok.models.adapter import LanguageModel
from raretok.models.loading import load_model
from tests.tiny import write_model


@pytest.fixture(autouse=True)
def small_work():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    loaded: dict[str, LanguageModel] = {}

    def get(family: str) -> LanguageModel:
        if family not in loaded:
            folder = tmp_path_factory.mktemp(family) / family
            loaded[family] = load_model(str(write_model(folder, family)))
        return loaded[family]

    return get
