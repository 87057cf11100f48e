"""What the calibration of the verdicts found (data/calibration/), as gates and tables read it."""

import json
from functools import cache
from typing import Any

import pandas as pd

from raretok.ledger.claims import claims, planted
from raretok.paths import DATA

SHIPPED = DATA / "calibration"
CALIBRATED = "docs-gpt2"  # the model whose worlds were planted
VERDICTS = ("supported", "contradicted", "inconclusive", "not testable")
TRUE_SUPPORT = 0.8  # at least, at the declared size
# Planted sizes at which a claim is true, and at which it is false; what lies between is neither.
PRESENT, ABSENT = ((1.0, 2.0), (0.0,)), ((0.0,), (1.0, 2.0))
TRUTH = {
    "R2": ((0.5, 1.0), (0.0, 4.0)),
    "A4": ((1.0,), (0.0, 0.5, 2.0)),
    **dict.fromkeys(("R3", "M1", "A1", "A2", "A3"), ABSENT),
}

Row = dict[str, Any]


@cache
def calibrated(model: str) -> list[Row]:
    """Counts of the verdicts in planted worlds made from a model; none where it has none."""
    file = SHIPPED / f"{model}.json"
    return json.loads(file.read_text())["rows"] if file.is_file() else []


def rows_of(table: list[Row], claim: str, estimand: str) -> list[Row]:
    return [row for row in table if (row["claim"], row["estimand"]) == (claim, estimand)]


def coverage(table: list[Row], claim: str, estimand: str) -> float | None:
    """Share of intervals, over all sizes, that hold the typical estimate."""
    rows = [row for row in rows_of(table, claim, estimand) if row["covered"] is not None]
    total = sum(row["numbers"] for row in rows)
    return sum(row["numbers"] * row["covered"] for row in rows) / total if total else None


def share(row: Row, verdict: str) -> float:
    """How often a verdict was given."""
    return row["verdicts"].get(verdict, 0) / row["runs"]


def truth(claim: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The planted sizes at which a claim holds for certain, the declared one among them, or not."""
    return TRUTH.get(claim, PRESENT)


def support(table: list[Row], claim: str, estimand: str) -> dict[str, float] | None:
    """Largest share of `supported` where the claim is false, and the share where it is true.

    `able`: whether this design would support it at the declared size in 80 % of worlds.
    """
    rows = rows_of(table, claim, estimand)
    if not rows:
        return None
    by_size = {row["size"]: share(row, "supported") for row in rows}
    false = max(by_size[size] for size in truth(claim)[1])
    true = by_size[0.0 if truth(claim) == ABSENT else 1.0]
    return {"false": false, "true": true, "able": true >= TRUE_SUPPORT}


def worst(table: list[Row]) -> float:
    """The largest share of false support of any estimand."""
    judged = {(row["claim"], row["estimand"]) for row in table}
    return max(support(table, *key)["false"] for key in judged)


def promise_table(table: list[Row]) -> pd.DataFrame:
    """Promise by estimand: false and true support, coverage, what follows, typical estimates."""
    rows = {}
    for key in ((name, one) for name, claim in claims().items() for one in claim.estimands):
        if found := support(table, *key):
            covered = coverage(table, *key)
            (median,) = (row["median"] for row in rows_of(table, *key) if row["size"] == 1)
            rows[key] = {
                "supported where false": f"{100 * found['false']:.0f} %",
                "supported where true": f"{100 * found['true']:.0f} %",
                "interval covers": "" if covered is None else f"{100 * covered:.0f} %",
                "this design": "can support it" if found["able"] else "cannot support it",
                "planted as size 1": f"{planted(*key):g}",
                "typical estimate": "" if median is None else f"{median:.3g}",
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["claim", "estimand"])
