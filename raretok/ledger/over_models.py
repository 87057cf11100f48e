"""Tables and sentences over several models, for the page `replication` and the front page."""

import html
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from IPython.display import HTML

from raretok.claims.finding import Finding
from raretok.errors import UserError
from raretok.ledger.claims import claims, named
from raretok.ledger.records import book_ledger, replicates
from raretok.ledger.replication import REPRODUCED, Replication, replications
from raretok.ledger.tables import SIGNS, cells, number, ours, shown, signed, tabulate
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
    models = by_model(others)
    runs = {name: some for name, some in models.items() if name in TRAINED}
    outside = {name: some for name, some in models.items() if name not in TRAINED}
    found = replications(runs, by_model([*own, *lead]) | outside)
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


def interval(one: Estimate) -> str:
    return f"{number(one.low)} to {number(one.high)}"


def replication_table(found: list[Replication]) -> HTML:
    """One row a claim: outside model, mean of the runs, next run, verdict over the runs."""
    rows = []
    for one in found:
        pooled = one.pooled
        mean = f"{number(pooled.mean.value)} ({interval(pooled.mean)})" if pooled else ""
        rows.append(
            {"claim": html.escape(named(one.claim))}
            | {
                name_of(entry.finding.model): f"{ours(entry.finding)}<br>{signed(entry)}"
                for entry in trained_ones(one.outside)
            }
            | {
                "unit": html.escape(one.spec.unit),
                "mean of the runs": mean,
                "next run": interval(pooled.next_run) if pooled else "",
                "runs": f"{len(one.used)} of {len(one.runs)}",
                "over the runs": f"<b>{one.verdict}</b>",
                "why": html.escape(one.why),
            }
        )
    return shown(tabulate(rows, "claim").fillna(""))


def models_table(found: list[Replication]) -> HTML:
    """Verdicts by claim and model, and over the runs."""
    rows = []
    for one in found:
        verdicts = {e.finding.model: signed(e) for e in (*one.outside, *one.runs)}
        row = {name: verdicts.get(model, "not measured") for model, name in names(found).items()}
        claim = {"claim": html.escape(named(one.claim))}
        rows.append(claim | row | {"over the runs": f"<b>{one.verdict}</b>"})
    return shown(tabulate(rows, "claim"))


def families_table(findings: list[Finding]) -> HTML:
    """G1 and G4 of every model that they are about."""
    rows = [
        cells(one)
        | {
            "claim": html.escape(named(one.finding.claim)),
            "model": name_of(one.finding.model),
        }
        for some in by_model(findings).values()
        for one in judged(some)
        if one.finding.estimate is not None
    ]
    table = tabulate(rows, "claim", "model")
    return shown(table.reindex(columns=["ours (95 %)", "unit", "verdict"]))


def summary(found: list[Replication]) -> str:
    """What the runs say, claims by their verdict over them."""
    parts = []
    for verdict, some in grouped((one.verdict, one.claim) for one in found).items():
        if verdict == "not testable":
            parts.append(f"not testable, as too few runs pass the gates: {', '.join(some)}")
        else:
            words = [f"{claims()[claim].short} ({claim})" for claim in some]
            parts.append(f"{verdict}: {', '.join(words)}")
    return f"Over the training runs, {'; '.join(parts)}." if parts else "No run was measured."


def grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Claims by what is said of them, in the order of verdicts."""
    found: dict[str, list[str]] = {word: [] for word in (*REPRODUCED[:1], *SIGNS)}
    for word, claim in pairs:
        found.setdefault(word, []).append(claim)
    return {word: some for word, some in found.items() if some}


def agreement(found: list[Replication]) -> str:
    """How far a model from outside lies where the next run is expected."""
    sides: dict[str, list[str]] = {"inside": [], "outside": []}
    for one in found:
        for entry in trained_ones(one.outside) if one.pooled else ():
            if entry.finding.estimate and entry.verdict != "not testable":
                there = one.pooled.next_run
                within = there.low <= entry.finding.estimate.value <= there.high
                sides["inside" if within else "outside"].append(one.claim)
    where = "where the next run is expected for"
    parts = [f"{side} {where} {', '.join(some)}" for side, some in sides.items() if some]
    if not parts:
        return "No claim has a number on both."
    return f"The number of the model from outside lies {' and '.join(parts)}."


def impossible(found: list[Replication]) -> str:
    """What models cannot show whatever is measured, by the reason they gave."""
    reasons: dict[str, set[str]] = {}
    for one in (entry.finding for some in found for entry in some.runs):
        if "reaches the last MLP" in one.reason:
            reasons.setdefault(one.reason, set()).add(f"{name_of(one.model)} ({one.claim})")
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
    models = [name_of(name) for name in by_model(lead)]
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
        words = grouped((e.verdict, e.finding.claim) for e in entries)
        parts = [f"{verdict}: {', '.join(some)}" for verdict, some in words.items()]
        said.append(f"On {name_of(model)}, {'; '.join(parts)}.")
    return " ".join(said)
