"""What `raretok measure` does: measure what pages need, check it, or renew what ships."""

import os
import shutil
import sys

from raretok.measure.find import SHIPPED, Measurements
from raretok.measure.record import RECORD, Folder, file_name
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


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
