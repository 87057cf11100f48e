r"""The page `domains`: do the same neurons serve rare tokens whatever a text is about (G5)?

Two orders of the neurons agree by no more than either agrees with itself on other documents. With
halves 1 and 2 of the documents of each domain

$$\rho(a, b) = r(a_1, b_2) \Big/ \sqrt{r(a_1, a_2) \, r(b_1, b_2)}$$

(Spearman, 1904) is the rank correlation over that ceiling. It is not clipped: noise can lift it
above 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from raretok.claims.finding import Finding, found, untested
from raretok.claims.sample import KINDS, Folds, Sample, correlation, fold_means, ranked
from raretok.errors import NotTestableError, UserError
from raretok.stats.jackknife import Estimate, block_sums, deal, jackknife

TEXTS = ("licences", "addresses")
ESTIMANDS = tuple(("G5", name) for name in ("between domains", *TEXTS, "unseen domain"))
CORPUS = "the corpus"
FEWEST = 8  # documents of a domain: a block each, and what G5's gate asks for
POSITIONS = 200  # rare ones of a domain: what G5's gate asks for, too
DOMAINS = 3  # with two there is one pair, and nothing between domains in general


@cache
def splits() -> tuple[Folds, Folds]:
    """Halves of the blocks, the same for every side: its documents lie in them by chance."""
    return deal(np.arange(FEWEST), rng=np.random.default_rng(FEWEST)).folds(cross_fitted=True)


@dataclass(frozen=True, eq=False)
class Side:
    """Influence on the rare targets of a domain or text, summed over blocks of its documents."""

    name: str
    sums: Float[np.ndarray, "block neuron"]  # weighted, nats
    weight: Float[np.ndarray, " block"]
    positions: int  # with a rare target
    documents: int
    base_rate: float  # share of the targets that are rare

    @property
    def gap(self) -> str:
        """Why it has no order of the neurons; empty where it has one."""
        if self.positions >= POSITIONS and self.documents >= FEWEST:
            return ""
        there = f"{self.positions} rare positions in {self.documents} documents"
        return f"{self.name}: {there}, {POSITIONS} in {FEWEST} are needed"

    @cached_property
    def means(self) -> tuple[Float[np.ndarray, "left_out split neuron"], ...]:
        """Mean influence on either half of the blocks, nats. Raises `NotTestableError`."""
        if self.gap:
            raise NotTestableError(self.gap)
        missing = f"rare position ({self.name})"
        return tuple(
            fold_means(folds, self.sums, self.weight[:, None], missing) for folds in splits()
        )

    @cached_property
    def ranks(self) -> tuple[Float[np.ndarray, "left_out split neuron"], ...]:
        return tuple(ranked(one) for one in self.means)

    @cached_property
    def reliability(self) -> Float[np.ndarray, " left_out"]:
        """Rank correlation between halves, mean over the splits."""
        return correlation(*self.ranks).mean(axis=1)

    @classmethod
    def of_sample(cls, name: str, sample: Sample) -> "Side":
        """Of a whole corpus; its documents are dealt into blocks of their own."""
        rare = sample.stratum == KINDS["rare"]
        document, weight = sample.document[rare], sample.weight[rare]
        block = deal(document, rng=sample.rng(f"deal {name}")).of(document) % FEWEST
        return cls(
            name,
            block_sums(sample.delta_loss[rare].astype(np.float64), weight, block, FEWEST),
            np.bincount(block, weight, FEWEST),
            int(rare.sum()),
            np.unique(document).size,
            float(weight.sum() / sample.weight.sum()),
        )

    @classmethod
    def of_part(cls, name: str, data: xr.Dataset, part: int = 0) -> "Side":
        """Of a part `influence` or `domains`, whose documents lie in blocks already."""
        one = data.isel(part=part, token_class=list(KINDS).index("rare"))
        block = np.arange(one.sizes["block"]) % FEWEST
        sums, weight = one.sums.values.astype(np.float64), one.weight.values.astype(np.float64)
        return cls(
            name,
            block_sums(sums, np.ones(block.size), block, FEWEST),
            np.bincount(block, weight, FEWEST),
            int(one.positions),
            int(one.documents),
            float(one.rare_share),
        )


def shared(one: Side, two: Side) -> Float[np.ndarray, " left_out"]:
    """Rank correlation over its ceiling: of all documents, then without a block of both.

    Raises `NotTestableError` where the order of one of them does not repeat.
    """
    for side in (one, two):
        if side.reliability.min() <= 0:
            raise NotTestableError(f"{side.name}: the order of the neurons does not repeat")
    across = correlation(one.ranks[0], two.ranks[1]).mean(axis=1)
    return across / np.sqrt(one.reliability * two.reliability)


def check_domains(n: int) -> None:
    """Raise `NotTestableError` for too few domains that have an order."""
    if n < DOMAINS:
        raise NotTestableError(
            f"{n} domains have an order of the neurons that repeats between halves of "
            f"{POSITIONS} rare positions in {FEWEST} documents or more: {DOMAINS} are needed"
        )


def between(sides: list[Side]) -> Estimate:
    """Mean over the pairs of domains that have an order. Raises `NotTestableError` for too few."""
    check_domains(len(sides))
    return jackknife(np.mean([shared(*pair) for pair in combinations(sides, 2)], axis=0))


def with_order(sides: list[Side]) -> list[Side]:
    """Those that have enough positions, and an order of the neurons that repeats."""
    return [side for side in sides if not side.gap and side.reliability.min() > 0]


def unseen(never: list[Side], seen: list[Side]) -> Estimate:
    """A domain against the others in the model that never saw it, less that in the one that did."""
    less, more = (jackknife(shared(*sides)) for sides in (never, seen))
    # Two models and other draws: their errors are independent. Both have the same t-quantile.
    reach = float(np.hypot(less.high - less.value, more.high - more.value))
    value = less.value - more.value
    return Estimate(value, value - reach, value + reach)


@dataclass(frozen=True, eq=False)
class Places:
    """Domains and texts of one model; what of them is missing says so when it is asked for."""

    study: Any

    @cached_property
    def domains(self) -> list[Side]:
        """Every domain of the corpus, also those that have too little."""
        part = self.study.part("domains")
        return [Side.of_part(name, part, i) for i, name in enumerate(part.attrs["parts"])]

    @cached_property
    def corpus(self) -> Side:
        return Side.of_sample(CORPUS, self.study.shown("corrected"))

    @cache  # noqa: B019
    def side(self, text: str) -> Side:
        return Side.of_part(text, self.study.on(text))

    @cached_property
    def models(self) -> list[Side]:
        """A domain and the others, of the model that never saw it and of the one that did."""
        return [
            Side.of_part(f"{name} ({kind})", data, j)
            for kind, data in zip(("never seen", "seen"), self.study.two_models(), strict=True)
            for j, name in enumerate(data.parts)
        ]

    def read(self, estimand: str) -> list[Side]:
        """What an estimand of G5 reads."""
        if estimand == "between domains":
            return with_order(self.domains)
        return [self.corpus, self.side(estimand)] if estimand in TEXTS else self.models


def estimate(estimand: str, sides: list[Side]) -> Estimate:
    """An estimand of G5, of the ceiling. Raises `NotTestableError`."""
    if estimand == "between domains":
        return between(sides)
    return jackknife(shared(*sides)) if estimand in TEXTS else unseen(sides[:2], sides[2:])


def findings(places: Places) -> Iterator[Finding]:
    """Every estimand of the page under `corrected`; gates of the smallest side that it reads."""
    for key in ESTIMANDS:
        try:
            sides = places.read(key[1])
        except UserError as error:
            yield from untested([key], str(error))
            continue
        gates = {
            "positions": float(min((side.positions for side in sides), default=0)),
            "documents": float(min((side.documents for side in sides), default=0)),
        }
        yield found(key, "corrected", gates, estimate, *key[1:], sides)
