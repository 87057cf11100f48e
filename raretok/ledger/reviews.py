"""What expert readers asked of the paper, answered with numbers that executed pages recorded."""

import html
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from raretok.errors import UserError
from raretok.ledger.ledger_page import by_claim, link, told
from raretok.ledger.records import Entry, book_ledger, executed_pages, recorded, title
from raretok.ledger.verdicts import number_text, p_text
from raretok.paths import DATA

REVIEWS = DATA / "reviews.yaml"
HAND_WRITTEN = ("method",)  # pages that are there without being run
NAME = re.compile(r"\{([\w.]+)\}")


class UnansweredError(Exception):
    """A value that an answer needs is not there; the message says why."""


@dataclass(frozen=True)
class Answer:
    """A reader's question and what the book says to it."""

    id: str
    asks: str
    text: str
    page: str  # where to read on; empty where there is no such page yet


def answers(folder: Path, questions: Path = REVIEWS) -> list[Answer]:
    """Every question with its answer from the executed pages in a folder.

    An answer that needs a value which is not there says "not yet" or "not testable here", and why.
    """
    asked = yaml.safe_load(questions.read_text())
    values, reasons = known_values(folder)
    named = {title(given["page"]) for given in asked.values() if "page" in given}
    reasons = {name: f"Not yet: {name} was not run." for name in named} | reasons
    there = {page.stem for page in executed_pages(folder)} | set(HAND_WRITTEN)
    found = []
    for name, given in asked.items():
        if "later" in given:
            text = f"Not yet: this is for a page on {given['later']}."
        else:
            text = answer_text(given["answer"], values, reasons)
        page = given.get("page", "")
        found.append(Answer(name, given["asks"], text, page if page in there else ""))
    return found


def answer_text(template: str, values: dict[str, str], reasons: dict[str, str]) -> str:
    """The template with its values, or why it cannot be filled in.

    Raises `UserError` for a name that no page could ever give.
    """

    def value(match: re.Match) -> str:
        name = match[1]
        if name in values:
            return values[name]
        if reason := reasons.get(name) or reasons.get(name.split(".")[0]):
            raise UnansweredError(reason)
        raise UserError(f"data/reviews.yaml asks for {name!r}, which no page or claim gives")

    try:
        return NAME.sub(value, template)
    except UnansweredError as missing:
        return str(missing)


def known_values(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """What answers may name: values, and for those that are missing (or whole pages) the reason.

    CLAIM.PROTOCOL.p (ours, smallest, verdict), CLAIM.verdicts, ledger.COUNT, PAGE.GLUED.
    """
    entries = book_ledger(folder)
    values = {f"ledger.{name}": text for name, text in told(entries, folder).items()}
    reasons = {title(entry.page): f"Not yet: {title(entry.page)} was not run." for entry in entries}
    for page in recorded(folder):
        name = title(page.page.stem)
        reasons[name] = f"Not yet: the page {name} records no such number."
        values |= {f"{name}.{key}": str(value) for key, value in page.glued.items()}
    for claim, row in by_claim(entries).items():
        for entry in row.values():
            given = entry_values(entry)
            values |= {key: text for key, text in given.items() if text}
            reasons |= {key: why_missing(entry) for key, text in given.items() if not text}
        missing = [entry for entry in row.values() if not entry.found]
        if missing:
            reasons[f"{claim}.verdicts"] = why_missing(missing[0])
        else:
            values[f"{claim}.verdicts"] = verdicts_text(row)
    return values, reasons


def entry_values(entry: Entry) -> dict[str, str]:
    """What a line of the ledger gives to sentences; empty text where it has nothing."""
    found, claim = entry.found, entry.claim
    texts = dict.fromkeys(("ours", "p", "smallest", "verdict"), "")
    if found:
        texts["verdict"] = entry.verdict
        if found.value is not None and found.interval is not None:
            texts["ours"] = number_text(found, claim)
        if found.p is not None:
            texts["p"] = f"p {p_text(found.p)}" if found.p < 0.001 else f"p = {p_text(found.p)}"
        if found.smallest is not None:
            texts["smallest"] = f"{found.smallest:.2g} {claim.unit}".rstrip()
    return {f"{claim.id}.{entry.protocol}.{name}": text for name, text in texts.items()}


def why_missing(entry: Entry) -> str:
    """Why a line of the ledger lacks a number."""
    if entry.found is None:
        return f"Not yet: no page records {entry.claim.id}, which belongs on {title(entry.page)}."
    return f"Not testable here ({entry.claim.id}): {entry.why}."


def verdicts_text(row: dict[str, Entry]) -> str:
    """The verdicts on a claim, each with the readings that give it."""
    readings: dict[str, list[str]] = {}
    for protocol, entry in row.items():
        readings.setdefault(entry.verdict, []).append(protocol)
    return ", ".join(f"{verdict} ({', '.join(names)})" for verdict, names in readings.items())


def answers_table(found: list[Answer]) -> pd.DataFrame:
    """Questions, answers and links."""
    rows = [
        {
            "id": one.id,
            "question": html.escape(one.asks),
            "answer": html.escape(one.text),
            "read on": link(one.page) if one.page else "",
        }
        for one in found
    ]
    return pd.DataFrame(rows).set_index("id")


def counts(found: list[Answer]) -> dict[str, str]:
    """How many questions there are, are answered, and wait."""
    waiting = sum(one.text.startswith("Not ") for one in found)
    return {
        "n_questions": str(len(found)),
        "n_answered": str(len(found) - waiting),
        "n_waiting": str(waiting),
    }
