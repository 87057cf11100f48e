"""What the verdicts are worth: how often each is given in worlds where the truth was planted.

The very functions that the pages run are run on each world, rule included. Runs are kept one by one
under `runs/`, so that a killed calibration goes on.
"""

import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
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
from raretok.ledger.claims import claims
from raretok.ledger.verdicts import judge_all, plain
from raretok.measure.head_sums import HeadSums
from raretok.measure.rows import Rows
from raretok.stats.jackknife import Estimate, deal

SIZES = (0.0, 0.5, 1.0, 2.0)
MORE = {"head": (4.0,)}  # sizes planted beside: a head of 4 % contradicts R2
CURVES = ("shares", "rare curve", "head", "common curve")  # keep their documents
DEAR = {"information": 0.4, "modules": 0.4}  # share of the runs that dear worlds get


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
        sample, heads, queries = self.sample, self.heads, self.rows.queries
        drawn = rng.choice(sample.deal.documents, sample.deal.documents.size)
        at, document = copies(sample.document, drawn)
        arrays = ("delta_loss", "post", "weight", "stratum")
        taken = {name: getattr(sample, name)[at] for name in arrays}
        again = replace(sample, **taken, document=document, deal=deal(document, rng=rng))
        cells, of_cell = copies(heads.document, drawn)
        some = {name: getattr(heads, name)[cells] for name in ("stratum", "count", "before")}
        wide = {name: getattr(heads, name)[:, cells] for name in ("change", "after")}
        rows, of_row = copies(queries.document, drawn)
        attention = {
            name: getattr(self.rows, name)[:, rows] for name in ("mass", "gini", "gini_rest")
        }
        return Ground(
            again,
            replace(heads, document=of_cell, **some, **wide),
            replace(
                self.rows,
                queries=replace(queries[rows], document=of_row),
                keys=self.rows.keys[rows],
                **attention,
            ),
            self.layers,
        )


def copies(
    document: Int[np.ndarray, " row"], drawn: Int[np.ndarray, " copy"]
) -> tuple[Int[np.ndarray, " taken"], Int[np.ndarray, " taken"]]:
    """Rows of the drawn documents, and the number of the copy that each belongs to."""
    rows = [np.flatnonzero(document == one) for one in drawn]
    numbers = np.repeat(np.arange(drawn.size), [one.size for one in rows])
    return np.concatenate(rows), numbers


World = Callable[[Ground, float, np.random.Generator], Iterable[Finding]]


def planted(claim: str, name: str | None = None) -> float:
    """What data/claims.yaml declares as size 1."""
    of = claims()[claim]
    return of.estimands[name or of.primary].planted


def curve(
    claim: str, kind: str, ground: Ground, size: float, rng: np.random.Generator
) -> Iterable[Finding]:
    factor = planted(claim) ** size
    return regimes.findings(worlds.curve_world(ground.sample, kind, factor, rng=rng))


def head_share(ground: Ground, size: float, rng: np.random.Generator) -> Iterable[Finding]:
    factor = planted("R1") ** 2 if size else 1.0
    share = planted("R2") / 100 * size if size else 0.01
    return regimes.findings(worlds.curve_world(ground.sample, "rare", factor, share, rng=rng))


def shares(ground: Ground, size: float, rng: np.random.Generator) -> Iterable[Finding]:
    return regimes.findings(worlds.share_world(ground.sample, planted("R0") * size, rng=rng))


def dimensions(ground: Ground, size: float, rng: np.random.Generator) -> Iterable[Finding]:
    of = (1, worlds.fewer_dimensions, -float(np.log(planted("C1"))) * size)
    return coordination.findings(worlds.activity_world(ground.sample, *of, rng=rng), dear=False)


def information(ground: Ground, size: float, rng: np.random.Generator) -> Iterable[Finding]:
    of = (1, worlds.pair_information, planted("I1") * size)
    return coordination.findings(worlds.activity_world(ground.sample, *of, rng=rng))


def modules(ground: Ground, size: float, rng: np.random.Generator) -> Iterable[Finding]:
    of = (2, worlds.modular_structure, planted("M1") * size)
    return modularity.findings(worlds.activity_world(ground.sample, *of, rng=rng))


def weights(ground: Ground, size: float, rng: np.random.Generator) -> Iterable[Finding]:
    return spectra.findings(worlds.weight_world(ground.sample, planted("S1") * size, rng=rng))


def profiles(
    first_token: bool, ground: Ground, size: float, rng: np.random.Generator
) -> Iterable[Finding]:
    """Profiles that differ until the correlation is lower by as much as is planted."""
    share, matched = 0.0, ground.sample.protocol.matched
    if size > 0:
        even = deal(ground.rows.queries.document, rng=rng)
        seed = int(rng.integers(2**31))

        def drop(share: float) -> float:
            rows = worlds.profile_world(ground.rows, share, rng=np.random.default_rng(seed))
            return 1 - attention.alike(rows, even, matched, first_token).over_ceiling().value

        share = worlds.strength(drop, (1 - planted("A1")) * size)
    rows = worlds.profile_world(ground.rows, share, rng=rng)
    again = deal(rows.queries.document, rng=rng)
    return attention.attention_findings(rows, again, ground.sample.protocol)


def ginis(ground: Ground, size: float, rng: np.random.Generator) -> Iterable[Finding]:
    matched = ground.sample.protocol.matched
    rows = worlds.gini_world(ground.rows, planted("A2") * size, matched, rng=rng)
    again = deal(rows.queries.document, rng=rng)
    return attention.attention_findings(rows, again, ground.sample.protocol)


def one_head(
    by_median: bool, ground: Ground, size: float, rng: np.random.Generator
) -> Iterable[Finding]:
    wanted = planted("A3", "against the median head" if by_median else None) * size
    of = (ground.sample, ground.heads, ground.layers, wanted, by_median)
    return attention.head_findings(*worlds.head_world(*of, rng=rng), ground.layers)


def layers(ground: Ground, size: float, rng: np.random.Generator) -> Iterable[Finding]:
    of = (ground.sample, ground.heads, planted("A4") * size)
    return attention.head_findings(*worlds.layer_world(*of, rng=rng), ground.layers)


# Estimands that each kind of world is judged by.
CASES: dict[str, tuple[World, list[tuple[str, str]]]] = {
    "shares": (shares, [("R0", "concentration")]),
    "rare curve": (partial(curve, "R1", "rare"), [("R1", "lift")]),
    "head": (head_share, [("R2", "size")]),
    "common curve": (partial(curve, "R3", "common"), [("R3", "lift")]),
    "dimensions": (dimensions, [("C1", "existence"), ("C1", "specificity")]),
    "information": (information, [("I1", "existence"), ("I1", "specificity")]),
    "modules": (modules, [("M1", "modularity")]),
    "profiles": (partial(profiles, True), [("A1", "correlation")]),
    "profiles without the first token": (partial(profiles, False), [("A1", "first token removed")]),
    "Gini": (ginis, [("A2", "Gini"), ("A2", "first token removed")]),
    "one head": (partial(one_head, False), [("A3", "largest")]),
    "head over median": (partial(one_head, True), [("A3", "against the median head")]),
    "layers": (layers, [("A4", "layer")]),
    "weights": (weights, [("S1", "squared cosine")]),
}


def one_run(ground: Ground, case: str, size: float, run: int) -> list[dict[str, Any]]:
    """What one world is judged to be; its random numbers are its own."""
    rng = np.random.default_rng([ground.sample.seed, *case.encode(), int(100 * size), run])
    world, judged = CASES[case]
    try:
        start = ground if case in CURVES else ground.redrawn(rng)
        found = list(world(start.dealt(rng), size, rng))
    except NotTestableError as error:
        return [record(key, "not testable", str(error), None) for key in judged]
    calm = [replace(one, gates=one.gates | {"coverage": 1.0}) for one in found]
    entries = {(e.finding.claim, e.finding.estimand): e for e in judge_all(calm)}
    return [
        record(key, entries[key].verdict, entries[key].why, entries[key].finding.estimate)
        for key in judged
    ]


def record(key: tuple[str, str], verdict: str, why: str, one: Estimate | None) -> dict[str, Any]:
    """What is kept of one estimand of a world."""
    estimate = one and [plain(end) for end in (one.value, one.low, one.high)]
    kept = {"verdict": verdict, "why": why, "estimate": estimate}
    return dict(zip(("claim", "estimand"), key, strict=True)) | kept


def kept_runs(file: Path) -> list[list[dict[str, Any]]]:
    """Finished runs of a file; a line that was cut short is dropped."""
    found = []
    for line in file.read_text().splitlines() if file.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def case_runs(
    ground: Ground, case: str, size: float, n: int, folder: Path
) -> tuple[str, float, list]:
    """All runs of one kind of world and size, those already kept not repeated."""
    file = folder / f"{case.replace(' ', '-')}-{size:g}.jsonl"
    found = kept_runs(file)
    whole = file.with_suffix(".partial")
    whole.write_text("".join(json.dumps(one) + "\n" for one in found))
    os.replace(whole, file)  # without a line that was cut short
    with file.open("a") as kept:
        for run in range(len(found), n):
            found.append(one_run(ground, case, size, run))
            kept.write(json.dumps(found[-1]) + "\n")
            kept.flush()
    return case, size, found[:n]


def sizes_of(case: str) -> tuple[float, ...]:
    """Sizes that are planted in a kind of world."""
    return (*SIZES, *MORE.get(case, ()))


def n_runs(case: str, runs: int) -> int:
    """Worlds of each size: fewer where one costs ten times as much as others."""
    return max(1, round(runs * DEAR.get(case, 1.0)))


def calibrate(ground: Ground, runs: int, folder: Path, jobs: int = 2) -> list[dict[str, Any]]:
    """Verdicts of every case and size, counted. What is finished stays in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    results = {}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn) as pool:
        waiting = [
            pool.submit(case_runs, ground, case, size, n_runs(case, runs), folder)
            for case in sorted(CASES, key=lambda name: name not in DEAR)
            for size in sizes_of(case)
        ]
        shown = tqdm(as_completed(waiting), total=len(waiting), unit="world", file=sys.stderr)
        for done in shown:
            case, size, found = done.result()
            results[case, size] = found
    return [row for case in CASES for row in counted(case, results)]


def counted(case: str, results: dict[tuple[str, float], list]) -> Iterator[dict[str, Any]]:
    """Rows of the calibration table: counts of the verdicts, and coverage."""
    for i, (claim, estimand) in enumerate(CASES[case][1]):
        for size in sizes_of(case):
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


def covered(numbers: np.ndarray) -> dict[str, Any]:
    """Typical estimate, and how many intervals hold it."""
    if len(numbers) == 0:
        return {"median": None, "covered": None}
    median = float(np.median(numbers[:, 0]))
    holds = (numbers[:, 1] <= median) & (median <= numbers[:, 2])
    return {"median": plain(median), "covered": plain(float(holds.mean()))}
