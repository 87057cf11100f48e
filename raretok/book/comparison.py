"""What a sweep found: a table with a row a cell, and a page that compares them."""

import json
from base64 import b64encode
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from raretok.book.cards import rendered
from raretok.book.grid import Cell, Plan, short
from raretok.book.pages import write_whole
from raretok.claims.style import panels, shade
from raretok.ledger.claims import claims
from raretok.ledger.figures import INK, estimate, limits
from raretok.ledger.tables import ours

JOURNAL = "tasks.jsonl"  # in the folder of a sweep: what each task took


def summarise(plan: Plan) -> Path:
    """Write `summary.csv`, a row a cell, and `summary.html` with a figure that compares them."""
    spent, rows, shown = seconds_by_key(plan.folder / JOURNAL), [], []
    for cell in plan.cells:
        ended = {
            "state": "failed" if cell.reasons else "done",
            "reason": "; ".join(cell.reasons),
            "seconds": round(sum(spent[key] for key in cell.keys), 1),
            "cell": cell.folder.name if cell.folder else "",
        }
        given = {name: short(value) for name, value in cell.parameters.model_dump().items()}
        rows.append(given | ended | numbers(cell))
        brief = {c: f"{ours(e.finding)} {e.verdict}" for c, e in cell.entries.items()}
        shown.append(cell.varied | ended | brief)
    write_whole(plan.folder / "summary.csv", pd.DataFrame(rows).to_csv(index=False))
    table = pd.DataFrame(shown).fillna("").to_html(index=False)
    said = {"name": plan.folder.name, "n": len(rows), "table": table, "forest": forest(plan.cells)}
    write_whole(plan.folder / "summary.html", rendered("summary.html", **said))
    return plan.folder / "summary.html"


def seconds_by_key(journal: Path) -> dict[str, float]:
    """Seconds of the tasks by what their names begin with; a line torn by a kill is left out."""
    spent: dict[str, float] = defaultdict(float)
    for line in journal.read_text().splitlines() if journal.is_file() else []:
        with suppress(ValueError):
            task = json.loads(line)
            spent[task["task"].split(", ")[0]] += task["seconds"]
    return spent


def numbers(cell: Cell) -> dict[str, float | str | None]:
    """The columns of a cell's claims in the summary."""
    found = {}
    for claim, entry in cell.entries.items():
        for name in ("value", "low", "high"):
            found[f"{claim} {name}"] = getattr(entry.finding.estimate, name, None)
        found |= {f"{claim} verdict": entry.verdict, f"{claim} why": entry.why}
    return found


def forest(cells: list[Cell]) -> str:
    """One panel a claim: its regions, and every cell with its interval, as an <img>."""
    names = [name for name in claims() if any(name in cell.entries for cell in cells)]
    if not names:
        return ""
    figure, axes = panels(len(names), 1, height=0.9 + 0.25 * len(cells))
    for ax, name in zip(axes, names, strict=True):
        forest_panel(ax, name, cells)
    picture = b64encode(figure.svg().encode()).decode()
    plt.close(figure)
    alt = "Estimates of each claim with 95 % intervals, a row a cell"
    return f"<img alt='{alt}' src='data:image/svg+xml;base64,{picture}'>"


def forest_panel(ax: Axes, claim: str, cells: list[Cell]) -> None:
    """The cells of one claim; a hollow mark is not testable."""
    some = [cell.entries[claim] for cell in cells if claim in cell.entries]
    spec, within = some[0].spec, limits(some[0].spec, some)
    shade(ax, spec, "x", within)
    for y, entry in enumerate(cell.entries.get(claim) for cell in cells):
        if entry is None or entry.finding.estimate is None:
            ax.text(within[0], y, " no number", va="center")
        else:
            estimate(ax, entry, float(y), within, INK[entry.verdict])
    names = [", ".join(map(str, cell.varied.values())) for cell in cells]
    ax.set_yticks(range(len(cells)), names)
    ax.set(ylim=(len(cells) - 0.4, -0.6), xlabel=spec.unit)
    ax.set_title(f"{claim}, {claims()[claim].short}", loc="left")
