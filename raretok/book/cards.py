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
from raretok.claims.style import number
from raretok.claims.thresholds.gradient import bins_of, log_frequency, mean_frequency
from raretok.errors import NotTestableError
from raretok.ledger.over_models import NAMES
from raretok.measure.find import LEAD
from raretok.measure.neurons import BOUNDS, bounds_in, direct_effects, neurons
from raretok.paths import ROOT
from raretok.text.rarity import RARE

FOLDER = "_generated/cards"
LINKED = 0.3  # |r| from which two neurons count as linked
ACTS = 0.1  # of its mean square at negative activations, for contexts of these to be shown
FAINT = 0.15  # of the largest activation of a card: less is not shaded
SIGNS = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "\\r"}
WIDTH, HEIGHT, EDGE = 400, 130, 12  # of the figure's area


def seen(token: str, space: str = SIGNS[" "]) -> str:
    """A token with signs for what would not be seen in it; in running text a space stays one."""
    signs = SIGNS | {" ": space}
    shown = (signs.get(c) or (c if c.isprintable() else f"U+{ord(c):04X}") for c in token)
    return "".join(shown) or "(empty)"


def rendered(template: str, **given: Any) -> str:
    """A file of `book/_templates`, filled in; what is given is text there, never markup."""
    return templates().get_template(template).render(given)


@cache
def templates() -> Environment:
    loader = FileSystemLoader(ROOT / "book" / "_templates")
    made = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.globals |= {"ACTS": ACTS, "FAINT": FAINT, "LINKED": LINKED, "seen": seen}
    return made


@cache
def carded(study: Study) -> tuple[int, ...]:
    """Neurons of a study that have a card, the head first; none if none was measured."""
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
    models = [Cards(study) for study in studies if carded(study)]
    for cards in models:
        for place, neuron in enumerate(cards.neurons):
            text = rendered("card.md", cards=cards, place=place)
            (book / FOLDER / f"{cards.label}-{neuron}.md").write_text(text, encoding="utf-8")
    (book / f"{FOLDER}.md").write_text(rendered("cards.md", models=models), encoding="utf-8")


class Cards:
    """What the cards of one model say."""

    def __init__(self, study: Study):
        self.study, self.neurons = study, carded(study)
        self.label, self.part = study.measurements.label, study.part("cards")
        self.name = NAMES[LEAD] if self.label == LEAD else self.label
        self.head = self.neurons[: int((self.part.matched.values < 0).sum())]
        self.sample: Sample = study.sample(CORRECTED)
        self.effects = study.effects(CORRECTED)
        self.texts = {int(key): one for key, one in self.part.texts.items()}
        squares = self.part.square.values
        self.positive = squares[0] / np.maximum(squares.sum(axis=0), 1e-300)  # share of the square

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a neuron of the layer: effects with intervals, direct ones too, and traits."""
        matrices = self.sample.matrices.items()
        more = {f"{name}_norm": np.linalg.norm(W, axis=1) for name, W in matrices}
        if self.study.measurements.there("interventions"):
            more |= direct_effects(self.study.part("interventions"))
        return neurons(self.effects).assign(chosen=self.sample.chosen, **more)

    @cached_property
    def gradient(self) -> tuple[list[float], Float[np.ndarray, "bin bound card"], int]:
        """Bins of the target's frequency: mean log10 of it, mean effects, and how many are rare."""
        x = log_frequency(self.effects, self.study.part("model"))
        below, above = bins_of(self.sample, x)
        members = self.sample.weight * np.stack(below + above)
        found = bounds_in(self.effects.isel(neuron=list(self.neurons)), members)
        return mean_frequency(self.sample, x, below + above), found, len(below)

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

    def words(self, some: Iterable) -> list[str]:
        """Texts of token types."""
        return [self.texts[int(one)] for one in some]

    @cached_property
    def near(self) -> pd.DataFrame:
        """Mean |r| of each neuron with the others of the head, and how many it is linked to."""
        r, head = np.abs(self.links), list(self.head)
        with_head = r[:, head].sum(axis=1) / (len(head) - np.isin(self.neurons, head))
        return pd.DataFrame({"with_head": with_head, "degree": (r > LINKED).sum(axis=1)})

    def points(self, place: int) -> dict[str, Any]:
        """Where the figure of effect by frequency has its marks, its zero and its powers of ten."""
        at, bounds, n_rare = self.gradient
        values, per_million = 1000 * bounds[..., place], np.array(at) + 6
        known = np.append(values[np.isfinite(values)], 0.0)
        ends = (known.min(), max(known.max(), known.min() + 1e-9))
        y, zero = (np.interp(v, ends, (HEIGHT - EDGE, EDGE)) for v in (values, 0.0))
        tens = np.arange(np.ceil(per_million[0]), np.floor(per_million[-1]) + 1)
        across = (per_million[0], per_million[-1]), (EDGE, WIDTH - EDGE)
        x, ticks = (np.interp(v, *across) for v in (per_million, tens))
        said = [number(10**one) for one in per_million.tolist()]
        named = [f"{10**one:,g}" for one in tens.tolist()]
        return {
            "marks": list(zip(np.arange(len(at)) < n_rare, said, x, y, values, strict=True)),
            "ticks": list(zip(named, ticks, strict=True)),
            **{"zero": float(zero), "least": ends[0], "most": ends[1]},
        }
