"""Tables of verdicts, and what the front page says of them."""

import html
from collections import Counter
from pathlib import Path

import pandas as pd
from IPython.display import HTML

from raretok.claims.finding import Finding
from raretok.claims.style import interval_text
from raretok.ledger.claims import Estimand, Region, changes, claims, named
from raretok.ledger.figures import primary
from raretok.ledger.promise import CALIBRATED, VERDICTS, calibrated, support
from raretok.ledger.records import stems, title
from raretok.ledger.verdicts import Entry
from raretok.measure.find import Measurements
from raretok.measure.parameters import PageParameters

SIGNS = dict(zip((*VERDICTS, "reported"), ("✓", "✗", "~", "?", ""), strict=True))
# Claims about the neurons of the head, which have cards where the book's first model is shown.
OF_NEURONS = ("R0", "R1", "R2", "C1", "I1", "M1", "A3", "A4", "S1")
NEURONS = ', <a href="cards.html">neurons</a>'


def shown(table: pd.DataFrame, classes: str = "sentences") -> HTML:
    """A table whose cells may hold links; nothing in it is cut short.

    Of the class `sentences` (book/_assets/custom.css) its cells stay readable on a phone.
    """
    with pd.option_context("display.max_colwidth", None):
        return HTML(table.to_html(escape=False, classes=classes))


def tabulate(rows: list[dict[str, str]], *index: str) -> pd.DataFrame:
    """Rows as a table; without any, nothing but the names of its index."""
    return pd.DataFrame(rows).set_index(list(index)) if rows else pd.DataFrame(columns=index)


def ours(finding: Finding) -> str:
    """Value and interval; nothing where there is none."""
    return interval_text(finding.estimate, why="")


def region_text(regions: list[Region]) -> str:
    """Regions in words."""

    def words(low: float | None, high: float | None) -> str:
        if low is None:
            return f"at most {high:g}"
        return f"at least {low:g}" if high is None else f"{low:g} to {high:g}"

    return " or ".join(words(*region) for region in regions)


def cells(entry: Entry) -> dict[str, str]:
    """What every table of verdicts shows of a line."""
    return {
        "claim": entry.finding.claim,
        "estimand": entry.finding.estimand,
        "reading": entry.finding.reading,
        "ours (95 %)": ours(entry.finding),
        "unit": html.escape(entry.spec.unit),
        "verdict": signed(entry),
        "why": html.escape(entry.why),
    }


def signed(entry: Entry) -> str:
    """A verdict with its sign."""
    return f"{SIGNS[entry.verdict]} {entry.verdict}".strip()


def verdict_table(entries: list[Entry]) -> HTML:
    """What a page found: a row an estimand and reading."""
    return shown(tabulate(list(map(cells, entries)), "claim", "estimand", "reading"))


def sizes_table(found: list[Finding], fixed: list[Finding]) -> pd.DataFrame:
    """Estimates under `corrected` for the group of 1 % and for one of a fixed size."""
    beside = {(one.claim, one.estimand): one for one in fixed}
    rows = [
        {
            "claim": one.claim,
            "estimand": one.estimand,
            "1 % of the neurons": ours(one),
            "fixed number": ours(beside[one.claim, one.estimand]),
            "unit": claims()[one.claim].estimands[one.estimand].unit,
        }
        for one in found
        if one.reading == "corrected" and (one.claim, one.estimand) in beside
    ]
    return tabulate(rows, "claim", "estimand")


def claims_table() -> HTML:
    """What each claim means as a number, with the regions and their reasons."""
    rows = [
        {
            "claim": name,
            "estimand": estimand,
            "number": html.escape(f"{spec.says} [{spec.unit}]"),
            "supports": html.escape(region_text(spec.supports)) or "reported only",
            "contradicts": html.escape(region_text(spec.contradicts)),
            "why these bounds": html.escape(spec.why),
            "gates": html.escape(gates_text(spec)),
        }
        for name, claim in claims().items()
        for estimand, spec in claim.estimands.items()
    ]
    return shown(tabulate(rows, "claim", "estimand"))


def changes_table() -> HTML:
    """What was changed in the claims after they were fixed."""
    rows = [{name: html.escape(str(text)) for name, text in one.items()} for one in changes()]
    return shown(tabulate(rows, "date"))


def gates_text(spec: Estimand) -> str:
    texts = {name: one if isinstance(one, str) else f"{one:g}" for name, one in spec.gates.items()}
    return ", ".join(map(" ".join, texts.items()))


def sentences_table() -> HTML:
    """The paper's sentences and published values."""
    rows = [
        {
            "claim": name,
            "the paper says": html.escape(claim.sentence),
            "published": html.escape(claim.published),
        }
        for name, claim in claims().items()
    ]
    return shown(tabulate(rows, "claim"))


def page_link(page: str) -> str:
    """HTML link to the page of a claim, by its name."""
    return f'<a href="{html.escape(page)}.html">{html.escape(title(page))}</a>'


def ledger_table(entries: list[Entry], folder: Path) -> HTML:
    """Every line; below a claim where it is shown."""
    files, carded = stems(folder), Measurements(PageParameters()).name
    rows = []
    for entry in entries:
        claim, page = entry.finding.claim, entry.claim.page
        cards = claim in OF_NEURONS and entry.finding.measurement == carded
        links = page_link(files.get(page, page)) + NEURONS * cards
        rows.append(cells(entry) | {"claim": f"{html.escape(named(claim))}<br>{links}"})
    return shown(tabulate(rows, "claim", "estimand", "reading"))


def decisive(entries: list[Entry]) -> list[Entry]:
    """The lines that give each claim its verdict on the page that shows it."""
    return [one for one in primary(entries) if one.finding.reading == "corrected"]


def said(entries: list[Entry]) -> dict[str, str]:
    """Counts for the sentences of the ledger and the reviews."""
    mine = decisive(entries)
    counts, judged = Counter(e.verdict for e in mine), {e.finding.claim for e in mine}
    models = sorted({entry.finding.model for entry in entries})
    promises = {e.finding.claim: support(calibrated(CALIBRATED), *e.finding.key[:2]) for e in mine}
    weak = [claim for claim, found in promises.items() if found and not found["able"]]
    there = {entry.finding.claim for entry in entries}
    missing = [claim for claim in claims() if claim not in there]
    return {
        "n_claims": str(len(there)),
        "n_lines": str(len(entries)),
        **{f"n_{verdict.replace(' ', '_')}": str(counts[verdict]) for verdict in VERDICTS},
        "reported": ", ".join(sorted(there - judged)) or "none",
        "model": ", ".join(models) or "none",
        "weak": ", ".join(weak) or "none",
        "missing": f"Not run, so missing here: {', '.join(missing)}." if missing else "",
    }


def standing(entries: list[Entry], folder: Path) -> str:
    """Markdown for the front page: the claims by their verdict under `corrected`."""
    files, lines = stems(folder), []
    for verdict in VERDICTS:
        found = [entry for entry in decisive(entries) if entry.verdict == verdict]
        links = "; ".join(claim_link(entry, files) for entry in found)
        lines += [f"- **{verdict.capitalize()}**: {links}."] if found else []
    return "\n".join(lines)


def claim_link(entry: Entry, files: dict[str, str]) -> str:
    """A claim in a few words, with a link to its page (MyST)."""
    page, text = files.get(entry.claim.page), named(entry.finding.claim)
    return f"{{doc}}`{text} </book/{page}>`" if page else text


def verdict_box(entries: list[Entry]) -> HTML:
    """The verdicts of a page in a box: one line a claim, under the reading `corrected`."""
    lines = [
        f"<p><b>{html.escape(named(one.finding.claim))}: {one.verdict}.</b> "
        f"{html.escape(reason_text(one))}</p>"
        for one in decisive(entries)
    ]
    title = '<p class="admonition-title">Verdict</p>'
    return HTML(f'<div class="admonition">{title}<div>{"".join(lines)}</div></div>')


def reason_text(entry: Entry) -> str:
    """What a verdict was read off, in a sentence or two."""
    finding, spec = entry.finding, entry.spec
    found = f"{ours(finding)} {spec.unit}. " if finding.estimate else ""
    if entry.verdict == "not testable":
        return f"{found}Because {entry.why}.".replace("Because the", "The")
    supports, contradicts = map(region_text, (spec.supports, spec.contradicts))
    regions = f"{found}Supported: {supports}; contradicted: {contradicts}."
    promised = support(calibrated(finding.model), finding.claim, finding.estimand)
    if promised is None or promised["able"]:
        return regions
    only = f"this design supports it in only {100 * promised['true']:.0f} % of worlds"
    return f"{regions} Where it is true at the declared size, {only}."
