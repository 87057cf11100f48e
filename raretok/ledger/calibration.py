"""What the verdicts are worth: how often each is given in worlds where the truth was planted.

The very functions that the pages run are run on each world, rule included. Runs are kept one by one
under `runs/`, so that a killed calibration goes on.
"""

import operator
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from joblib import Memory, Parallel, delayed
from tqdm import tqdm

from raretok.claims.attention import estimate as attention
from raretok.claims.coordination import estimate as coordination
from raretok.claims.finding import Finding
from raretok.claims.modularity import estimate as modularity
from raretok.claims.regimes import estimate as regimes
from raretok.claims.sample import Sample
from raretok.claims.spectra import estimate as spectra
from raretok.errors import NotTestableError
from raretok.ledger import worlds
from raretok.ledger.claims import planted
from raretok.ledger.verdicts import judge_all, plain
from raretok.measure.attention import HeadSums, Rows
from raretok.stats.jackknife import Estimate, deal

Names = tuple[str, ...]
SIZES = (0.0, 0.5, 1.0, 2.0)
DEAR = 0.4  # share of the runs that dear worlds get


@dataclass(frozen=True, eq=False)
class Ground:
    """What worlds are made from: one model's measurement under the reading `corrected`."""

    sample: Sample
    heads: HeadSums
    rows: Rows
    layers: list[int]

    def dealt(self, rng: np.random.Generator) -> "Ground":
        """The same with documents dealt anew."""
        first = np.unique(self.heads.document)
        again = deal(self.sample.document, first=first, rng=rng)
        seed = int(rng.integers(2**31))
        return replace(self, sample=replace(self.sample, deal=again, seed=seed))

    def redrawn(self, rng: np.random.Generator) -> "Ground":
        """Another sample of documents, drawn with replacement; a copy is a document of its own."""
        drawn = rng.choice(self.sample.deal.documents, self.sample.deal.documents.size)
        at, document = copies(self.sample.document, drawn)
        of = {"document": document, "deal": deal(document, rng=rng)}
        sample = taken(self.sample, at, ("delta_loss", "post", "weight", "stratum"), **of)
        at, document = copies(self.heads.document, drawn)
        first, second = ("stratum", "count", "before"), ("change", "after")
        heads = taken(self.heads, at, first, second, document=document)
        at, document = copies(self.rows.queries.document, drawn)
        queries = replace(self.rows.queries[at], document=document)
        rows = taken(self.rows, at, ("keys",), ("mass", "gini", "gini_rest"), queries=queries)
        return replace(self, sample=sample, heads=heads, rows=rows)


def taken(
    of: Any, at: Int[np.ndarray, " taken"], first: Names, second: Names = (), **other: Any
) -> Any:
    """Some rows of the arrays of a measurement, along their first axis or their second."""
    arrays = {name: getattr(of, name)[at] for name in first}
    arrays |= {name: getattr(of, name)[:, at] for name in second}
    return replace(of, **arrays, **other)


def copies(
    document: Int[np.ndarray, " row"], drawn: Int[np.ndarray, " copy"]
) -> tuple[Int[np.ndarray, " taken"], Int[np.ndarray, " taken"]]:
    """Rows of the drawn documents, and the number of the copy that each belongs to."""
    rows = [np.flatnonzero(document == one) for one in drawn]
    numbers = np.repeat(np.arange(drawn.size), [one.size for one in rows])
    return np.concatenate(rows), numbers


World = Callable[[Ground, float, np.random.Generator], Iterable[Finding]]


@dataclass(frozen=True)
class Case:
    """One kind of world: what is found in one made with an amount, and by what it is judged."""

    world: World
    judged: tuple[tuple[str, str], ...]  # the amount at size 1 is declared for the first
    amount: Callable[[float, float], float] = operator.mul  # of what is declared, and of a size
    sizes: tuple[float, ...] = SIZES
    redrawn: bool = True  # from another sample of the documents
    share: float = 1.0  # of the runs


def of_sample(page: Callable[..., Iterable[Finding]], world: Callable[..., Sample]) -> World:
    return lambda ground, amount, rng: page(world(ground.sample, amount, rng=rng))


def of_heads(world: Callable[..., tuple[Sample, HeadSums]], *more: Any) -> World:
    def found(ground: Ground, amount: float, rng: np.random.Generator) -> Iterable[Finding]:
        sample, heads = world(ground.sample, ground.heads, ground.layers, amount, *more, rng=rng)
        return attention.head_findings(sample, heads, ground.layers)

    return found


def of_rows(world: Callable[..., Rows], *more: Any) -> World:
    def found(ground: Ground, amount: float, rng: np.random.Generator) -> Iterable[Finding]:
        protocol = ground.sample.protocol
        rows = world(ground.rows, amount, protocol.matched, *more, rng=rng)
        again = deal(rows.queries.document, rng=rng)
        return attention.attention_findings(rows, again, protocol)

    return found


def lower(declared: float, size: float) -> float:
    """How far below 1."""
    return (1 - declared) * size


def curve(world: Callable[..., Sample], judged: tuple[str, str], **more: Any) -> Case:
    """A world of rank curves, which keeps its documents."""
    return Case(of_sample(regimes.findings, world), (judged,), redrawn=False, **more)


CASES = {
    "shares": curve(worlds.share_world, ("R0", "concentration")),
    "rare curve": curve(
        partial(worlds.curve_world, kind="rare"), ("R1", "lift"), amount=operator.pow
    ),
    # A head of 4 % contradicts R2.
    "head": curve(worlds.head_share_world, ("R2", "size"), sizes=(*SIZES, 4.0)),
    "common curve": curve(
        partial(worlds.curve_world, kind="common"), ("R3", "lift"), amount=operator.pow
    ),
    "dimensions": Case(
        of_sample(partial(coordination.findings, dear=False), worlds.dimension_world),
        (("C1", "existence"), ("C1", "specificity")),
        lambda share, size: -float(np.log(share)) * size,
    ),
    "information": Case(
        of_sample(coordination.findings, worlds.information_world),
        (("I1", "existence"), ("I1", "specificity")),
        share=DEAR,
    ),
    "modules": Case(
        of_sample(modularity.findings, worlds.modular_world), (("M1", "modularity"),), share=DEAR
    ),
    "profiles": Case(of_rows(worlds.apart_world, True), (("A1", "correlation"),), lower),
    "profiles without the first token": Case(
        of_rows(worlds.apart_world, False), (("A1", "first token removed"),), lower
    ),
    "Gini": Case(of_rows(worlds.gini_world), (("A2", "Gini"), ("A2", "first token removed"))),
    "one head": Case(of_heads(worlds.head_world, False), (("A3", "largest"),)),
    "head over median": Case(
        of_heads(worlds.head_world, True), (("A3", "against the median head"),)
    ),
    "layers": Case(of_heads(worlds.layer_world), (("A4", "layer"),)),
    "weights": Case(of_sample(spectra.findings, worlds.weight_world), (("S1", "squared cosine"),)),
}


def one_run(ground: Ground, case: str, size: float, run: int) -> list[dict[str, Any]]:
    """What one world is judged to be; its random numbers are its own."""
    rng = np.random.default_rng([ground.sample.seed, *case.encode(), int(100 * size), run])
    of = CASES[case]
    try:
        start = ground.redrawn(rng) if of.redrawn else ground
        amount = of.amount(planted(*of.judged[0]), size)
        found = list(of.world(start.dealt(rng), amount, rng))
    except NotTestableError as error:
        return [record(key, "not testable", str(error), None) for key in of.judged]
    entries = {(e.finding.claim, e.finding.estimand): e for e in judge_all(found)}
    return [
        record(key, entries[key].verdict, entries[key].why, entries[key].finding.estimate)
        for key in of.judged
    ]


def record(key: tuple[str, str], verdict: str, why: str, one: Estimate | None) -> dict[str, Any]:
    """What is kept of one estimand of a world."""
    estimate = one and [plain(end) for end in (one.value, one.low, one.high)]
    kept = {"verdict": verdict, "why": why, "estimate": estimate}
    return dict(zip(("claim", "estimand"), key, strict=True)) | kept


def calibrate(ground: Ground, runs: int, folder: Path, jobs: int = 2) -> list[dict[str, Any]]:
    """Verdicts of every case and size, counted. What is finished stays in `folder`."""
    kept = Memory(folder, verbose=0).cache(one_run, ignore=["ground"])
    asked = [
        (case, size, run)
        for case, of in sorted(CASES.items(), key=lambda one: one[1].share)
        for size in of.sizes
        for run in range(max(1, round(runs * of.share)))
    ]
    made = Parallel(jobs, return_as="generator")(delayed(kept)(ground, *one) for one in asked)
    shown = tqdm(made, total=len(asked), unit="world", file=sys.stderr)
    results: dict[tuple[str, float], list] = {}
    for (case, size, _), found in zip(asked, shown, strict=True):
        results.setdefault((case, size), []).append(found)
    return [row for case in CASES for row in counted(case, results)]


def counted(case: str, results: dict[tuple[str, float], list]) -> Iterator[dict[str, Any]]:
    """Rows of the calibration table: counts of the verdicts, and coverage."""
    for i, (claim, estimand) in enumerate(CASES[case].judged):
        for size in CASES[case].sizes:
            found = [run[i] for run in results[case, size]]
            numbers = np.array([one["estimate"] for one in found if one["estimate"]])
            reasons = Counter(one["why"].split(" is ")[0] for one in found if one["why"])
            yield {
                "claim": claim,
                "estimand": estimand,
                "size": size,
                "runs": len(found),
                "verdicts": dict(sorted(Counter(one["verdict"] for one in found).items())),
                "why not": dict(sorted(reasons.items())),
                "numbers": len(numbers),
                "first": {key: found[0][key] for key in ("verdict", "estimate")},
                **covered(numbers),
            }


def covered(numbers: np.ndarray) -> dict[str, float | None]:
    """Typical estimate, and how many intervals hold it."""
    if len(numbers) == 0:
        return {"median": None, "covered": None}
    value, low, high = numbers.T
    median = float(np.median(value))
    holds = (low <= median) & (median <= high)
    return {"median": plain(median), "covered": plain(float(holds.mean()))}
