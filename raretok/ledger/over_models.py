"""Tables and sentences over several models, for the page `replication` and the front page."""

import html
import json
from dataclasses import replace
from pathlib import Path

from IPython.display import HTML

from raretok.claims.finding import Finding
from raretok.errors import UserError
from raretok.ledger.claims import claims
from raretok.ledger.records import book_ledger, replicates
from raretok.ledger.replication import REPRODUCED, Replication, replications
from raretok.ledger.tables import SIGNS, number, ours, shown, tabulate
from raretok.ledger.verdicts import Entry, judged
from raretok.measure.find import LEAD, TRAINED, UNTRAINED, Measurements
from raretok.measure.parameters import PageParameters
from raretok.models.files import SHIPPED
from raretok.paths import ROOT
from raretok.stats.jackknife import Estimate

NAMES = {
    LEAD: "SmolLM2",
    "docs-gpt2": "gpt2, seed 0",
    **{f"docs-gpt2-seed{n}": f"gpt2, seed {n}" for n in range(1, 5)},
    "docs-llama": "llama",
    "docs-pythia": "pythia",
    UNTRAINED.replace("@", "-"): "untrained gpt2",
}


ANOTHER = ", which is another size, another text and another training altogether"


def by_model(findings: list[Finding]) -> dict[str, list[Finding]]:
    """Findings under `corrected` by the model they are of."""
    found: dict[str, list[Finding]] = {}
    for one in findings:
        if one.reading == "corrected":
            found.setdefault(one.model, []).append(one)
    return found


def split(
    replicates: list[Finding], lead: list[Finding]
) -> tuple[dict[str, list[Finding]], dict[str, list[Finding]]]:
    """Recorded findings as training runs and as models that are no unit; the lead model first."""
    models = by_model(replicates)
    runs = {name: some for name, some in models.items() if name in TRAINED}
    others = {name: some for name, some in models.items() if name not in TRAINED}
    return runs, {**by_model(lead), **others}


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
    found = replications(*split(others, [*own, *lead]))
    return [one for one in found if one.claim in asked], missing


def names(found: list[Replication]) -> dict[str, str]:
    """Models in the order of the forest plot: those that are no unit around the runs."""
    runs = list(dict.fromkeys(e.finding.model for one in found for e in one.runs))
    outside = list(dict.fromkeys(e.finding.model for one in found for e in one.outside))
    control = [name for name in outside if name.endswith("untrained")]
    order = [*(name for name in outside if name not in control), *runs, *control]
    return {name: NAMES.get(name, name) for name in order}


def interval(one: Estimate) -> str:
    return f"{number(one.low)} to {number(one.high)}"


def replication_table(found: list[Replication]) -> HTML:
    """One row a claim: outside model, mean of the runs, next run, verdict over the runs."""
    rows = []
    for one in found:
        row = {"claim": f"{one.claim}, {html.escape(claims()[one.claim].short)}"}
        for entry in one.outside:
            if not entry.finding.model.endswith("untrained"):
                row[NAMES.get(entry.finding.model, entry.finding.model)] = line(entry)
        pooled = one.pooled
        mean = f"{number(pooled.mean.value)} ({interval(pooled.mean)})" if pooled else ""
        row |= {
            "unit": html.escape(one.spec.unit),
            "mean of the runs": mean,
            "next run": interval(pooled.next_run) if pooled else "",
            "runs": f"{len(one.used)} of {len(one.runs)}",
            "over the runs": f"<b>{one.verdict}</b>",
            "why": html.escape(one.why),
        }
        rows.append(row)
    return shown(tabulate(rows, "claim").fillna(""))


def line(entry: Entry) -> str:
    """Number and verdict of one model."""
    return f"{ours(entry.finding)}<br>{SIGNS[entry.verdict]} {entry.verdict}"


def models_table(found: list[Replication]) -> HTML:
    """Verdicts by claim and model, and over the runs."""
    rows = []
    for one in found:
        entries = {e.finding.model: e for e in (*one.outside, *one.runs)}
        row = {"claim": f"{one.claim}, {html.escape(claims()[one.claim].short)}"}
        for model, name in names(found).items():
            verdict = entries[model].verdict if model in entries else ""
            row[name] = f"{SIGNS[verdict]} {verdict}" if verdict else "not measured"
        rows.append(row | {"over the runs": f"<b>{one.verdict}</b>"})
    return shown(tabulate(rows, "claim"))


def families_table(findings: list[Finding]) -> HTML:
    """G1 and G4 of every model that they are about."""
    rows = [
        {
            "claim": f"{one.finding.claim}, {html.escape(one.claim.short)}",
            "model": NAMES.get(one.finding.model, one.finding.model),
            "ours (95 %)": ours(one.finding),
            "unit": html.escape(one.spec.unit),
            "verdict": f"{SIGNS[one.verdict]} {one.verdict}",
        }
        for some in by_model(findings).values()
        for one in judged(some)
        if one.finding.estimate is not None
    ]
    return shown(tabulate(rows, "claim", "model"))


def summary(found: list[Replication]) -> str:
    """What the runs say, claims by their verdict over them."""
    parts = []
    for verdict in REPRODUCED:
        some = [one.claim for one in found if one.verdict == verdict]
        if some and verdict != "not testable":
            parts.append(f"{verdict}: {', '.join(map(named, some))}")
        elif some:
            parts.append(f"not testable, as too few runs pass the gates: {', '.join(some)}")
    return f"Over the training runs, {'; '.join(parts)}." if parts else "No run was measured."


def named(claim: str) -> str:
    """A claim in words, with its id."""
    return f"{claims()[claim].short} ({claim})"


def agreement(found: list[Replication]) -> str:
    """How far a model from outside lies where the next run is expected."""
    inside, outside = [], []
    for one in found:
        for entry in one.outside:
            estimate = entry.finding.estimate
            counts = one.pooled and estimate and entry.verdict != "not testable"
            if counts and not entry.finding.model.endswith("untrained"):
                there = one.pooled.next_run
                within = there.low <= estimate.value <= there.high
                (inside if within else outside).append(one.claim)
    if not inside + outside:
        return "No claim has a number on both."
    parts = [
        f"{words} where the next run is expected for {', '.join(some)}"
        for words, some in (("inside", inside), ("outside", outside))
        if some
    ]
    return f"The number of the model from outside lies {' and '.join(parts)}."


def impossible(found: list[Replication]) -> str:
    """What models cannot show whatever is measured, by the reason they gave."""
    reasons: dict[str, set[str]] = {}
    for one in found:
        for entry in one.runs:
            if entry.finding.reason and "reaches the last MLP" in entry.finding.reason:
                name = NAMES.get(entry.finding.model, entry.finding.model)
                reasons.setdefault(entry.finding.reason, set()).add(f"{name} ({one.claim})")
    said = [f"{', '.join(sorted(who))}: {why}" for why, who in reasons.items()]
    return "; ".join(said) or (
        "In a network with parallel blocks the heads of the last layer write after its MLP has "
        "read, so A3 and A4 test the layer before the last alone there; no run lacks a number for "
        "its architecture."
    )


def trained() -> dict[str, str]:
    """How the runs were trained, from their records."""
    files = [SHIPPED / name / "training.json" for name in TRAINED]
    records = [json.loads(file.read_text()) for file in files]
    sizes = sorted(record["parameters"] / 1e6 for record in records)
    (tokens,) = {record["tokens_seen"] for record in records}
    families = [record["config"].get("family", "gpt2") for record in records]
    return {
        "millions": f"{sizes[0]:.0f} to {sizes[-1]:.0f}",
        "tokens": f"{tokens / 1e6:.0f}",
        "seeds": str(families.count("gpt2")),
    }


def said(found: list[Replication], lead: list[Finding]) -> dict[str, str]:
    """What the page's sentences name."""
    models = [NAMES.get(name, name) for name in by_model(lead)]
    return {
        "n_runs": str(max((len(one.runs) for one in found), default=0)),
        "lead": (" and ".join(models) or "no model") + (ANOTHER if LEAD in by_model(lead) else ""),
        "summary": f"{summary(found)} {lead_words(lead)}",
        "agreement": agreement(found),
        **trained(),
        "impossible": impossible(found),
        **{one.claim: one.verdict for one in found},
    }


def lead_words(lead: list[Finding]) -> str:
    """The verdicts on the model from outside, in a sentence."""
    said = []
    for model, findings in by_model(lead).items():
        entries = [e for e in judged(findings) if e.primary and e.spec.judged]
        verdicts = dict.fromkeys(entry.verdict for entry in entries)
        parts = [
            f"{verdict}: {', '.join(e.finding.claim for e in entries if e.verdict == verdict)}"
            for verdict in sorted(verdicts, key=list(SIGNS).index)
        ]
        said.append(f"On {NAMES.get(model, model)}, {'; '.join(parts)}.")
    return " ".join(said)
