"""Neuron cards: a page for each neuron whose contexts were measured, from data alone."""

import shutil
import unicodedata
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from IPython.display import HTML
from jaxtyping import Float
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup, escape

from raretok.claims.sample import Sample, neurons_in
from raretok.claims.study import BOTH, CORRECTED, Study
from raretok.claims.thresholds.gradient import in_bins, log_frequency
from raretok.ledger.over_models import NAMES
from raretok.measure.find import LEAD, there
from raretok.measure.neurons import bounds_in, effects_by_class, neurons
from raretok.paths import ROOT
from raretok.text.rarity import RARE

FOLDER = "_generated/cards"
BINS = (3, 5)  # of frequency: rare targets, all others
NEIGHBOURS, LINKED = 5, 0.3  # neurons named; |r| from which two neurons count as linked
ACTS = 0.1  # of its mean square at negative activations, for contexts of these to be shown
FAINT = 0.15  # of the largest activation of a card: less is not shaded
MARKS = {"\n": "↵", "\t": "⇥", "\r": "␍", "`": "&#96;"}  # a backtick would end the raw block
WIDTH, HEIGHT, EDGE = 400, 130, 12  # of the figure's area
ENDS = ("", "_low", "_high")


def cards_of(model: str) -> list[int]:
    """Neurons of a shipped model that have a card, the head first; none if none was measured."""
    return list(carded(Study.shipped(model)))


@cache
def carded(study: Study) -> tuple[int, ...]:
    """Neurons of a study that have a card."""
    some = study.part("cards").neuron.values if there(study.measurements, "cards") else []
    return tuple(map(int, some))


def card_link(model: str, neuron: int) -> str:
    """Address of a card from a page of the book."""
    return f"{FOLDER}/{model}-{neuron}.html"


def head_line(study: Study) -> HTML:
    """The neurons of the head by rank, linked to their cards where these are."""
    sample, label = study.sample(CORRECTED), study.measurements.label
    mean = sample.mean("rare", np.ones((1, 1, sample.deal.n_blocks)))[0, 0]
    head = np.argsort(-mean, kind="stable")[: neurons_in(1.0, mean.size)].tolist()
    links = [
        f'<a href="{card_link(label, one)}">{one}</a>' if one in carded(study) else str(one)
        for one in head
    ]
    return HTML(f"<p>The neurons of the head, by rank: {', '.join(links)}.</p>")


def write_cards(book: Path, studies: Iterable[Study]) -> None:
    """Write the cards of some models and the tables of their index; none of what is unmeasured."""
    shutil.rmtree(book / FOLDER, ignore_errors=True)
    (book / FOLDER).mkdir(parents=True)
    every = Environment(
        loader=FileSystemLoader(ROOT / "book" / "_templates"),
        autoescape=True,  # whatever a token holds
        trim_blocks=True,
        lstrip_blocks=True,
    )
    every.filters |= {"token": token, "number": number, "effect": effect}
    every.globals |= {"FAINT": FAINT, "LINKED": LINKED}
    models = [Cards(study) for study in studies if carded(study)]
    for cards in models:
        for place, neuron in enumerate(cards.neurons):
            text = every.get_template("card.md").render(cards=cards, **cards.view(place))
            (book / FOLDER / f"{cards.label}-{neuron}.md").write_text(text, encoding="utf-8")
    index = every.get_template("cards.md").render(models=models)
    (book / f"{FOLDER}.md").write_text(index, encoding="utf-8")


def token(text: str) -> Markup:
    """A token's text; what has no shape of its own gets one."""
    shown = "".join("␦" if unicodedata.category(c) == "Cc" and c not in MARKS else c for c in text)
    return Markup("").join(Markup(MARKS[c]) if c in MARKS else escape(c) for c in shown)


def number(value: float, form: str = ".3g") -> str:
    return format(float(value), form).replace("-", "−")


def effect(bounds: Float[np.ndarray, "3"]) -> Markup:
    """A mean effect with its interval, in thousandths of a nat."""
    value, low, high = (number(1000 * one) for one in bounds)
    return Markup(f"{value} <small>({low} to {high})</small>")


class Cards:
    """What the cards of one model say."""

    def __init__(self, study: Study):
        self.study, self.neurons = study, carded(study)
        self.label, self.part = study.measurements.label, study.part("cards")
        self.name = NAMES[LEAD] if self.label == LEAD else self.label
        self.head = self.neurons[: int((self.part.matched.values < 0).sum())]
        self.sample: Sample = study.sample(CORRECTED)
        self.effects = study.effects(CORRECTED)

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
        found = self.study.interventions()
        if found is None:
            return {}
        cells = found.isel(intervention=list(found.interventions).index("direct"))
        cells = cells.rename(cell="position", cell_document="document", cell_stratum="stratum")
        direct = effects_by_class(cells.assign(delta_loss=cells.delta_loss / cells.weight))
        return {name.replace("delta_loss", "direct"): one for name, one in direct.items()}

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
        return self.table.loc[neuron, [name + end for end in ENDS]].to_numpy(float)

    def view(self, place: int) -> dict[str, Any]:
        """What the template of a card is filled with."""
        part = self.part.isel(card=place)
        squares = part.square.values
        positive = float(squares[0] / squares.sum()) if squares.any() else 1.0
        return {
            "place": place,
            "neuron": self.neurons[place],
            "control_of": int(part.matched),
            "row": self.table.loc[self.neurons[place]],
            "positive": positive,
            "windows": {kind: self.windows(part, kind) for kind in kinds_shown(part, positive)},
            "writes": list(zip(*(self.written(place, side) for side in (0, 1)), strict=True)),
            "near": self.near(place),
            "points": self.points(place),
        }

    def written(self, place: int, side: int) -> list[tuple[str, float]]:
        """The tokens whose logits it raises (side 0) or lowers most, and by how much."""
        part = self.part.isel(card=place, side=side)
        texts = [part.texts[str(one)] for one in part.type.values.astype(int)]
        return list(zip(texts, part.logit.values, strict=True))

    def windows(self, part: xr.Dataset, kind: str) -> list[dict[str, Any]]:
        """The contexts of one kind: source; of each token text, activation, share, if it is the peak."""
        most, found = np.abs(part.activation.values).max() or 1.0, []
        for i in np.flatnonzero([one == kind for one in part.kinds]):
            of = part.isel(window=i)
            pairs = enumerate(zip(of.token.values.astype(int), of.activation.values, strict=True))
            tokens = [
                (part.texts[str(one)], a, abs(a) / most, at == part.peak)
                for at, (one, a) in pairs
                if one >= 0
            ]
            found.append({"source": part.documents[str(int(of.document))], "tokens": tokens})
        return found

    def near(self, place: int) -> dict[str, Any]:
        """The neurons most correlated with one, and how it and the controls stand in the graph."""
        r, control = np.abs(self.links), self.part.matched.values >= 0
        with_head = r[:, list(self.head)].sum(axis=1) / (len(self.head) - ~control)
        degree = (r > LINKED).sum(axis=1)
        first = np.argsort(-r[place], kind="stable")[:NEIGHBOURS].tolist()
        return {
            "first": [(one, self.links[place, one]) for one in first],
            "with_head": with_head[place],
            "theirs": with_head[control],
            "degree": degree[place],
            "median": np.median(degree[control]),
        }

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


def kinds_shown(part: xr.Dataset, positive: float) -> list[str]:
    """Kinds of windows in the order shown; negative ones where it does much of its work there."""
    order = ["top", "bottom", "random"] if positive >= 0.5 else ["bottom", "top", "random"]
    left_out = {"bottom"} if 1 - positive < ACTS else set()
    return [kind for kind in order if kind in set(part.kinds) - left_out]
