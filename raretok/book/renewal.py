"""What `raretok measure` and `raretok calibrate` do: make, check or renew what ships."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from raretok.book import status
from raretok.book.rerun import foretell
from raretok.claims.study import BEYOND, NEEDS, ON_TEXT, REPLICATED, STEPS, UNSEEN, Study
from raretok.errors import UserError, say
from raretok.ledger.calibration import Ground
from raretok.ledger.calibration import calibrate as calibrate_worlds
from raretok.ledger.claims import CLAIMS
from raretok.ledger.promise import SHIPPED as CALIBRATED
from raretok.measure import find
from raretok.measure.parameters import PageParameters
from raretok.measure.record import Folder
from raretok.models import files as model_files
from raretok.paths import ROOT, RUNS, file_sha256, replace_folder, seal_of, write_json
from raretok.text.shelf import shelved

TOKENS = ("tokens",)  # of every model in the atlas
ALL = (*dict.fromkeys(name for names in NEEDS.values() for name in names), *TOKENS, "cards")


def shipped() -> list[PageParameters]:
    """What is measured of models that ship: the lead model, training runs, checkpoints."""
    models = [PageParameters(model=name) for name in (find.LEAD, *find.TRAINED, find.UNTRAINED)]
    steps = [
        find.step_parameters(find.HISTORY, revision) for revision in find.revisions_of(find.HISTORY)
    ]
    texts = [PageParameters(model=name, corpus=text) for name in find.DEEP for text in shelved()]
    return [*models, PageParameters(model=find.WITHOUT), *steps, *texts]


def parts_to_ship(parameters: PageParameters) -> tuple[str, ...]:
    """The parts that ship of a model, a checkpoint of one, or a model on another text."""
    model = parameters.model
    if parameters.revision:
        return STEPS
    if parameters.corpus in shelved():
        return ON_TEXT
    if model == find.WITHOUT:
        return UNSEEN
    if model == find.UNTRAINED:
        return (*STEPS, *TOKENS)
    if model in find.WHOLE:
        return (*ALL, *(UNSEEN if model != find.LEAD else ()))
    return (*REPLICATED, *(BEYOND if model in find.DEEP else ()), *TOKENS)


def measure(
    parameters: PageParameters, parts: Iterable[str] = (), *, ship: bool, again: bool = False
) -> Folder:
    """Measure parts of a model, those of the pages unless some are named; what holds them.

    To `ship` them they are measured under `runs/`, where a killed process goes on, and put where
    measurements ship when they are whole. What ships already is kept, unless measured `again`.
    """
    asked = find.Measurements(parameters, shipped=None if ship else find.SHIPPED, loud=True)
    if ship and not again:
        asked.kept.take_over(Folder(find.SHIPPED / asked.label), asked.key)
    parts = tuple(parts) or (parts_to_ship(parameters) if ship else ALL)
    beside = parts in (ON_TEXT, UNSEEN)  # read beside a measurement that has the weights
    parts = parts if beside else ("model", *parts)
    foretell(asked, {"": parts})
    Study(parameters, asked).measure(parts)
    return publish(asked) if ship else asked.ready or asked.kept


def renew(device: str) -> None:
    """Measure again every part of every measurement that ships and whose weights are there."""
    for parameters in (one.model_copy(update={"device": device}) for one in shipped()):
        label = find.Measurements(parameters).label
        try:
            parts = Folder(find.SHIPPED / label).record()["parts"]
            measure(parameters, parts, ship=True, again=True)
        except UserError as error:
            say(f"raretok: {label} stays as it is: {error}")


def count_train(parameters: PageParameters) -> Path:
    """Count the train part of docs in a model's tokens, beside what ships of the model."""
    from raretok.measure.source import Source
    from raretok.text.corpus import count_tokens, load_corpus, token_ids

    folder = model_files.shipped_folder(parameters.model)
    if folder is None:
        raise UserError(f"{parameters.model} does not ship: give counts as -p unigram=FILE.npy")
    model = Source(parameters).model
    texts = [document.text for document in load_corpus("docs", part="train").documents]
    counts = count_tokens(token_ids(texts, model.tokenizer, marks=True), model.architecture.d_vocab)
    np.save(file := folder / model_files.COUNTS_FILE, counts.astype(np.int32))
    return file.relative_to(ROOT)


def publish(asked: find.Measurements) -> Folder:
    """Put a finished measurement where measurements ship, in place of the one there."""
    home = find.SHIPPED / asked.label
    draft = home.with_name(f".{asked.label}")
    shutil.rmtree(draft, ignore_errors=True)
    ignored = shutil.ignore_patterns("locks", "*.partial")
    shutil.copytree(asked.kept.path, draft, ignore=ignored)
    replace_folder(draft, home)
    shutil.rmtree(asked.kept.path, ignore_errors=True)
    return Folder(home)


def check(every: Iterable[PageParameters]) -> bool:
    """Measure a sample again, a line a quantity; whether all of it is what is stored."""
    from raretok.measure.check import check as differences  # needs torch

    wrong = 0
    for asked in map(find.Measurements, every):
        say(f"checking the measurement of {asked.label}")
        passed = []
        for found in differences(asked):
            print(found.line)
            passed.append(found.passed)
        agree = f"{sum(passed)} of {len(passed)} quantities agree"
        status.note(ROOT / "book", status.CHECKS, {asked.label: agree})
        wrong += passed.count(False)
    if wrong:
        say(
            f"raretok: {wrong} quantities are not what this machine measures: see the lines marked "
            "DIFFERS; raretok measure --all renews what ships"
        )
    return wrong == 0


def calibrate(parameters: PageParameters, runs: int, jobs: int) -> Path:
    """Run the planted worlds of a model and write their verdicts where the pages read them.

    Finished worlds stay under `runs/`; a killed calibration goes on there.
    """
    study = Study(parameters, find.Measurements(parameters, loud=True))
    study.prepare(NEEDS)
    ground = Ground(
        study.sample("corrected", heads=True),
        study.heads("corrected"),
        study.rows("corrected"),
        study.layers,
    )
    key = seal_of({"measurement": study.measurements.key, "code": calibration_code()})[:12]
    rows = calibrate_worlds(ground, runs, RUNS / f"calibration-{key}", jobs)
    file = CALIBRATED / f"{study.measurements.label}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"measurement": study.measurements.name, "rows": rows})
    return file


def calibration_code() -> str:
    """One sha256 over the sources that decide a verdict: kept runs of other code are not used."""
    package, shown = ROOT / "raretok", ("figures.py", "tables.py", "style.py")
    files = [f for room in ("claims", "stats", "ledger") for f in (package / room).rglob("*.py")]
    deciding = [CLAIMS, *(file for file in files if file.name not in shown)]
    return seal_of({str(file.relative_to(ROOT)): file_sha256(file) for file in deciding})
