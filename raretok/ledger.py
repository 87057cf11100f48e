"""The paper's claims, what was found, and the verdict that follows by rule."""

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml

from raretok.stats import ALPHA, POWER

PAPER = Path(__file__).parents[1] / "data" / "paper.yaml"

Verdict = Literal[
    "reproduced", "weaker", "not reproduced", "artefact of the method", "not testable here"
]


@dataclass(frozen=True)
class Claim:
    """A claim of the paper."""

    id: str
    statement: str
    kind: Literal["present", "size", "absent"]
    published: str
    page: str
    range: tuple[float, float] | None = None  # of the published values
    unit: str = ""
    matters: str = ""  # the effect that `Evidence.power` is the power to see


@dataclass(frozen=True)
class Evidence:
    """What a page found for one claim under one protocol."""

    claim: str
    protocol: str
    value: float | None  # in the claim's unit; None where nothing could be measured
    interval: tuple[float, float] | None  # 95 %, over documents
    null: str  # what the p-value was tested against
    p: float | None
    null_world_p: float | None  # the same test where the effect cannot be: the untrained model
    power: float | None = None  # chance of seeing the effect that matters (`Claim.matters`)
    smallest: float | None = None  # effect seen in 80 % of runs, in the unit of the claim
    figure: str = ""  # label of the figure that shows it, on the page of the claim
    run: str = ""  # key of the ablation run it was computed from
    reason: str = ""  # why it is not testable here


@cache
def paper_claims() -> dict[str, Claim]:
    """The claims of the paper, by id."""
    read = yaml.safe_load(PAPER.read_text())
    return {
        name: Claim(id=name, **{k: tuple(v) if k == "range" else v for k, v in fields.items()})
        for name, fields in read.items()
    }


def verdict(evidence: Evidence) -> Verdict:
    """The verdict on a claim, from its p-values, interval and power alone.

    An effect that is not seen (p >= 0.05) counts as absent only where it would have been seen: with
    a power below 0.8 a claim is *not testable here*, whichever way it points.
    present, size: *not reproduced* where it is absent; *artefact of the method* if an untrained
    model passes the same test; *weaker* if its size lies outside the published range.
    absent: *reproduced* where it is absent, else *not reproduced*.
    """
    claim = paper_claims()[evidence.claim]
    if evidence.p is None:
        return "not testable here"
    if evidence.p >= ALPHA:
        if evidence.power is None or evidence.power < POWER:
            return "not testable here"
        return "reproduced" if claim.kind == "absent" else "not reproduced"
    if claim.kind == "absent":
        return "not reproduced"
    if evidence.null_world_p is not None and evidence.null_world_p < ALPHA:
        return "artefact of the method"
    if claim.range and not claim.range[0] <= evidence.value <= claim.range[1]:
        return "weaker"
    return "reproduced"


def verdict_table(found: list[Evidence]) -> pd.DataFrame:
    """Ours beside the paper's, claim by claim and protocol by protocol."""
    rows = []
    for one in found:
        claim = paper_claims()[one.claim]
        rows.append(
            {
                "claim": one.claim,
                "protocol": one.protocol,
                "verdict": verdict(one),
                "ours": number_text(one, claim),
                "published": claim.published,
                "p": p_text(one.p),
                "untrained p": p_text(one.null_world_p),
                "power": "" if one.power is None else f"{one.power:.2f}",
                "smallest effect seen": "" if one.smallest is None else f"{one.smallest:.2g}",
            }
        )
    return pd.DataFrame(rows).sort_values("claim", kind="stable").set_index(["claim", "protocol"])


def number_text(found: Evidence, claim: Claim) -> str:
    """Value and interval, with the unit of the claim."""
    if found.value is None or found.interval is None:
        return "none"
    low, high = found.interval
    return f"{found.value:.2g} ({low:.2g} to {high:.2g}) {claim.unit}".rstrip()


def p_text(p: float | None) -> str:
    """A p-value as it is shown."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def as_records(found: list[Evidence]) -> list[dict[str, Any]]:
    """The evidence with its verdicts, as plain values for the ledger page and for machines."""
    return [{**asdict(one), "verdict": verdict(one)} for one in found]
