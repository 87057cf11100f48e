"""What expert readers asked of the paper, answered with numbers that executed pages recorded."""

import html
import re
from pathlib import Path

import pandas as pd
import yaml

from raretok.claims.style import number
from raretok.errors import UserError
from raretok.ledger.claims import claims
from raretok.ledger.promise import CALIBRATED, calibrated, support
from raretok.ledger.records import book_ledger, recorded, stems, title
from raretok.ledger.tables import ours, page_link, said, tabulate
from raretok.paths import DATA

REVIEWS = DATA / "reviews.yaml"
HAND_WRITTEN = ("method",)  # pages that are there without being run
NAME = re.compile(r"\{([\w. %]+)\}")


def answers(folder: Path, questions: Path = REVIEWS) -> list[dict[str, str]]:
    """Every question with its answer from the executed pages in a folder: a row of the table.

    An answer that needs a value which is not there says "not yet" or "not testable", and why. It
    links to the page where to read on, if that is there.
    """
    asked = yaml.safe_load(questions.read_text())
    values, reasons = known_values(folder)
    named = {given["page"] for given in asked.values() if "page" in given}
    reasons = {name: f"Not yet: {name} was not run." for name in named} | reasons
    there = stems(folder) | {name: name for name in HAND_WRITTEN}
    return [
        {
            "id": name,
            "question": html.escape(given["asks"]),
            "answer": html.escape(answer_text(given["answer"], values, reasons)),
            "read on": page_link(there[page]) if (page := given.get("page")) in there else "",
        }
        for name, given in asked.items()
    ]


def answer_text(template: str, values: dict[str, str], reasons: dict[str, str]) -> str:
    """The template with its values, or why it cannot be filled in.

    Raises `UserError` for a name that no page could ever give.
    """

    for name in NAME.findall(template):
        if name not in values:
            if reason := reasons.get(name) or reasons.get(name.split(".")[0]):
                return reason
            raise UserError(f"data/reviews.yaml asks for {name!r}, which no page or claim gives")
    return NAME.sub(lambda match: values[match[1]], template)


def known_values(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """What answers may name, and for those that are missing (or whole pages) the reason.

    CLAIM.ESTIMAND.ours (or verdict) under `corrected`, CLAIM.ESTIMAND.found (how often this design
    supports it where it is true), ledger.COUNT, PAGE.GLUED.
    """
    entries = book_ledger(folder)
    values = {f"ledger.{name}": text for name, text in said(entries).items()}
    reasons = {
        name: f"Not yet: no executed page records this number of {name}." for name in claims()
    }
    for page in recorded(folder):
        name = title(page.page.stem)
        reasons[name] = f"Not yet: the page {name} records no such number."
        for key, value in page.glued.items():
            values[f"{name}.{key}"] = number(value) if isinstance(value, float) else str(value)
    for entry in (one for one in entries if one.finding.reading == "corrected"):
        name = ".".join(entry.finding.key[:2])
        values[f"{name}.verdict"] = entry.verdict + (f", as {entry.why}" if entry.why else "")
        if entry.finding.estimate:
            values[f"{name}.ours"] = ours(entry.finding)
        reasons[f"{name}.ours"] = f"Not testable here: {entry.why}."
    table = calibrated(CALIBRATED)
    for row in table:
        found = support(table, row["claim"], row["estimand"])
        values[f"{row['claim']}.{row['estimand']}.found"] = f"{100 * found['true']:.0f} %"
    return values, reasons


def answers_table(found: list[dict[str, str]]) -> pd.DataFrame:
    """Questions, answers and links."""
    return tabulate(found, "id")


def counts(found: list[dict[str, str]]) -> dict[str, str]:
    """How many questions there are, are answered, and wait."""
    waiting = sum(one["answer"].startswith("Not ") for one in found)
    return {
        "n_questions": str(len(found)),
        "n_answered": str(len(found) - waiting),
        "n_waiting": str(waiting),
    }
