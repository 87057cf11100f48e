"""The page on costs: what it computes from sizes and from the committed results."""

import numpy as np
import pytest
import torch

from raretok.bench import cost
from raretok.bench.cases import SHAPES

ROW = {
    "shape": "toy",
    "weights": "random",
    "positions": 10,
    "neurons": 3,
    "vocabulary": 7,
    "d_model": 2,
    "n_layers": 1,
    "context": 5,
    "tokens_summed": 4,
    "tokens_probed": 2,
    "tokens_again": 256,
    "second_order": 1,
    "sampled_again": 0.5,
    "summed_in_full": 0.25,
}


def flops(name: str) -> float:
    done = cost.operations(ROW).flops
    (found,) = done[done.index.str.startswith(name)]
    return found


def test_operations_by_hand():
    """Two for each multiplication and addition of d 2, N 3, V 7, one block, context 5."""
    attention, mlp, scores = 4 * 2 * 2, 2 * 2 * 3, 2 * 2 * 5
    assert flops("blocks") == 2 * (attention + mlp + scores)
    assert flops("logits") == 2 * 2 * 7 + 5 * 7
    assert flops("mean direction") == 2 * 2 * 7
    assert flops("directions of all tokens") == 2 * 2 * 3 * 7


def test_blocks_count_what_a_real_model_multiplies():
    """Parameters of the weight matrices of GPT-2's blocks, twice each, less the attention."""
    from transformers import GPT2Config, GPT2Model

    with torch.device("meta"):
        model = GPT2Model(GPT2Config())
    matrices = sum(p.numel() for p in model.h.parameters() if p.ndim == 2)
    sizes = {"d_model": 768, "neurons": 3_072, "n_layers": 12, "context": 0}
    assert cost.operations(ROW | sizes).flops.iloc[0] == 2 * matrices


def test_the_floor_is_more_than_a_forward_pass_and_less_than_all():
    done = cost.operations(ROW)
    forward = done.flops[done.kind == "forward"].sum()
    assert 1 < cost.floor_ratio(ROW) < done.flops.sum() / forward
    assert cost.floor_ratio(ROW) == cost.floor_ratio(ROW | {"tokens_summed": 9, "second_order": 0})


def test_what_is_done_once_is_spread_over_the_positions():
    table = cost.work_table([ROW, ROW | {"shape": "longer", "positions": 10**9}])
    once = next(name for name in table.index if "once a model" in name)
    assert float(table.loc[once, "longer"]) == 0
    assert list(table.columns) == ["toy", "longer"]


def test_an_exponent_is_found_and_its_error_is_that_of_the_scatter():
    sizes = (2, 4, 8, 16)
    records = [{"axis": "neurons", "neurons": n, "seconds": 0.5 * n**1.5} for n in sizes]
    fit = cost.fit_scaling("neurons", records)
    assert fit.exponent == pytest.approx(1.5)
    assert fit.stderr == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(fit.line, fit.seconds)
    records[1]["seconds"] *= 1.3
    assert cost.fit_scaling("neurons", records).stderr > 0.05
    with pytest.raises(ValueError, match="neurons has 2"):
        cost.fit_scaling("neurons", records[:2])


def test_the_committed_results_hold_every_shape_and_the_same_keys():
    rows = cost.read()
    assert tuple(row["shape"] for row in rows) == SHAPES
    for row in rows:
        assert row.keys() == rows[0].keys()
        assert row["ratio_to_forward"] == row["seconds_fast"] / row["seconds_forward"]
        assert 0 < row["max_error_nats"] < row["atp_max_error_nats"]
        assert all(part["neurons"] >= 32 for part in row["extrapolated"].values())


def test_tables_and_figure_show_each_way_of_each_shape():
    rows = cost.read()
    assert len(cost.times_table(rows)) == len(rows) * len(cost.WAYS)
    assert list(cost.summary_table(rows).columns) == [row["shape"] for row in rows]
    for times in cost.relative(rows).values():
        assert times[0] == 1
        assert len(times) == len(cost.WAYS)


def test_the_sentences_hold_the_numbers_of_the_files():
    rows, fits = cost.read(), cost.fits()
    said = cost.told(rows, fits)
    assert [fit.axis for fit in fits] == list(cost.AXES)
    assert said["gpt2_small_ratio_to_forward"] == f"{rows[1]['ratio_to_forward']:.2f}"
    assert "neurons" in said["base"]
