"""Page parameters: one source for the cell, the flags, the table and the checks."""

from pathlib import Path

import jupytext
import pytest

from raretok.book.pages import with_parameters
from raretok.claims.study import NEEDS, Study
from raretok.errors import UserError
from raretok.measure.parameters import (
    PageParameters,
    parameter_cell,
    parameter_table,
    resolved,
    validated,
)

ROOT = Path(__file__).parents[2]


def test_pages_of_claims_have_a_parameters_cell_that_is_filled_in_and_the_others_none():
    found = {}
    for page in sorted((ROOT / "notebooks").glob("*.py")):
        cells = with_parameters(jupytext.read(page)).cells
        sources = [c.source for c in cells if "parameters" in c.metadata.get("tags", [])]
        found[page.stem[3:]] = sources
    given = {*NEEDS, "replication"}
    assert {name for name, sources in found.items() if sources == [parameter_cell()]} == given
    assert all(sources == [] for name, sources in found.items() if name not in given)


def test_the_cell_holds_the_defaults():
    namespace = {}
    exec(parameter_cell(), namespace)
    assert Study.of(namespace).parameters == PageParameters()


def test_the_table_names_every_parameter_and_its_default():
    table = parameter_table()
    for name, field in PageParameters.model_fields.items():
        assert f"| `{name}` | `{field.default!r}` | {field.description} |" in table


def test_text_from_a_command_line_is_converted():
    assert validated({"n_positions": "300", "rare_percentile": "10"}) == PageParameters(
        n_positions=300, rare_percentile=10.0
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_position": 1}, "unknown parameter 'n_position': a page takes model, revision"),
        ({"n_positions": "many"}, "parameter n_positions: .*valid integer.*got 'many'"),
        ({"rare_percentile": 60}, "parameter rare_percentile: .*less than 50, got 60"),
        ({"protocol": "both"}, "parameter protocol: .*'code', 'text' or 'corrected', got 'both'"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(values, message):
    with pytest.raises(UserError, match=message) as caught:
        validated(values)
    assert "\n" not in str(caught.value)


def test_local_paths_become_absolute_and_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "mine").mkdir()
    given = {"model": "mine@untrained", "corpus": "docs", "unigram": ""}
    done = resolved(given)
    assert done == {**given, "model": f"{tmp_path / 'mine'}@untrained"}
    assert resolved({"model": "docs-gpt2"}) == {"model": "docs-gpt2"}


def test_random_numbers_depend_on_seed_and_purpose_alone():
    first, second = Study(PageParameters()), Study(PageParameters())
    first.rng("something else").random()
    assert first.rng("a").random() == second.rng("a").random()
    assert first.rng("a").random() != first.rng("b").random()
    assert first.rng("a").random() != Study(PageParameters(seed=1)).rng("a").random()
