"""What a measurement is made from: token counts, and a device that is there."""

import numpy as np
import pytest

from raretok.errors import UserError
from raretok.measure.parameters import PageParameters
from raretok.measure.source import Source, read_counts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.array([1.5]), "float64 values of shape"),
        (np.array([[1]]), r"shape \(1, 1\)"),
        (np.array([-1]), "non-negative"),
        (np.array([{}]), "cannot read token counts"),
    ],
)
def test_bad_counts_are_refused(tmp_path, content, message):
    np.save(tmp_path / "c.npy", content, allow_pickle=True)
    with pytest.raises(UserError, match=message):
        read_counts(tmp_path / "c.npy")


def test_a_missing_gpu_is_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="no GPU is visible"):
        _ = Source(PageParameters(device="cuda")).model
