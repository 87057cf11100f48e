"""Planted worlds against really edited models; detectors where the answer is known."""

import numpy as np
import pytest
import torch

from raretok.ablation.checkpoints import Checkpoints
from raretok.ablation.closed_form import delta_loss
from raretok.ablation.head import FinalHead, final_head
from raretok.errors import UserError
from raretok.models.adapter import capture, load_model
from raretok.sections import worlds_page
from raretok.sections.detection import (
    KINDS,
    LOOKS_FOR,
    MATCHED,
    PROMISE,
    STRENGTHS,
    Cell,
    Graded,
    count,
    strength_cells,
    table_cells,
)
from raretok.sections.eigenvalues import standard_rows
from raretok.stats.groups import Fold
from raretok.text.corpus import Contexts
from raretok.text.rarity import COMMON, RARE, Positions
from raretok.worlds import detectors, ground, series, worlds
from raretok.worlds.last_mlp import Branch, LastMLP, heard_heads, read_last_mlp
from tests.tiny import write_model

GROUP = np.array([3, 8, 17, 30, 41])
FAMILIES = ("gpt2", "neox-parallel", "llama", "gemma")


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("worlds") / request.param, request.param)


def contexts_and_positions() -> tuple[Contexts, Positions]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 257, size=(6, 24))
    contexts = Contexts(tokens, np.full(6, 24), np.arange(6))
    context, pos = (grid.ravel() for grid in np.meshgrid(range(6), range(3, 23), indexing="ij"))
    return contexts, Positions(
        context=context,
        pos=pos,
        input=tokens[context, pos],
        target=tokens[context, pos + 1],
        document=context,
        stratum=rng.choice([RARE, COMMON], size=context.size),
        weight=np.ones(context.size),
    )


@pytest.fixture(scope="module")
def read(folder):
    model = load_model(str(folder))
    contexts, positions = contexts_and_positions()
    return model, contexts, read_last_mlp(model, contexts, positions, n_heard=4)


def planted(mlp: LastMLP, kind: str, strength: float, seed: int = 0) -> worlds.World:
    factor = np.linspace(0.5, 4, GROUP.size)
    rng = np.random.default_rng(seed)
    return worlds.plant(mlp, kind, GROUP, strength, rng=rng, factor=factor)


def edit(model, world: worlds.World) -> None:
    """Write the world's weights into a model."""
    mlp = model.last_block.mlp
    names = ("gate", "in") if model.architecture.gated else ("in",)
    neurons = torch.from_numpy(world.neurons)
    with torch.no_grad():
        for name, branch in zip(names, world.branches, strict=True):
            getattr(mlp, f"W_{name}").T[neurons] = torch.from_numpy(branch.weight)
        mlp.W_out[neurons] = torch.from_numpy(world.writes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_world_is_the_model_with_these_weights(folder, read, kind):
    _, contexts, mlp = read
    world = planted(mlp, kind, 0.6)
    edited = load_model(str(folder))
    edit(edited, world)
    assert not np.allclose(edited.W_out.numpy(), mlp.W_out) or kind not in (
        "scaled",
        "heavy-tailed",
    )
    captured = capture(edited, torch.from_numpy(contexts.tokens))
    at = (mlp.positions.context, mlp.positions.pos)
    post, resid = captured.post.numpy()[at], captured.resid.numpy()[at]
    np.testing.assert_allclose(world.post, post, atol=2e-5)
    np.testing.assert_allclose(world.resid, resid, atol=1e-4)
    np.testing.assert_allclose(world.W_out, edited.W_out, atol=1e-6)
    np.testing.assert_allclose(world.W_in, edited.W_in, atol=1e-6)
    rows = np.arange(0, 120, 11)
    target = torch.from_numpy(mlp.positions.target[rows])
    mean = torch.from_numpy(world.mean_post)
    resid, post = torch.from_numpy(resid[rows]), torch.from_numpy(post[rows])
    expected = delta_loss(final_head(edited), resid, post, target, mean).numpy()
    found = worlds.delta_loss_in(world, final_head(read[0]), rows)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_a_silent_head_in_a_world_is_that_head_silent_in_the_edited_model(folder, read):
    _, contexts, mlp = read
    world = planted(mlp, "correlated", 0.8)
    edited = load_model(str(folder))
    edit(edited, world)
    again = read_last_mlp(edited, contexts, mlp.positions, n_heard=4)
    np.testing.assert_allclose(world.post_without, again.post_without, atol=5e-5)


def test_heads_that_the_last_mlp_cannot_hear_are_left_out(read):
    model, _, mlp = read
    layers = {layer for layer, _ in heard_heads(model)}
    assert layers == ({0} if model.architecture.parallel else {0, 1})
    moved = np.abs(mlp.x_without - mlp.x[mlp.heard_at]).max(axis=(1, 2))
    assert (moved > 1e-3).all()


@pytest.mark.parametrize("kind", KINDS)
def test_strength_0_changes_nothing(read, kind):
    mlp = read[2]
    world = planted(mlp, kind, 0.0)
    np.testing.assert_allclose(world.post, mlp.post, atol=1e-5)
    np.testing.assert_array_equal(world.W_out, mlp.W_out)
    np.testing.assert_array_equal(world.W_in, mlp.W_in)


def synthetic(n_neurons: int = 300, n_positions: int = 500, seed: int = 0) -> LastMLP:
    """An MLP of independent Gaussian neurons on Gaussian input of width 64, with one faint head."""
    rng = np.random.default_rng(seed)
    documents = np.sort(rng.integers(40, size=n_positions))
    zero = np.zeros(n_positions, dtype=np.int64)
    stratum = rng.choice([RARE, COMMON], size=n_positions)
    labels = (documents, np.arange(n_positions), zero, zero, documents, stratum)
    x = (rng.normal(size=(n_positions, 64)) + 0.3).astype(np.float32)
    W_in, W_out = (rng.normal(size=(n_neurons, 64)).astype(np.float32) for _ in range(2))
    branch = Branch(W_in, np.zeros(n_neurons, dtype=np.float32))
    heard = np.arange(0, n_positions, 3)
    without = []
    for direction in range(3):
        one = x[heard].copy()
        one[:, direction] = 0
        without.append(one)
    return LastMLP(
        Positions(*labels, np.ones(n_positions)),
        x,
        np.asarray(torch.nn.functional.gelu(branch(x))),
        x,
        (branch,),
        W_out,
        torch.nn.functional.gelu,
        ((0, 0), (0, 1), (1, 0)),
        heard,
        np.stack(without),
    )


def test_mixing_keeps_mean_and_spread_and_adds_what_it_should():
    mlp = synthetic()
    u = worlds.random_directions(mlp, 4, rng=np.random.default_rng(1))
    seen = (mlp.x - mlp.x.mean(axis=0)) @ u.T
    np.testing.assert_allclose(np.cov(seen.T, bias=True), np.eye(4), atol=1e-5)
    np.testing.assert_allclose(mlp.x.mean(axis=0) @ u.T, 0, atol=1e-5)
    rows = mlp.W_in[GROUP]
    new = worlds.mixed(rows, u[:1], 1.0, mlp.x)
    np.testing.assert_allclose(
        (mlp.x @ new.T).mean(axis=0), (mlp.x @ rows.T).mean(axis=0), atol=1e-4
    )
    mean = mlp.x.mean(axis=0)
    across = new - np.outer(new @ mean, mean) / (mean @ mean)
    cosines = across @ across.T / np.outer(*2 * [np.linalg.norm(across, axis=1)])
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-5)


def test_a_heavy_tailed_world_has_the_spectrum_it_says():
    mlp = synthetic()
    world = planted(mlp, "heavy-tailed", 1.0)
    law = 1 / np.arange(1, GROUP.size + 1)
    for before, after in ((mlp.W_in, world.W_in), (mlp.W_out, world.W_out)):
        rows = standard_rows(after[GROUP].astype(float))
        values = np.linalg.eigvalsh(rows @ rows.T / rows.shape[1])[::-1]
        np.testing.assert_allclose(values, GROUP.size * law / law.sum(), rtol=1e-4)
        norms = (np.linalg.norm(one[GROUP], axis=1) for one in (before, after))
        np.testing.assert_allclose(*norms, rtol=1e-5)


def run_in(mlp: LastMLP, world: worlds.World, rng: np.random.Generator) -> ground.Run:
    controls = ground.matched(world, world.neurons, rng=rng)
    half = np.isin(mlp.positions.document, rng.permutation(40)[:20])
    fold = Fold(world.neurons, controls, controls, half)
    return ground.Run(world, fold, mlp.positions.stratum == RARE)


def own_p(kind: str, strength: float, seed: int = 0) -> float:
    detector = next(name for name, own in LOOKS_FOR.items() if own == kind)
    mlp, rng = synthetic(), np.random.default_rng(seed)
    group = rng.choice(300, size=10, replace=False)
    world = worlds.plant(mlp, kind, group, strength, rng=rng)
    return detectors.ASKED[detector](run_in(mlp, world, rng), rng=rng)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "scaled"])
def test_a_strong_effect_is_found_by_its_detector_and_grows_with_strength(kind):
    p = [
        np.mean([own_p(kind, strength, seed) for seed in range(3)]) for strength in (0.0, 0.5, 1.0)
    ]
    assert p[2] < 0.05
    assert p[0] > p[1] >= p[2]


def test_statistics_grow_with_strength():
    mlp, everyone = synthetic(), np.arange(300)
    ratio, tail = [], []
    for strength in (0.0, 0.5, 1.0):
        world = planted(mlp, "correlated", strength)
        ratio.append(detectors.participation(world.post, world.neurons[None])[0])
        rows = standard_rows(planted(mlp, "heavy-tailed", strength).W_in[GROUP].astype(float))
        tail.append(np.linalg.eigvalsh(rows @ rows.T)[-1])
    assert (np.diff(ratio) < 0).all()
    assert (np.diff(tail) > 0).all()
    assert detectors.participation(mlp.post, everyone[None, :1])[0] == pytest.approx(1, rel=1e-5)


def test_participation_of_copies_is_1_and_of_unrelated_neurons_is_their_number():
    column = np.random.default_rng(0).normal(size=(400, 1)).astype(np.float32)
    copies = np.tile(column, (1, 4))
    assert detectors.participation(copies, np.arange(4)[None])[0] == pytest.approx(1, rel=1e-5)
    apart = np.linalg.qr(np.random.default_rng(1).normal(size=(400, 5)) - 0)[0]
    apart = np.linalg.qr(apart - apart.mean(axis=0))[0]
    assert detectors.participation(apart, np.arange(5)[None])[0] == pytest.approx(5, rel=0.02)


def test_random_groups_raise_few_false_alarms(monkeypatch):
    monkeypatch.setattr(ground, "CONTROLS", 99)
    mlp, rng = synthetic(), np.random.default_rng(0)
    runs = []
    for _ in range(200):
        group = rng.choice(300, size=10, replace=False)
        runs.append(run_in(mlp, worlds.unchanged(mlp, group), rng))
    for name in ("coordination", "spectra", "attention"):
        p = np.array([series.detector_p(name, run, rng) for run in runs])
        cell = count(name, "random groups", MATCHED, p)
        assert cell.n_runs == len(runs)
        assert cell.share <= PROMISE, cell


def small_ground(n_neurons: int = 300) -> ground.Ground:
    mlp, rng = synthetic(n_neurons), np.random.default_rng(3)
    delta = rng.normal(size=mlp.post.shape).astype(np.float32)
    W_out = torch.from_numpy(mlp.W_out)
    G = torch.from_numpy(rng.normal(0, 0.1, (64, 30)).astype(np.float32))
    head = FinalHead(W_out, W_out.square().sum(dim=1), G, torch.zeros(30), 1e-5, False)
    side = ground.Side(mlp, head, delta)
    return ground.Ground(side, side, 10)


def test_groups_chosen_alike_are_no_null_of_their_own_labels():
    base = small_ground()
    base.trained.delta_loss[:, :10] += 1
    run = ground.permuted_run(base, True, rng=np.random.default_rng(0))
    assert set(run.fold.group) == set(range(10))
    assert all(set(row) == set(range(10)) for row in run.fold.controls)
    positions = base.positions
    for document in np.unique(positions.document):
        at = positions.document == document
        assert (run.rare & at).sum() == (base.rare & at).sum()


def test_one_module_lowers_dimension_alone_and_two_raise_modularity():
    base, rng = small_ground(), np.random.default_rng(0)
    dimension, modularity = {}, {}
    for n in (1, 2, 10):
        run = series.graded_run(base, n, 1.0, rng=rng)
        dimension[n], modularity[n] = series.places(run, rng=rng)[0]
    assert dimension[1] < dimension[2] < 0.4 < 0.8 < dimension[10]
    assert modularity[2] > 0.3
    assert max(abs(modularity[n]) for n in (1, 10)) < 0.15


@pytest.fixture(scope="module")
def short_series():
    """Every world once or twice, with few controls."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("N_NULL", "N_PLANTED", "N_STRENGTH", "N_GRADED", "N_HALVES"):
            patch.setattr(series, name, 2 if name in ("N_NULL", "N_HALVES") else 1)
        patch.setattr(ground, "CONTROLS", 19)
        yield lambda kept: series.detector_series(small_ground(1000), seed=0, kept=kept)


@pytest.fixture(scope="module")
def finished(short_series, tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    return folder, short_series(Checkpoints(folder))


def run_again(*args):
    raise AssertionError("what is finished is run again")


def test_a_killed_series_goes_on_and_gives_the_same(short_series, finished, monkeypatch):
    folder, one = finished
    (folder / "halves.part").unlink()
    monkeypatch.setattr(series, "case_runs", run_again)
    again = short_series(Checkpoints(folder))
    assert again.identical(one)


def test_tables_say_what_the_series_holds(finished):
    data = finished[1]
    cells = table_cells(data)
    assert {(cell.world, cell.controls) for cell in cells} == set(series.CASES)
    assert {cell.n_runs for cell in cells if cell.null} == {2}
    assert {cell.n_runs for cell in cells if cell.planted} == {1}
    # A trained model's curve is no null, so nothing is asked of it there.
    asked = {cell.world for cell in cells if cell.detector == "plateau"}
    assert "random groups" not in asked
    assert {*KINDS, "untrained"} <= asked
    by_strength = strength_cells(data)
    assert list(by_strength) == list(LOOKS_FOR)
    assert all(len(found) == len(STRENGTHS) for found in by_strength.values())
    graded = Graded.of(data)
    assert graded.size == 10
    assert len(graded.worlds) == 5 * len(STRENGTHS)
    assert graded.points.shape == (2, 2)
    assert graded.controls.shape == (2 * 19, 2)
    table = worlds_page.graded_table(graded)
    assert list(table.index[[0, -1]]) == ["one module", "its matched controls"]
    assert graded.interval(0).low <= graded.points[:, 0].mean() <= graded.interval(0).high
    assert 0 <= graded.way(graded.points[:, 0].mean()) <= 1.2
    assert not any("nan" in text for text in worlds_page.told(cells, graded).values())


def test_cells_know_what_they_promised():
    own = Cell("spectra", "heavy-tailed", MATCHED, 40, 30)
    null = Cell("spectra", "untrained", MATCHED, 100, 8)
    other = Cell("spectra", "clustered", MATCHED, 40, 40)
    assert (own.kept, null.kept, other.kept) == (False, True, None)
    assert null.interval[0] == pytest.approx(0.0352, abs=1e-3)  # exact binomial, 8 of 100
    assert null.interval[1] == pytest.approx(0.1516, abs=1e-3)
    figure = worlds_page.map_figure([own, other, null])
    assert figure["marked"] == [(0, 3)]
    assert worlds_page.cell_text(null) == "8 % (4 to 15)"


def test_what_cannot_be_planted_is_refused():
    mlp, rng = synthetic(), np.random.default_rng(0)
    with pytest.raises(UserError, match="strength"):
        worlds.plant(mlp, "correlated", GROUP, 1.5, rng=rng)
    with pytest.raises(UserError, match="once"):
        worlds.plant(mlp, "correlated", np.array([1, 1, 2]), 0.5, rng=rng)
    with pytest.raises(UserError, match="factor"):
        worlds.plant(mlp, "scaled", GROUP, 0.5, rng=rng)
    with pytest.raises(UserError, match="modules"):
        worlds.modular(mlp, GROUP, 6, 0.5, rng=rng)
