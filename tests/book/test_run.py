"""`raretok run`: a reader's model, measured, run page by page, and shown as a site of its own."""

import contextlib
import errno
import html
import io
import json
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from raretok import cli
from raretok.book import pages, rerun
from raretok.book.figcheck import SVG
from raretok.book.site import figures
from raretok.claims.study import Study
from raretok.errors import UserError
from raretok.ledger import over_models
from raretok.ledger.figures import primary
from raretok.ledger.records import as_records, book_ledger
from raretok.ledger.tables import ours
from raretok.measure import find, parameters, source
from raretok.measure.find import LEAD, TRAINED, Measurements
from raretok.measure.parameters import PageParameters
from raretok.paths import runs_folder
from tests.recorded import finding, write_page
from tests.tiny import write_model

ROOT = Path(__file__).parents[2]


def toy(folder: Path, name: str, text: str) -> Path:
    page = folder / "notebooks" / f"{name}.py"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text)
    return page


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_page_that_stops_ends_no_other(tmp_path, jobs):
    texts = {"01_toy": "# %%\n{}['rare']", "02_toy": "# %%\n1", "08_ledger": "# %%\nraise OSError"}
    sources, done = [toy(tmp_path, *one) for one in texts.items()], []
    failures = pages.run_pages(sources, tmp_path / "mine", {}, done.append, jobs)
    assert [file.name for file in done] == ["02_toy.ipynb", "ledger.json"]
    assert sorted(map(str, failures)) == [
        "page 01_toy stopped in cell 1: KeyError: 'rare'",
        "page 08_ledger stopped in cell 1: OSError",
    ]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A tiny model on texts, run on two pages and one that stops: stderr, folder, errors."""
    folder, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    letters = np.array([chr(c) for c in range(33, 127)])
    p = 1 / np.arange(1, letters.size + 1)
    rows = [{"text": "".join(rng.choice(letters, 400, p=p / p.sum()))} for _ in range(24)]
    (folder / "my texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = write_model(folder / "tiny-llama", "llama", d_mlp=640)
    asked = PageParameters(
        model=str(model), corpus=str(folder / "my texts.jsonl"), n_ctx=32, n_positions=60
    )
    sources = [pages.page_named(ROOT, name) for name in ("spectra", "ledger")]
    sources += [toy(folder, "09_toy", "# %%\n{}['<b>']")]
    with pytest.MonkeyPatch.context() as patch:
        for module in (find, source):
            patch.setattr(module, "RUNS", folder / "runs")
        patch.setattr("raretok.ablation.store.RUNS", folder / "runs")
        patch.setenv("RARETOK_RUNS", str(folder / "runs"))
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            failures = rerun.rerun(asked, sources, folder / "mine", site=True)
    return errors.getvalue(), folder / "mine", failures


def article(folder: Path, page: str) -> str:
    text = (folder / "_build" / "html" / "book" / f"{page}.html").read_text()
    return text[text.index("<article") : text.index("</article>")]


def test_a_run_ends_with_a_site_of_its_own(own):
    said, folder, failures = own
    assert re.search(
        r"effects: stratified +\d.*pages +\d.*in all +\d.* GB of disk", said, re.DOTALL
    )
    assert "instead of 1600: intervals are about 5.2 times as wide" in said
    assert [str(one) for one in failures] == ["page 09_toy stopped in cell 1: KeyError: '<b>'"]
    assert [file.name for file in (folder / "_build").iterdir()] == ["html"]
    words = " ".join(re.sub(r"<[^>]+>", "", article(folder, "intro")).split())
    (line,) = (e for e in primary(book_ledger(folder)) if e.finding.reading == "corrected")
    for said in (
        "tiny-llama on my texts",
        "640 neurons in the last MLP",
        "n_positions=60",
        f"{line.verdict.capitalize()}: S1, correlated weights",
        f"corrected {ours(line.finding)} {line.spec.unit}",
        "page 09_toy stopped in cell 1: KeyError: '<b>'",
    ):
        assert said in html.unescape(words)
    assert (folder / "_build" / "html" / "index.html").is_file()


def test_its_links_lead_to_pages_that_are_there_and_no_file_names_the_machine(own):
    _, folder, _ = own
    site = folder / "_build" / "html" / "book"
    names = {file.stem for file in site.glob("*.html")}
    assert names == {"intro", "method", "05_spectra", "08_ledger"}
    for name in names:
        text = (site / f"{name}.html").read_text()
        assert str(folder.parent) not in text
        for target in re.findall(r'href="(\w+)\.html', article(folder, name)):
            assert target in names
    assert "SmolLM2" not in article(folder, "05_spectra")


def test_it_has_cards_where_these_were_measured(own, monkeypatch):
    _, folder, _ = own
    for module in (find, source):
        monkeypatch.setattr(module, "RUNS", folder.parent / "runs")
    model, texts = folder.parent / "tiny-llama", folder.parent / "my texts.jsonl"
    asked = PageParameters(model=str(model), corpus=str(texts), n_ctx=32, n_positions=60)
    neurons = Study(asked).part("cards").neuron.values.astype(int)
    seen = {}

    def built(root: Path, out: Path, *, whole: bool) -> Path:
        seen["toc"] = (root / "_toc.yml").read_text()
        found = (root / "book" / "_generated" / "cards").iterdir()
        return seen.update({file.name: file.read_text() for file in found}) or root

    monkeypatch.setattr(rerun, "build_site", built)
    rerun.build(Study(asked), folder, [])
    assert "file: book/cards" in seen.pop("toc")
    assert seen.keys() == {f"tiny-llama-{neuron}.md" for neuron in neurons}
    for text in seen.values():
        assert "<td>total</td>" in text
        assert "<td>direct</td>" not in text  # no page that was run needed it


def test_its_ledger_stands_beside_the_models_that_ship(own):
    _, folder, _ = own
    ours, *others = over_models.names(over_models.beside(folder)[0]).values()
    assert ours == "tiny-llama (this run)"
    assert others[0] == "SmolLM2"
    assert others[-1] == "docs-gpt2-untrained"
    assert len(others) == 2 + len(TRAINED)
    picture = dict(figures(folder / "08_ledger.ipynb"))["fig-beside"][SVG]
    shown = [f.read_text().strip() for f in (folder / "_build/html/_images").glob("*.svg")]
    assert picture.strip() in shown
    models = {one["model"] for one in json.loads((folder / "ledger.json").read_text())}
    assert models == {"tiny-llama"}


def test_a_model_that_ships_is_told_from_the_same_one_measured_otherwise(tmp_path):
    shipped = finding("R1", model=LEAD, measurement=Measurements(PageParameters()).name)
    write_page(tmp_path / "book", "01_regimes", [shipped])
    runs = as_records([finding("R1", model=name) for name in TRAINED])
    write_page(tmp_path / "book", "11_replication", [], replicates=runs)
    again = finding("R1", model="docs-gpt2", measurement="docs-gpt2/1")
    write_page(tmp_path / "mine", "01_regimes", [again])
    (one,), said = over_models.beside(tmp_path / "mine", tmp_path / "book")
    assert [e.finding.model for e in one.outside] == ["docs-gpt2 (this run)", LEAD]
    assert [e.finding.model for e in one.runs] == list(TRAINED)
    assert said == ""
    (same,), _ = over_models.beside(tmp_path / "book", tmp_path / "book")
    assert [e.finding.model for e in same.outside] == [LEAD]


def test_a_book_that_cannot_be_read_is_left_out_with_a_sentence(tmp_path):
    write_page(tmp_path / "mine", "01_regimes", [finding("R1", model="m", measurement="m/1")])
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "01_regimes.ipynb").write_text("dear")
    (one,), said = over_models.beside(tmp_path / "mine", tmp_path / "book")
    assert [e.finding.model for e in one.outside] == ["m (this run)"]
    assert said.startswith("The models that ship are left out: 01_regimes.ipynb is no executed")


class Unmeasured(Study):
    """A study of which some pages cannot be measured."""

    def __init__(self, **errors: Exception):
        super().__init__(PageParameters())
        self.errors = errors

    def prepare(self, names: list[str]) -> None:
        for name in names:
            if name in self.errors:
                raise self.errors[name]


def test_what_cannot_be_measured_stops_the_pages_that_need_it_and_no_other():
    sources = [pages.page_named(ROOT, name) for name in ("spectra", "attention", "claims")]
    stopped = rerun.measured(Unmeasured(attention=KeyError("blocks.0")), sources)
    assert {page.stem: str(why) for page, why in stopped.items()} == {
        "04_attention": "page 04_attention was not run: KeyError: 'blocks.0'"
    }
    broken = UserError("weights are no numbers")
    with pytest.raises(UserError, match=r"^weights are no numbers$"):
        rerun.measured(Unmeasured(attention=broken, spectra=broken), sources)


def test_a_folder_is_named_by_model_text_and_what_was_changed(tmp_path):
    model = write_model(tmp_path / "tiny-llama", "llama")
    (tmp_path / "texts.jsonl").write_text("")
    asked = PageParameters(model=str(model), corpus=str(tmp_path / "texts.jsonl"))
    name = rerun.name_of(asked)
    assert re.fullmatch(r"tiny-llama-texts-[0-9a-f]{8}", name)
    assert rerun.name_of(asked.model_copy(update={"seed": 0})) == name
    spaced = asked.model_copy(update={"corpus": "my own/böse texts.jsonl"})
    assert re.fullmatch(r"tiny-llama-böse-texts-[0-9a-f]{8}", rerun.name_of(spaced))
    assert rerun.name_of(asked.model_copy(update={"seed": 1})) != name
    hub = PageParameters(model="EleutherAI/pythia-70m", revision="step8", corpus="allenai/c4:en")
    assert rerun.name_of(hub).startswith("pythia-70m-step8-c4-en-")


@pytest.mark.parametrize("name", parameters.PROFILES)
def test_a_profile_is_a_set_of_values_that_a_page_takes(name):
    asked = parameters.validated(parameters.PROFILES[name])
    assert asked.model_dump(include=set(parameters.PROFILES[name])) == parameters.PROFILES[name]
    assert asked.model == PageParameters().model


def test_a_quick_run_says_what_it_costs_in_width():
    assert parameters.width_words(PageParameters()) == []
    (said,) = parameters.width_words(PageParameters(**parameters.PROFILES["quick"]))
    assert said.endswith("intervals are about 2.0 times as wide")


def started(words: list[str], monkeypatch) -> dict:
    """What a command would run, without running it."""
    asked: dict = {}

    def kept(given, sources, folder, **more) -> list:
        asked.update(given=given, sources=sources, folder=folder, more=more)
        return []

    monkeypatch.setattr(rerun, "rerun", kept)
    monkeypatch.setattr(sys, "argv", ["raretok", "run", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return asked | {"code": stopped.value.code}


def test_flags_and_p_go_before_the_profile(tmp_path, monkeypatch):
    words = ["1", "--profile", "quick", "-p", "seed=3", "--out", tmp_path, "--no-site"]
    asked = started(words, monkeypatch)
    assert (asked["given"].n_positions, asked["given"].seed) == (400, 3)
    assert asked["more"] == {"jobs": 1, "site": False}
    assert started([*words, "-p", "n_positions=90"], monkeypatch)["given"].n_positions == 90


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "letters.txt/x"], "cannot write to "),
        (["--profile", "slow"], "'slow' is not one of 'quick', 'full', 'paper'"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_measured(
    tmp_path, words, message, monkeypatch, capsys
):
    (tmp_path / "letters.txt").write_text("dear")
    monkeypatch.chdir(tmp_path)
    assert started(["7", *words], monkeypatch) == {"code": 2}
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_where_the_project_cannot_be_written_to_runs_are_kept_below_the_cache(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("RARETOK_RUNS", raising=False)
    assert runs_folder(tmp_path) == tmp_path / "runs"
    monkeypatch.setattr("os.access", lambda *_: False)
    assert runs_folder(tmp_path).parts[-2:] == ("raretok", "runs")
    monkeypatch.setenv("RARETOK_RUNS", str(tmp_path / "mine"))
    assert runs_folder(tmp_path) == tmp_path / "mine"


def test_no_room_for_temporary_files_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))
    page = toy(tmp_path, "01_toy", "# %%\n1")
    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    with pytest.raises(UserError, match=r"^the disk of .*full is full: .*make room and run"):
        pages.run_page(page, tmp_path / "01_toy.ipynb", {})


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_history_that_ships_is_read_whatever_text_a_run_is_on():
    asked = PageParameters(corpus="mine.jsonl")
    assert Study(asked).checkpoint("step64").parameters.corpus == "docs"
    own = asked.model_copy(update={"revisions": "step64"})
    assert Study(own).checkpoint("step64").parameters.corpus == "mine.jsonl"
