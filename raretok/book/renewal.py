"""What `raretok measure` and `raretok calibrate` do: make, check or renew what ships."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

from raretok.book.pages import write_whole
from raretok.ledger.calibration import Ground
from raretok.ledger.calibration import calibrate as calibrate_worlds
from raretok.ledger.promise import SHIPPED as CALIBRATED
from raretok.paths import DATA, ROOT, RUNS
from raretok.measure.find import SHIPPED, Measurements
from raretok.measure.record import RECORD, Folder, file_name, seal_of
from raretok.measure.parameters import PageParameters
from raretok.claims.study import NEEDS, Study


def shipped_models() -> list[str]:
    """Models whose measurements ship."""
    found = sorted(path.name for path in SHIPPED.glob("*") if (path / RECORD).is_file())
    return [name for name in found if not name.endswith("-untrained")]


def measure(parameters: PageParameters, *, renew: bool = False) -> list[Folder]:
    """Measure what pages need of a model and its twin; the folders that hold it.

    A measurement that ships is left alone unless it is to be renewed: then it is measured under
    `runs/`, where a killed process goes on, and put in its place when it is whole.
    """
    asked = Measurements(parameters, shipped=None if renew else SHIPPED, loud=True)
    say(foretold(asked))
    Study(parameters, asked).prepare(NEEDS)
    both = [asked, asked.twin]
    if renew and asked.should_ship:
        return [publish(one) for one in both]
    return [one.ready or one.kept for one in both]


def foretold(asked: Measurements) -> str:
    """How long it took when it was measured last."""
    folders = [Folder(SHIPPED / one.label) for one in (asked, asked.twin)]
    parts = [p for one in folders if one.there for p in one.record()["parts"].values()]
    if not parts:
        return f"measuring what pages need of {asked.label}: minutes for a small model"
    minutes = sum(part["made"]["seconds"] for part in parts) / 60
    return (
        f"measuring what pages need of {asked.label}: it took {minutes:.0f} minutes on "
        f"{parts[0]['made']['processor']} with {parts[0]['made']['threads']} threads"
    )


def publish(asked: Measurements) -> Folder:
    """Put a finished measurement where measurements ship, in place of the one there."""
    home, draft = SHIPPED / asked.label, SHIPPED / f".{asked.label}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for name in (RECORD, *map(file_name, asked.kept.record()["parts"])):
        shutil.copyfile(asked.kept.path / name, draft / name)
    before = SHIPPED / f".{asked.label}-before"
    shutil.rmtree(before, ignore_errors=True)
    if home.exists():
        os.replace(home, before)
    os.replace(draft, home)
    shutil.rmtree(before, ignore_errors=True)
    shutil.rmtree(asked.kept.path)
    return Folder(home)


def check(parameters: PageParameters) -> bool:
    """Measure a sample again, a line a quantity; whether all of it is what is stored."""
    from raretok.measure.check import check as differences  # needs torch

    asked, wrong = Measurements(parameters), 0
    for one in (asked, asked.twin):
        say(f"checking the measurement of {one.label}")
        for found in differences(one):
            print(found.line)
            wrong += not found.passed
    if wrong:
        say(
            f"raretok: {wrong} quantities of the measurement of {asked.label} are not what this "
            "machine measures: see the lines marked DIFFERS; raretok measure --all renews it"
        )
    return wrong == 0


def calibrate(parameters: PageParameters, runs: int, jobs: int) -> Path:
    """Run the planted worlds of a model and write their verdicts where the pages read them.

    Finished worlds stay under `runs/`; a killed calibration goes on there.
    """
    study = Study(parameters, Measurements(parameters, loud=True))
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
    text = json.dumps({"measurement": study.measurements.name, "rows": rows}, indent=1)
    write_whole(file, text)
    return file


def calibration_code() -> str:
    """One sha256 over the sources that decide a verdict: kept runs of other code are not used."""
    package = ROOT / "raretok"
    files = [f for room in ("claims", "stats", "ledger") for f in (package / room).rglob("*.py")]
    total = hashlib.sha256((DATA / "claims.yaml").read_bytes())
    for file in sorted(files):
        if file.name not in ("figures.py", "tables.py", "style.py"):
            total.update(file.read_bytes())
    return total.hexdigest()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
