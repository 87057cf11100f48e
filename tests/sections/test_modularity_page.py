"""Tables, sentences and plotted arrays of the page `modularity`, on planted worlds."""

import numpy as np
import pytest
from numpy.random import default_rng as RNG

from raretok import modularity_figures
from raretok.book import style as figures
from raretok.book.figcheck import digest
from raretok.errors import UserError
from raretok.ledger.verdicts import verdict
from raretok.sections import modularity, modularity_checks, modularity_page, modularity_plots
from tests.sections.test_modularity import SIZE, a_fold, effects_of, found_in, world


@pytest.fixture(scope="module")
def planted():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modularity, "OWN_DRAWS", 50)
        patch.setattr(modularity, "SPLITS", 1)
        return {kind: found_in(kind) for kind in ("modules", "one factor")}


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    for name, value in (("BOOTSTRAPS", 20), ("BOOTSTRAP_CONTROLS", 4), ("BOOTSTRAP_SPLITS", 1)):
        monkeypatch.setattr(modularity, name, value)


def test_tables_say_which_world_is_modular(planted):
    modules, factor = (
        modularity_page.measures_table(planted[kind]) for kind in ("modules", "one factor")
    )
    assert float(modules.loc["held-out Q", "z"]) > 3
    assert float(factor.loc["held-out Q", "z"]) < 2
    assert float(factor.loc["mean |r|", "z"]) > 3
    nulls = modularity_page.nulls_table({"corrected": planted["modules"]})
    assert (nulls["z"].astype(float) > 2).all()
    said = modularity_page.told(planted["modules"])
    assert said["held_side"] == "above"
    assert "nan" not in " ".join(said.values())
    assert modularity_page.told(planted["one factor"])["together_side"] == "above"


def test_louvain_finds_both_planted_modules_from_every_seed(planted):
    table = modularity_page.louvain_table(planted["modules"])
    assert table.loc[1.0, "communities"] == "2 / 2"
    assert table.loc[1.0, "agreement of seeds (Rand)"] == "1.00 / 1.00"
    group, controls = modularity_page.louvain_shortfall(planted["modules"])
    assert group == pytest.approx(0)
    assert 0 <= controls < 0.02


def test_the_released_table_counts_its_own_test(planted):
    table = modularity_page.released_table({"code": planted["modules"]})
    assert table.loc["its own test: p < 0.05", "code"].endswith("% of pairs")
    assert table.loc["called modular", "code"] in ("yes", "no")


def test_noise_has_the_modularity_that_was_published():
    table = modularity_page.noise_table(SIZE, RNG(0)).astype(float)
    assert list(table.index) == ["10 neurons", "30 neurons", "50 neurons", "100 neurons"]
    assert table.loc["30 neurons":, "spectral, as released"].between(0.04, 0.07).all()
    assert (table["largest"] >= table["Louvain"]).all()


def test_a_protocol_that_cannot_be_tested_keeps_its_reason(planted):
    def find(name):
        if name == "code":
            raise UserError("too few positions")
        return planted["modules"]

    found, reasons = modularity_page.attempt(find, ["code", "corrected"])
    evidence = modularity_page.all_evidence(found, {}, reasons, RNG(0))
    assert {one.protocol: verdict(one) for one in evidence} == {
        "code": "not testable here",
        "corrected": "not reproduced",
    }
    assert modularity_page.attempt(find, ["code"], needed=False)[0] == {}
    with pytest.raises(UserError, match="too few positions"):
        modularity_page.attempt(find, ["code"])


def test_sizes_table_tells_modules_from_coordination():
    rng = RNG(0)
    groups = {("boost", SIZE): [a_fold(rng)]}
    for kind, p in (("modules", "p, more modular"), ("one factor", "p, more")):
        effects = effects_of(world(rng, kind, 2.0), rng)
        table = modularity_checks.sizes_table(effects, groups, rng)
        assert (table[p].astype(float) < 0.05).all()
        assert list(table.index.get_level_values("targets")) == ["rare", "common"]


def test_figures_draw_what_was_found(planted):
    found = planted["modules"]
    drawn = modularity_plots.networks(found, 0)
    assert list(drawn) == ["plateau group", "control group"]
    assert set(drawn["plateau group"]["community"][:5]) != set(
        drawn["plateau group"]["community"][5:]
    )
    fig, axes = figures.panels(3)
    modularity_figures.network(axes[0], **drawn["plateau group"])
    modularity_figures.sweep(axes[1], **modularity_plots.sweep_lines(found))
    plane = modularity_plots.plane_figure(found, planted["one factor"], RNG(0))
    modularity_figures.plane(axes[2], **plane)
    assert "NaN" not in digest(fig)
    one, two = plane["paths"]["planted: one factor"], plane["paths"]["planted: 2 modules"]
    assert np.abs(one[1]).max() < 0.05
    assert two[1][-1] > 0.3
    for panels in (modularity_plots.null_panels(found), modularity_plots.claim_panels(planted)):
        for panel in panels.values():
            figures.null_histogram(axes[0], **panel)
