"""Claims on several models: tables and counts for the pages `replication` and `ledger`."""

import html
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from IPython.display import HTML

from raretok.claims.finding import Finding
from raretok.claims.style import interval_text, number
from raretok.errors import UserError
from raretok.ledger.claims import named
from raretok.ledger.records import book_ledger, replicates
from raretok.ledger.replication import REPRODUCED, Replication, replications
from raretok.ledger.tables import cells, ours, shown, signed, tabulate
from raretok.ledger.verdicts import Entry, judged
from raretok.measure.find import LEAD, TRAINED, UNTRAINED, Measurements
from raretok.measure.parameters import PageParameters
from raretok.paths import ROOT

# By label, in the order of pages and atlas; what was trained here is not named as if it were
# the model whose family it has.
NAMES = {
    LEAD: "SmolLM2",
    **{label: label for label in (*TRAINED, UNTRAINED.replace("@", "-"))},
}


def beside(folder: Path, book: Path = ROOT / "book") -> tuple[list[Replication], str]:
    """The claims of the pages in a folder on every model, and in a sentence what is left out.

    The book's own pages give the models that ship. Another model than the book's first stands
    before them and is named as that of this run, so that it is never one of them.
    """
    own, others, lead, missing = [e.finding for e in book_ledger(folder)], [], [], ""
    asked = {one.claim for one in own}
    first = Measurements(PageParameters()).name in {one.measurement for one in own}
    try:
        others = replicates(folder if first else book) or replicates(book)
        lead = [] if first else [e.finding for e in book_ledger(book)]
    except UserError as error:
        missing = f"The models that ship are left out: {error}."
    if not first:
        own = [replace(one, model=f"{one.model} (this run)") for one in own]
    runs = [one for one in others if one.model in TRAINED]
    outside = [one for one in others if one.model not in TRAINED]
    found = replications(runs, [*own, *lead, *outside])
    return [one for one in found if one.claim in asked], missing


def name_of(model: str) -> str:
    """What a model is called beside others."""
    return NAMES.get(model, model)


def trained_ones(entries: Iterable[Entry]) -> list[Entry]:
    """Lines of all models but the control, which was never trained."""
    return [one for one in entries if not one.finding.model.endswith("untrained")]


def names(found: list[Replication]) -> dict[str, str]:
    """Models in the order of the forest plot: those that are no unit around the runs."""
    runs = [entry.finding.model for one in found for entry in one.runs]
    outside = [entry.finding.model for one in found for entry in one.outside]
    before = [entry.finding.model for one in found for entry in trained_ones(one.outside)]
    return {model: name_of(model) for model in (*before, *runs, *outside)}


def replication_table(found: list[Replication]) -> HTML:
    """One row a claim: on how many models it is decided, what the runs say, and the numbers."""
    return shown(tabulate(list(map(replication_row, found)), "claim").fillna(""))


def replication_row(one: Replication) -> dict[str, str]:
    """What the table says of a claim."""
    row = {"claim": html.escape(named(one.claim)), **decided(one)}
    row["over the runs"] = f"<b>{one.verdict}</b><br>{html.escape(one.gates)}"
    for entry in trained_ones(one.outside):
        found = f"{ours(entry.finding)} {html.escape(one.spec.unit)}<br>"
        row[name_of(entry.finding.model)] = found * bool(entry.finding.estimate) + signed(entry)
    pooled = one.pooled
    ends = pooled and map(number, (pooled.next_run.low, pooled.next_run.high))
    return row | {
        "mean of the runs": interval_text(pooled and pooled.mean, why=""),
        "next run": " to ".join(ends or ()),
    }


def decided(one: Replication) -> dict[str, str]:
    """On how many of the trained models that it was asked of a claim is supported or not."""
    models = [*one.runs, *trained_ones(one.outside)]
    counts = Counter(entry.verdict for entry in models)
    verdicts = ("supported", "contradicted")
    return {f"{verdict} on": f"{counts[verdict]} of {len(models)}" for verdict in verdicts}


def families_table(findings: list[Finding]) -> HTML:
    """G1 and G4 of every model that they are about."""
    rows = [
        cells(one)
        | {"claim": html.escape(named(one.finding.claim)), "model": name_of(one.finding.model)}
        for one in judged(findings)
        if one.finding.estimate is not None
    ]
    table = tabulate(rows, "claim", "model")
    return shown(table.reindex(columns=["ours (95 %)", "unit", "verdict"]))


def said(found: list[Replication], lead: list[Finding]) -> dict[str, str]:
    """What the page's sentences name."""
    counts = Counter(one.verdict for one in found)
    return {
        "n_runs": str(max((len(one.runs) for one in found), default=0)),
        "n_claims": str(len(found)),
        **{f"n_{verdict.replace(' ', '_')}": str(counts[verdict]) for verdict in REPRODUCED},
        "lead": " and ".join(dict.fromkeys(name_of(one.model) for one in lead)) or "no model",
        **{one.claim: one.verdict for one in found},
    }
