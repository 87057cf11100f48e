"""Costs of large models: counts against published sizes, predictions against what was timed."""

import pytest

from raretok.bench import cost, scale
from raretok.measure import layers
from raretok.measure.record import Folder

PUBLISHED = {  # parameters, of the released files
    "Llama-3.2-1B": 1_235_814_400,
    "Llama-2-7B": 6_738_415_616,
    "Llama-3.1-70B": 70_553_706_496,
    "Llama-3.1-405B": 405_853_388_800,
}
WORK = cost.read()[0] | {"per_context": 4.0, "bytes_a_pair": 1.5}  # of the shipped model


def test_the_shapes_have_the_published_numbers_of_parameters():
    found = {name: shape.parameters for name, shape in scale.MODELS.items()}
    small = Folder(scale.DATA / "measurements" / "smollm2-135m-q4").read("model")
    assert found.pop("SmolLM2-135M") == small.architecture["n_parameters"]
    assert found == PUBLISHED


@pytest.mark.parametrize("shape", scale.MODELS.values(), ids=scale.MODELS)
def test_a_forward_pass_is_two_operations_a_parameter_and_token(shape):
    logits = 2 * shape.d_model * shape.vocabulary
    assert shape.forward + logits == pytest.approx(2 * shape.parameters, rel=0.15)


def test_blocks_are_those_of_the_bench_where_the_model_is_theirs():
    """Two matrices an MLP and full attention: the third matrix is what the shapes have more."""
    row = WORK | {"context": scale.CONTEXT}
    d, n, layers_ = (row[name] for name in ("d_model", "neurons", "n_layers"))
    ours = scale.Shape(d, layers_, n, row["vocabulary"], d_kv=d).forward
    assert ours - 2 * layers_ * d * n == cost.operations(row).flops.iloc[0]


@pytest.mark.parametrize("shape", scale.MODELS.values(), ids=scale.MODELS)
def test_costs_grow_in_proportion_to_the_positions(shape):
    one, ten = (scale.hours(shape, WORK, n) for n in (10**5, 10**6))
    ratio = ten / one
    assert ratio.drop("last MLP").to_numpy() == pytest.approx(10)
    assert ratio["last MLP"] == pytest.approx(10, rel=0.02)  # some is done once


def test_what_each_part_is_in_forward_passes():
    shape = scale.MODELS["Llama-3.1-70B"]
    found = scale.hours(shape, WORK)
    tokens = scale.CONTEXT * scale.POSITIONS / WORK["per_context"]
    forward = tokens * shape.forward / scale.BF16 / scale.UTILISATION / 3600
    assert found["screen"] / forward == pytest.approx(1 + scale.CLASSES)
    later = sum(shape.n_layers - 1 - layer for layer in range(shape.n_layers)) / shape.n_layers
    expected = scale.NEURONS * later * scale.EXACT
    assert found["exact ablation"] / forward == pytest.approx(expected)
    effects = scale.work(WORK | shape._asdict() | {"positions": scale.POSITIONS})["rest"]
    assert found["last MLP"] == pytest.approx(
        forward + effects / scale.FLOAT32 / scale.UTILISATION / 3600
    )


def test_reading_the_memory_takes_less_than_the_arithmetic():
    """Weights once a batch, activations written and read once: 3.35 TB a second on this card."""
    for shape in scale.MODELS.values():
        tokens = scale.BATCH * scale.CONTEXT
        seconds = (2 * shape.parameters + 2 * shape.kept) / 3.35e12
        assert seconds < tokens * shape.forward / scale.BF16 / scale.UTILISATION


def test_weights_take_two_bytes_and_the_cards_hold_everything():
    study = scale.table(WORK)
    assert len(study.columns) <= 7
    for name, shape in scale.MODELS.items():
        held = 2 * shape.parameters + shape.kept + shape.head
        assert (study.cards[name] - 1) * 80e9 < held <= study.cards[name] * 80e9
    parts = study.filter(like="(h)").drop(columns="in all (h)")
    assert parts.sum(axis=1).to_numpy() == pytest.approx(study["in all (h)"].to_numpy())


def test_exact_ablation_has_the_share_of_the_shipped_measurements():
    assert scale.EXACT == layers.ABLATED / layers.SCREENED


def test_what_was_timed_is_predicted_within_a_factor_of_two():
    checked = scale.checks()
    assert set(checked.index.levels[0]) == {"gpt2-small", "pythia-1b", "SmolLM2-135M"}
    # Whole contexts are few, so that what is not counted weighs more.
    ratio = checked.ratio.drop(("SmolLM2-135M", "effects: whole contexts"))
    assert ratio.between(0.5, 2).all()
    assert checked.ratio.between(1 / 3, 3).all()


def test_the_sentences_hold_the_numbers_of_the_tables():
    row = scale.measured()
    study, checked = scale.table(row), scale.checks()
    said = scale.told(row, study, checked)
    largest = study.iloc[-1]
    assert said["scale_hours"] == scale.few(largest["in all (h)"])
    assert said["scale_cards"] == scale.few(largest.cards)
    assert said["scale_positions"] == f"{scale.POSITIONS:,}"
    assert said["scale_low"] == scale.few(checked.ratio.min())
