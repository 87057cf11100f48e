"""The neuron atlas and the tables to download: written from measurements when the site is built."""

import html
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from raretok import __version__
from raretok.book.cards import card_link, cards_of
from raretok.book.pages import write_whole
from raretok.claims import style
from raretok.claims.sample import neurons_in
from raretok.claims.study import BOTH, CORRECTED, Study
from raretok.claims.thresholds.gradient import BINS, bins_of, log_frequency
from raretok.errors import NotTestableError
from raretok.ledger.over_models import NAMES
from raretok.measure.find import UNTRAINED
from raretok.measure.neurons import (
    COLUMNS,
    MEASURED,
    column_table,
    described,
    of_measurement,
    with_units,
)
from raretok.text.rarity import KINDS

DIGITS, SHOWN_DIGITS = 6, 4  # significant ones of a table, and of the page's data
HEAD = 1.0  # % of the layer
FIRST = 30  # neurons in the table of the static page
TOKENS = ("promotes", "suppresses")
COLUMNS_OF_TABLE = COLUMNS | MEASURED


@dataclass(frozen=True, eq=False)
class NeuronTable:
    """One row a neuron of a model that ships."""

    label: str  # as its files and folders are named
    study: Study

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The table, as COLUMNS_OF_TABLE explains it, in order of the neurons."""
        frame = of_measurement(self.study.part)
        sample, n = self.study.sample(CORRECTED), len(frame)
        chosen = np.bincount(sample.groups[0].ravel(), minlength=n)
        more = {
            "in_head": (frame["rank"] <= neurons_in(HEAD, n)).astype(bool),
            "head_share": chosen / len(sample.groups[0]),
        }
        for number, rows in enumerate(self.bins, start=1):
            weight = sample.weight[rows]
            more[f"delta_loss_bin_{number}"] = weight @ sample.delta_loss[rows] / weight.sum()
        return significant(described(frame.assign(**more), COLUMNS_OF_TABLE), DIGITS)

    @cached_property
    def bins(self) -> list[np.ndarray]:
        """Positions in bins of the frequency of their target, rarest first."""
        below, above = bins_of(self.study.sample(CORRECTED), self.log_frequency)
        return below + above

    @property
    def log_frequency(self) -> np.ndarray:
        return log_frequency(self.study.part(BOTH[0]), self.study.part("model"))

    @property
    def frequency(self) -> list[float]:
        """Mean frequency of the targets of each bin, a million tokens (of its logarithm)."""
        x, weight = self.log_frequency, self.study.sample(CORRECTED).weight
        mean = [np.average(x[rows], weights=weight[rows]) for rows in self.bins]
        return [float(f"{10 ** (6 + one):.{SHOWN_DIGITS}g}") for one in mean]

    def write(self, folder: Path) -> None:
        """Write the table as Parquet and as CSV; equal tables give equal bytes."""
        made = {"model": self.label, "measurement": self.study.measurements.name}
        made |= {"raretok": __version__, "targets_per_million_of_bins": self.frequency}
        file = folder / f"neurons-{self.label}"
        pq.write_table(with_units(self.frame, made), file.with_suffix(".parquet"))
        lists = {name: self.frame[name].map(as_json) for name in TOKENS}
        self.frame.assign(**lists).to_csv(
            file.with_suffix(".csv"), index=False, lineterminator="\n"
        )

    def page_data(self) -> dict[str, Any]:
        """What the page holds of the model: columns in order of the neurons; where cards are."""
        known = cards_of(self.study.parameters.model)
        frame = significant(self.frame, SHOWN_DIGITS)
        return {
            "model": self.label,
            "frequency": self.frequency,
            "n_rare": BINS[0],
            "columns": {name: frame[name].tolist() for name in frame},
            "cards": {neuron: card_link(self.label, neuron) for neuron in known},
        }


def significant(frame: pd.DataFrame, digits: int) -> pd.DataFrame:
    """The same with so many significant digits: what rounding differs by elsewhere is beyond."""
    floats = frame.select_dtypes("float64")
    cut = {n: [float(f"{value:.{digits}g}") for value in floats[n]] for n in floats}
    return frame.assign(**cut)


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def tables() -> Iterator[NeuronTable]:
    """Of every model in the forest plots whose neurons and tokens were measured."""
    for label in NAMES:
        model = UNTRAINED if label == UNTRAINED.replace("@", "-") else label
        table = NeuronTable(label, Study.shipped(model))
        try:
            _ = table.frame
        except NotTestableError:  # absent from the page, not empty on it
            continue
        yield table


def write_atlas(book: Path) -> None:
    """Write what the pages `atlas` and `downloads` show and link to, below `_generated`."""
    folder, listed, found = book / "_generated", [], []
    downloads, data = folder / "site" / "downloads", folder / "site" / "atlas"
    for one in (downloads, data):
        one.mkdir(parents=True, exist_ok=True)
    for table in tables():
        table.write(downloads)
        write_whole(data / f"{table.label}.js", f"atlasData({as_json(table.page_data())});")
        numbers = {"neurons": len(table.frame), "head": int(table.frame.in_head.sum())}
        listed.append({"model": table.label, "name": NAMES[table.label], **numbers})
        found.append(table)
    write_whole(data / "models.js", f"var ATLAS_MODELS = {as_json(listed)};")
    draw_ranks(found[0].frame, folder / "atlas.svg")
    (folder / "atlas_head.md").write_text(head_table(found[0].frame))
    (folder / "neuron_columns.md").write_text(column_table(COLUMNS_OF_TABLE))
    (folder / "downloads.md").write_text(download_table(found, downloads))


def draw_ranks(frame: pd.DataFrame, file: Path) -> None:
    """The rank curve as a picture, for readers without the script."""
    figure, (ax,) = style.panels(height=3.6)
    helps, head = frame.delta_loss_rare > 0, frame.in_head
    kinds = {"the others": (~head, "0.5"), "the head": (head, style.COLOURS["rare"])}
    for label, (rows, colour) in kinds.items():
        rows = rows & helps
        ax.scatter(
            frame["rank"][rows], frame.delta_loss_rare[rows], s=12, color=colour, label=label
        )
    ax.set(xscale="log", yscale="log", xlabel="neuron rank", ylabel="effect on rare targets (nats)")
    ax.legend(frameon=False)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def head_table(frame: pd.DataFrame) -> str:
    """The first neurons by rank, as a table without a script (HTML)."""
    first = frame.sort_values("rank").head(FIRST)
    shown = {
        "rank": first["rank"],
        "neuron": first.neuron,
        **{f"on {name} targets (nats)": effects(first, name) for name in KINDS},
        "|W_out|": [f"{value:.3g}" for value in first.W_out_norm],
        **{name: first[name].map(quoted) for name in TOKENS},
    }
    table = pd.DataFrame(shown).to_html(index=False, escape=False, border=0, justify="left")
    return f"```{{raw}} html\n{table}\n```\n"


def effects(frame: pd.DataFrame, kind: str) -> list[str]:
    """Value and interval of each neuron."""
    ends = frame[[f"delta_loss_{kind}{end}" for end in ("", "_low", "_high")]].to_numpy()
    return [f"{value:.3g} ({low:.3g} to {high:.3g})" for value, low, high in ends]


def quoted(tokens: list[str]) -> str:
    """Tokens as the page shows them: spaces and line ends are seen."""
    return " ".join(f"<code>{html.escape(seen(one))}</code>" for one in tokens)


def seen(token: str) -> str:
    """A token with signs for what would not be seen in it."""
    signs = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "\\r"}
    shown = (signs.get(c) or (c if c.isprintable() else f"U+{ord(c):04X}") for c in token)
    return "".join(shown) or "(empty)"


def download_table(found: list[NeuronTable], downloads: Path) -> str:
    """The files of every model, and the frequency of its bins (HTML links: they are not pages)."""
    rows = [
        f"| `{one.label}` | {len(one.frame):,} | {link(one.label, 'parquet', downloads)} "
        f"| {link(one.label, 'csv', downloads)} | {', '.join(f'{f:g}' for f in one.frequency)} |"
        for one in found
    ]
    head = (
        "| model | neurons | Parquet | CSV "
        "| mean frequency of the targets of bins 1 to 10, a million tokens |"
    )
    said = (
        f"Numbers have {DIGITS} significant digits. Bins of frequency go from the rarest targets "
        f"to the most frequent ones: the first {BINS[0]} have rare targets, the others those that "
        "are not rare, and no token type is in two; the mean is of the logarithm."
    )
    return "\n".join([head, "|---|---:|---|---|---|", *rows, "", said]) + "\n"


def link(label: str, kind: str, downloads: Path) -> str:
    name = f"neurons-{label}.{kind}"
    size = (downloads / name).stat().st_size / 1000
    return f'<a href="../downloads/{name}" download>{size:,.0f} kB</a>'
