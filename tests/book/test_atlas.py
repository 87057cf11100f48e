"""The tables of neurons and the atlas's data, against loops over the measurement."""

import gzip
import json
from functools import cache

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.stats import t as student

from raretok.book import atlas
from raretok.book.atlas import NeuronTable
from raretok.book.cards import card_link, carded, seen
from raretok.claims.study import Study
from raretok.ledger.over_models import NAMES
from raretok.measure.find import WITHOUT
from raretok.measure.neurons import COLUMNS, MEASURED
from raretok.stats.jackknife import deal
from raretok.text.rarity import COMMON, RARE

MODEL = "docs-gpt2"
ENDS = ("", "_low", "_high")


@pytest.fixture(scope="module")
def table() -> NeuronTable:
    return NeuronTable(MODEL, Study.shipped(MODEL))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What the build writes for two models, of which one has no measurement of its own."""
    book = tmp_path_factory.mktemp("book")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atlas, "NAMES", {MODEL: "gpt2", WITHOUT: "not measured"})
        atlas.write_atlas(book)
    return book / "_generated"


@cache
def expected(study: Study) -> dict[str, np.ndarray]:
    """Every numeric column, computed from the parts of the measurement in another way."""
    effects, model = study.part("effects: stratified"), study.part("model")
    delta, post, weight = (effects[n].values for n in ("delta_loss", "post", "weight"))
    classes = {"rare": effects.stratum == RARE, "common": effects.stratum == COMMON}
    classes |= {"all": effects.stratum > -1, "middle": effects.stratum == 0}
    labels = effects.document.values, weight
    found = {}
    for name, rows in classes.items():
        of = jackknifed(delta, *labels, rows.values)
        found |= {f"delta_loss_{name}{end}": v for end, v in zip(ENDS, of, strict=True)}
    share = weight / weight.sum()
    mean = np.einsum("p,pn->n", share, post)
    found["activation_mean"] = effects.mean_post.values
    found["activation_sd"] = np.sqrt(np.einsum("p,pn->n", share, (post - mean) ** 2))
    found["firing_rate"] = np.einsum("p,pn->n", share, post > 0)
    found["sampling_error"] = effects.sampling_error.values
    found |= {
        f"{n}_norm": np.sqrt(np.square(model[n].values).sum(axis=1)) for n in ("W_in", "W_out")
    }
    found |= direct(study.part("interventions"))
    order = np.argsort(-found["delta_loss_rare"], kind="stable")
    found["rank"] = np.argsort(order) + 1
    found["neuron"] = np.arange(order.size)
    found["in_head"] = np.isin(found["neuron"], order[: round(order.size / 100)])
    return found | by_frequency(effects, model.counts.values, model.counted.size)


def jackknifed(delta, document, weight, rows):
    """Mean over some positions, and the ends of its interval: blocks are left out one by one."""
    block = deal(document, rng=np.random.default_rng([0, *b"table of neurons"])).of(document)
    kept = [rows, *(rows & (block != b) for b in range(16))]
    means = np.array([np.average(delta[one], axis=0, weights=weight[one]) for one in kept])
    sd = np.sqrt(15 / 16 * np.square(means[1:] - means[1:].mean(axis=0)).sum(axis=0))
    reach = student.ppf(0.975, 15) * sd
    return means[0], means[0] - reach, means[0] + reach


def direct(part):
    found = {}
    at, weight = part.interventions.index("direct"), part.weight.values
    mean = part.delta_loss.values[at] / weight[:, None]
    for name, stratum in (("rare", RARE), ("common", COMMON)):
        rows = part.cell_stratum.values == stratum
        of = jackknifed(mean, part.cell_document.values, weight, rows)
        found |= {f"direct_{name}{end}": v for end, v in zip(ENDS, of, strict=True)}
    return found


def by_frequency(effects, counts, n_types):
    """Positions in order of the frequency of their target: no type in two bins."""
    u, found, number = counts[:n_types] + 1.0, {}, 0
    frequency = u[effects.target.values]
    for rows, n in ((effects.stratum == RARE, 4), (effects.stratum != RARE, 6)):
        values = np.sort(frequency[rows.values])
        low = -np.inf
        for k in range(1, n + 1):
            high = values[int(np.floor((values.size - 1) * k / n))]
            mine = rows.values & (frequency > low) & (frequency <= high)
            low, number = high, number + 1
            of = np.average(effects.delta_loss[mine], axis=0, weights=effects.weight[mine])
            found[f"delta_loss_bin_{number}"] = of
    return found


def differing(frame: dict[str, np.ndarray], study: Study, digits: int) -> set[str]:
    """Columns that are not what the measurement says, to so many significant digits."""
    close = {"rtol": 0.6 * 10.0 ** (1 - digits), "atol": 1e-12}
    true = expected(study)
    return {
        name
        for name, values in frame.items()
        if name in true and not np.allclose(np.array(values, float), true[name], **close)
    }


def numeric(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    return {name: frame[name].to_numpy() for name in frame if name not in atlas.TOKENS}


def test_every_number_of_a_table_is_what_loops_give(table):
    found = numeric(table.frame)
    assert differing(found, table.study, atlas.DIGITS) == set()
    assert set(found) == set(expected(table.study)) | {"head_share"}
    assert list(table.frame) == [name for name in atlas.COLUMNS_OF_TABLE if name in table.frame]
    assert set(atlas.COLUMNS_OF_TABLE) == set(COLUMNS) | set(MEASURED)
    assert table.frame.in_head.sum() == 10
    groups = table.study.sample("corrected").groups[0]
    shares = [np.mean([neuron in half for half in groups]) for neuron in (875, 149, 3)]
    np.testing.assert_allclose(table.frame.head_share[[875, 149, 3]], shares)
    assert table.frame.head_share[875] == 1


def test_a_change_of_2_percent_in_any_column_is_seen(table):
    """In the page's data and in the table; 0 and whole ones (index, rank, head) are moved by 1."""
    page, whole = columns_of(table.page_data()), numeric(table.frame)
    for data, digits, n in ((page, atlas.SHOWN_DIGITS, 26), (whole, atlas.DIGITS, 37)):
        found, known = set(), [name for name in data if name in expected(table.study)]
        assert differing(data, table.study, digits) == set()
        for name in known:
            values = np.array(data[name], float)
            planted = 1.02 * values if name not in ("neuron", "rank", "in_head") else values[::-1]
            found |= differing(data | {name: planted}, table.study, digits)
        assert found == set(known)
        assert len(known) == n


def columns_of(data):
    return {n: v for n, v in data["columns"].items() if n not in atlas.TOKENS}


def test_tokens_and_frequencies_are_those_of_the_measurement(table):
    tokens, data = table.study.part("tokens"), table.page_data()
    text = dict(zip(tokens.token.values.tolist(), tokens.texts, strict=True))
    for name in atlas.TOKENS:
        written = [text[i] for i in tokens[name].values[875].tolist()]
        assert table.frame[name][875] == written
        assert data["columns"][name][875] == [seen(one) for one in written]
    assert (np.diff(data["frequency"]) > 0).all()
    model = table.study.part("model")
    u = (model.counts.values + 1) / (model.counts.values + 1).sum() * 1e6
    rarest = u[table.study.part("effects: stratified").target.values[table.bins[0]]]
    assert rarest.min() <= data["frequency"][0] <= rarest.max()


def test_files_hold_the_same_table_and_are_made_again_to_the_byte(written, table, tmp_path):
    file = written / "site" / "downloads" / f"neurons-{MODEL}.parquet"
    read, text = pd.read_parquet(file), pd.read_csv(file.with_suffix(".csv"))
    assert list(read) == list(text) == list(table.frame)
    for name in read:
        if name in atlas.TOKENS:
            assert text[name].map(json.loads).tolist() == read[name].map(list).tolist()
        else:
            np.testing.assert_array_equal(read[name], text[name])
    about = json.loads(pq.read_schema(file).metadata[b"raretok"])
    assert about["measurement"] == table.study.measurements.name
    assert set(about["columns"]) == set(read)
    table.write(tmp_path)
    for again in (tmp_path / file.name, tmp_path / file.with_suffix(".csv").name):
        assert again.read_bytes() == (file.parent / again.name).read_bytes()


def test_a_model_without_a_measurement_is_absent(written, table):
    models = (written / "site" / "atlas" / "models.js").read_text()
    listed = json.loads(models.removeprefix("var ATLAS_MODELS = ").removesuffix(";\n"))
    assert listed == [{"model": MODEL, "name": "gpt2", "neurons": 1024, "head": 10}]
    assert WITHOUT not in " ".join(str(file) for file in written.rglob("*"))
    script = (written / "site" / "atlas" / f"{MODEL}.js").read_text()
    data = json.loads(script.removeprefix("atlasData(").removesuffix(");\n"))
    assert data["cards"] == {str(one): card_link(MODEL, one) for one in carded(table.study)} != {}
    assert len(gzip.compress(script.encode())) < 200_000


def test_without_the_script_the_head_and_its_numbers_are_there(written, table):
    rows = (written / "atlas_head.md").read_text()
    assert rows.count("<tr>") == atlas.FIRST + 1
    first = table.frame.sort_values("rank").iloc[0]
    assert f"<td>{first.neuron}</td>" in rows
    assert f"{first.delta_loss_rare:.3g} ({first.delta_loss_rare_low:.3g} to" in rows
    picture = (written / "atlas.svg").read_text()
    assert picture.startswith("<?xml")
    assert len(picture) < 100_000  # it is shown before the script has loaded
    links = (written / "downloads.md").read_text()
    assert f"../downloads/neurons-{MODEL}.csv" in links


def test_every_model_of_the_forest_plots_is_in_the_atlas():
    assert [one.label for one in atlas.tables()] == list(NAMES)
