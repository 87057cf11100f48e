"""The neuron atlas and the tables to download: written from measurements when the site is built."""

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
from raretok.book.cards import card_link, carded, rendered, seen
from raretok.book.pages import write_whole
from raretok.claims import style
from raretok.claims.sample import neurons_in
from raretok.claims.study import Study
from raretok.claims.thresholds.gradient import BINS, bins_of, mean_frequency, read
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

DIGITS, SHOWN_DIGITS = 6, 3  # significant ones of a table, and of the page's data
HEAD = 1.0  # % of the layer
FIRST = 30  # neurons in the table of the static page
TOKENS = ("promotes", "suppresses")
COLUMNS_OF_TABLE = COLUMNS | MEASURED
# How the columns begin that the page shows; the others would only make it slow to load.
SHOWN = ("rank", "in_head", "delta_loss_rare", "delta_loss_common", "delta_loss_bin", "direct")
SHOWN += ("firing_rate", "gate_rate", "W_out_norm", *TOKENS)


@dataclass(frozen=True, eq=False)
class NeuronTable:
    """One row a neuron of a model that ships."""

    label: str  # as its files and folders are named
    study: Study

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The table, as COLUMNS_OF_TABLE explains it, in order of the neurons."""
        frame, (sample, _) = of_measurement(self.study.part), read(self.study)
        in_head = (frame["rank"] <= neurons_in(HEAD, len(frame))).astype(bool)
        more = {"in_head": in_head, "head_share": sample.chosen}
        for number, rows in enumerate(self.bins, start=1):
            weight = sample.weight[rows]
            more[f"delta_loss_bin_{number}"] = weight @ sample.delta_loss[rows] / weight.sum()
        return significant(described(frame.assign(**more), COLUMNS_OF_TABLE), DIGITS)

    @cached_property
    def bins(self) -> list[np.ndarray]:
        """Positions in bins of the frequency of their target, rarest first."""
        below, above = bins_of(*read(self.study))
        return below + above

    @property
    def frequency(self) -> list[float]:
        """Mean frequency of the targets of each bin, a million tokens (of its logarithm)."""
        mean = mean_frequency(*read(self.study), self.bins)
        return [float(f"{10 ** (6 + one):.4g}") for one in mean]

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
        """What the page holds of the model: columns in order of the neurons; where cards are.

        Tokens are as they are shown, so that the page finds what a reader sees.
        """
        frame = significant(self.frame, SHOWN_DIGITS)
        shown = {name: frame[name].tolist() for name in frame if name.startswith(SHOWN)}
        shown |= {name: [[*map(seen, some)] for some in shown[name]] for name in TOKENS}
        return {
            "model": self.label,
            "frequency": self.frequency,
            "n_rare": BINS[0],
            "columns": shown,
            "cards": {neuron: card_link(self.label, neuron) for neuron in carded(self.study)},
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
    sizes = {file.name: file.stat().st_size for file in downloads.iterdir()}
    files = {"models": found, "sizes": sizes, "DIGITS": DIGITS, "BINS": BINS}
    head = found[0].frame.sort_values("rank").head(FIRST).to_dict("records")
    write_whole(folder / "atlas_head.md", rendered("atlas_head.md", rows=head))
    write_whole(folder / "downloads.md", rendered("downloads.md", **files))
    write_whole(folder / "neuron_columns.md", column_table(COLUMNS_OF_TABLE))


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
    write_whole(file, figure.svg())
    plt.close(figure)
