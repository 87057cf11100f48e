"""Parts of a computation: made once, whole after a kill, made again when damaged."""

import os
from pathlib import Path

import numpy as np
import pytest

from raretok.ablation.checkpoints import Checkpoints
from tests.kill import flip

PART = {"effect": np.arange(1000.0), "count": np.array(3)}


def test_a_part_is_made_once(tmp_path):
    kept, made = Checkpoints(tmp_path / "parts"), []

    def make():
        made.append(1)
        return PART

    for _ in range(2):
        found = kept.part("a", make)
        assert found.keys() == PART.keys()
        for name, values in PART.items():
            np.testing.assert_array_equal(found[name], values)
    assert made == [1]
    assert kept.read("b") is None


@pytest.mark.parametrize(
    "damage",
    [flip, lambda file: os.truncate(file, 100), os.remove, lambda file: file.write_bytes(b"")],
)
def test_a_damaged_part_counts_as_never_made(damage, tmp_path):
    Checkpoints(tmp_path).keep("a", PART)
    assert Checkpoints(tmp_path).read("a") is not None
    damage(tmp_path / "a.part")
    assert Checkpoints(tmp_path).read("a") is None


def test_every_single_bit_is_guarded(tmp_path):
    Checkpoints(tmp_path).keep("a", {"count": np.array(3)})
    whole = (tmp_path / "a.part").read_bytes()
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        (tmp_path / "a.part").write_bytes(content)
        assert Checkpoints(tmp_path).read("a") is None


def test_a_write_cut_short_leaves_the_old_part(tmp_path, monkeypatch):
    Checkpoints(tmp_path).keep("a", PART)

    def cut(file, content):
        with file.open("wb") as opened:
            opened.write(content[:10])
        raise OSError("cut short")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", cut)
        with pytest.raises(OSError, match="cut short"):
            Checkpoints(tmp_path).keep("a", {"effect": np.zeros(1)})
    np.testing.assert_array_equal(Checkpoints(tmp_path).read("a")["effect"], PART["effect"])
