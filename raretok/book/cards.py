"""Neuron cards: a page for each neuron whose contexts were measured, from data alone."""

import shutil
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML
from jaxtyping import Float
from jinja2 import Environment, FileSystemLoader

from raretok.claims.sample import Sample, neurons_in
from raretok.claims.study import CORRECTED, Study
from raretok.claims.thresholds.gradient import in_bins, log_frequency
from raretok.errors import NotTestableError
from raretok.ledger.over_models import NAMES
from raretok.measure.find import LEAD
from raretok.measure.neurons import BOUNDS, bounds_in, direct_effects, neurons
from raretok.paths import ROOT
from raretok.text.rarity import RARE

FOLDER = "_generated/cards"
BINS = (3, 5)  # of frequency: rare targets, all others
LINKED = 0.3  # |r| from which two neurons count as linked
ACTS = 0.1  # of its mean square at negative activations, for contexts of these to be shown
FAINT = 0.15  # of the largest activation of a card: less is not shaded
# What has no shape of its own in a token, as it is shown.
SHOWN = {i: f"\\x{i:02x}" for i in (*range(32), *range(127, 160))} | {9: "⇥", 10: "↵", 13: "\\r"}
WIDTH, HEIGHT, EDGE = 400, 130, 12  # of the figure's area


def cards_of(model: str) -> list[int]:
    """Neurons of a shipped model that have a card, the head first; none if none was measured."""
    return list(carded(Study.shipped(model)))


@cache
def carded(study: Study) -> tuple[int, ...]:
    """Neurons of a study that have a card."""
    try:
        some = study.part("cards").neuron.values if study.measurements.there("cards") else []
        return tuple(map(int, some))
    except NotTestableError:
        return ()


def card_link(model: str, neuron: int) -> str:
    """Address of a card from a page of the book."""
    return f"{FOLDER}/{model}-{neuron}.html"


def head_line(study: Study) -> HTML:
    """The neurons of the head by rank, linked to their cards where these are."""
    sample, label = study.sample(CORRECTED), study.measurements.label
    mean = sample.mean("rare", np.ones((1, 1, sample.deal.n_blocks)))[0, 0]
    head = np.argsort(-mean, kind="stable")[: neurons_in(1.0, mean.size)].tolist()
    links = {one: f'<a href="{card_link(label, one)}">{one}</a>' for one in carded(study)}
    named = ", ".join(links.get(one, str(one)) for one in head)
    return HTML(f"<p>The neurons of the head, by rank: {named}.</p>")


def write_cards(book: Path, studies: Iterable[Study]) -> None:
    """Write the cards of some models and the tables of their index; none of what is unmeasured."""
    shutil.rmtree(book / FOLDER, ignore_errors=True)
    (book / FOLDER).mkdir(parents=True)
    loader = FileSystemLoader(ROOT / "book" / "_templates")
    templates = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    templates.globals |= {"ACTS": ACTS, "FAINT": FAINT, "LINKED": LINKED}
    models = [Cards(study) for study in studies if carded(study)]
    for cards in models:
        for place, neuron in enumerate(cards.neurons):
            text = templates.get_template("card.md").render(cards=cards, place=place)
            (book / FOLDER / f"{cards.label}-{neuron}.md").write_text(text, encoding="utf-8")
    index = templates.get_template("cards.md").render(models=models)
    (book / f"{FOLDER}.md").write_text(index, encoding="utf-8")


class Cards:
    """What the cards of one model say."""

    def __init__(self, study: Study):
        self.study, self.neurons = study, carded(study)
        self.label, self.part = study.measurements.label, study.part("cards")
        self.name = NAMES[LEAD] if self.label == LEAD else self.label
        self.head = self.neurons[: int((self.part.matched.values < 0).sum())]
        self.sample: Sample = study.sample(CORRECTED)
        self.effects = study.effects(CORRECTED)
        self.texts = {int(key): one.translate(SHOWN) for key, one in self.part.texts.items()}
        squares = self.part.square.values
        self.positive = squares[0] / np.maximum(squares.sum(axis=0), 1e-300)  # share of the square

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a neuron of the layer: effects with intervals, direct ones too, and traits."""
        groups = self.sample.groups[0]
        lengths = {n: np.linalg.norm(W, axis=1) for n, W in self.sample.matrices.items()}
        more = {f"{name}_norm": length for name, length in lengths.items()} | {
            "chosen": np.bincount(groups.ravel(), minlength=len(self.effects.neuron)) / len(groups)
        }
        return neurons(self.effects).assign(**more, **self.direct())

    def direct(self) -> dict[str, Float[np.ndarray, " neuron"]]:
        """Effects with the scale of the final norm held, where they were measured."""
        known = self.study.measurements.there("interventions")
        return direct_effects(self.study.part("interventions")) if known else {}

    @cached_property
    def gradient(self) -> list[tuple[bool, float, Float[np.ndarray, "bound card"]]]:
        """Bins of the target's frequency: rare or not, mean log10 of it, and mean effects."""
        x = log_frequency(self.effects, self.study.part("model"))
        rare, weight = self.sample.stratum == RARE, self.sample.weight
        bins = {True: in_bins(x, rare, BINS[0]), False: in_bins(x, ~rare, BINS[1])}
        rows = [weight * some for of in bins.values() for some in of]
        found = bounds_in(self.effects.isel(neuron=list(self.neurons)), np.stack(rows))
        kinds = [kind for kind, of in bins.items() for _ in of]
        at = [float(np.average(x, weights=some)) for some in rows]
        return list(zip(kinds, at, found, strict=True))

    @cached_property
    def links(self) -> Float[np.ndarray, "card neuron"]:
        """Correlations where the target is rare, as the claims take them; none with itself."""
        rows, some = np.flatnonzero(self.sample.stratum == RARE), list(self.neurons)
        r = np.cov(self.sample.activations(rows).T, aweights=self.sample.weight[rows])
        sd = np.sqrt(np.diag(r))
        np.fill_diagonal(r, 0)
        return r[some] / np.outer(sd[some], np.where(sd > 0, sd, np.inf))

    def bounds(self, neuron: int, name: str) -> Float[np.ndarray, "3"]:
        """Value and ends of the interval of an effect, nats."""
        return self.table.loc[neuron, [name + end for end in BOUNDS]].to_numpy(float)

    @cached_property
    def near(self) -> pd.DataFrame:
        """Mean |r| of each neuron with the others of the head, and how many it is linked to."""
        r, head = np.abs(self.links), list(self.head)
        with_head = r[:, head].sum(axis=1) / (len(head) - np.isin(self.neurons, head))
        return pd.DataFrame({"with_head": with_head, "degree": (r > LINKED).sum(axis=1)})

    def points(self, place: int) -> dict[str, Any]:
        """Where the figure of effect by frequency has its marks, and its zero."""
        rare, at, bounds = zip(*self.gradient, strict=True)
        values = 1000 * np.array(bounds)[..., place]
        known = np.append(values[np.isfinite(values)], 0.0)
        x = np.interp(at, (at[0], at[-1]), (EDGE, WIDTH - EDGE))
        ends = (known.min(), max(known.max(), known.min() + 1e-9))
        y, zero = (np.interp(v, ends, (HEIGHT - EDGE, EDGE)) for v in (values, 0.0))
        marks = zip(rare, at, x, y, values, strict=True)
        return {"marks": list(marks), "zero": float(zero), "least": ends[0], "most": ends[1]}
