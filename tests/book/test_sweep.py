"""A sweep on a tiny model: every cell is a row, what is done is kept, bad files are one line."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raretok import cli
from raretok.ablation import distributed, store, stream
from raretok.book import grid, sweep
from raretok.errors import UserError
from raretok.measure import find, source
from tests.tiny import write_model

GRID = """
models: [{model}]
corpora: [{texts}, {texts}.missing.txt]
pages: [spectra]
parameters:
  n_ctx: 32
  n_positions: [520]
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """A folder with a model and texts, where runs are kept too."""
    folder = tmp_path_factory.mktemp("sweep")
    write_model(folder / "tiny", "llama", d_mlp=320, n_layers=1)
    rng = np.random.default_rng(0)
    letters = np.array([chr(c) for c in range(33, 127)])
    p = 1 / np.arange(1, letters.size + 1)
    rows = [{"text": "".join(rng.choice(letters, 400, p=p / p.sum()))} for _ in range(40)]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    paths = {"model": folder / "tiny", "texts": folder / "texts.jsonl"}
    (folder / "grid.yaml").write_text(GRID.format(**paths))
    with pytest.MonkeyPatch.context() as patch:
        for module in (find, source, store, distributed, grid):
            patch.setattr(module, "RUNS", folder / "runs")
        patch.setenv("RARETOK_RUNS", str(folder / "runs"))
        yield folder


def swept(here: Path, capsys) -> tuple[int, str]:
    """Exit status and stderr of the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["raretok", "sweep", str(here / "grid.yaml")])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return ended.value.code, capsys.readouterr().err


def test_every_cell_is_a_row_and_nothing_finished_is_done_again(here, capsys, monkeypatch):
    status, said = swept(here, capsys)
    folder = here / "runs" / "grid"
    assert status == 1
    assert "Dask's dashboard is http://127.0.0.1:" in said
    assert said.count("\nraretok: ") == 1
    rows = pd.read_csv(folder / "summary.csv")
    assert list(rows.state) == ["done", "failed"]
    assert "texts.jsonl.missing.txt" in rows.reason[1]
    assert rows.seconds[0] > 0
    assert rows["S1 verdict"].notna().tolist() == [True, False]
    assert rows["S1 low"][0] <= rows["S1 value"][0] <= rows["S1 high"][0]
    page = (folder / "summary.html").read_text()
    assert page.count("<tr>") == 2
    assert "data:image/svg+xml" in page
    journal = (folder / "tasks.jsonl").read_text().splitlines()
    done = [json.loads(line)["task"] for line in journal]
    assert len(done) == len(set(done))
    assert sum("stratified, run 0, positions" in task for task in done) == 2  # blocks
    monkeypatch.setattr(stream, "apply_method", None)
    monkeypatch.setattr(sweep, "run_page", None)
    with (folder / "tasks.jsonl").open("a") as torn:
        torn.write('{"task"')
    assert swept(here, capsys)[0] == 1
    assert (folder / "tasks.jsonl").read_text().splitlines()[:-1] == journal
    assert pd.read_csv(folder / "summary.csv").equals(rows)


def test_a_page_is_finished_in_the_words_it_has_now_alone(here, tmp_path):
    page = sorted((here / "runs" / "grid").glob("*/05_spectra.ipynb"))[0]
    source = tmp_path / "05_spectra.py"
    words = (grid.ROOT / "notebooks" / "05_spectra.py").read_text()
    source.write_text(words)
    assert sweep.finished(source, page)
    source.write_text(words + "\n# %%\n1 + 1\n")
    assert not sweep.finished(source, page)
    assert not sweep.finished(source, tmp_path / "none.ipynb")


BAD = {
    "models: [a]\nmodel: b": "bad.yaml: unknown key 'model', a sweep has name, models, ",
    "models: a": "bad.yaml: models: input should be a valid list, got 'a'",
    "models: []": "bad.yaml: models: list should have at least 1 item",
    "corpora: [docs]": "bad.yaml: models: field required",
    "models: [docs-gpt2]\nparameters: {seed: []}": "the sweep has no cells: the list seed is empty",
    "models: [docs-gpt2, docs-gpt2]": "two cells of the sweep are the same: model=docs-gpt2, ",
    "models: [docs-gpt2]\nparameters: {n_pos: 3}": "unknown parameter 'n_pos': a page takes",
    "models: [docs-gpt2]\nparameters: {n_ctx: 4}": "parameter n_ctx: ",
    "models: [docs-gpt2]\nparameters: {corpus: a}": "parameter corpus: write it in the list",
    "models: [docs-gpt2]\npages: [nothing]": "there is no page 'nothing'",
    "models: [docs-gpt2]\npages: [ledger]": "page ledger is not of one model: a sweep runs",
    "name: ../up\nmodels: [docs-gpt2]": "bad.yaml: name: string should match pattern",
    "models: [docs-gpt2": "bad.yaml is not YAML in line 1",
    "- docs-gpt2": "bad.yaml: write names and lists, such as models:",
    "": "bad.yaml: write names and lists, such as models:",
    "models: [docs-gpt2]\nparameters: {n_ctx: {a: 1}}": "parameter n_ctx: ",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_file_is_one_line(text, tmp_path):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=re.escape(BAD[text])) as refused:
        grid.planned(tmp_path / "bad.yaml", tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_files_and_folders_that_cannot_be_used_are_one_line(tmp_path):
    file = tmp_path / "s.yaml"
    with pytest.raises(UserError, match=r"^cannot read s.yaml: no such file or directory$"):
        grid.planned(file)
    file.write_bytes(b"models: [\xff]")
    with pytest.raises(UserError, match=r"^cannot read s.yaml: it is not UTF-8$"):
        grid.planned(file)
    file.write_text("models: [docs-gpt2]")
    with pytest.raises(UserError, match="is not the folder of a sweep"):
        grid.planned(file, tmp_path)
    with pytest.raises(UserError, match="cannot write to"):
        grid.planned(file, file / "below")
