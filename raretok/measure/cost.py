"""What a run will cost on this machine: what the book's own measurement took, scaled.

A part sends so many tokens through the blocks of a model, and ablates every neuron at so many
positions. What either takes is timed here, on the model that is asked for; of the lead model both
follow from its record. A part takes the seconds of that record, as often as its work is that of the
lead model.
"""

import math
import resource
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from timeit import Timer
from typing import Any

import numpy as np
import torch

from raretok.ablation.gather import Gathered, gather
from raretok.ablation.head import final_head
from raretok.ablation.method import PILOT, TOLERANCE, apply_method, make_method
from raretok.ablation.plan import BLOCK, STACK, cut_to_fit, forward_memory, memory_of
from raretok.errors import NotTestableError
from raretok.measure import layers, parts
from raretok.measure.find import LEAD, SHIPPED, STEP_POSITIONS, Measurements, step_parameters
from raretok.measure.influence import PERCENT, SCORED, SETS
from raretok.measure.parameters import PageParameters
from raretok.measure.record import Folder
from raretok.measure.source import GATED, MEMORY, RELEASED_CONTEXTS, STRATIFIED, WHOLE, Source
from raretok.models.architecture import Architecture
from raretok.text.rarity import KINDS, MIDDLE, RARE, Positions

WORK = 1e11  # operations of the forward pass that is timed, about: a second of two cores
PAIRS = 2**31  # tokens times neurons times positions that the closed form is timed on
SEALED = 0.1  # seconds that a part takes to be kept, however small
KEPT, PACKED, IN_WORK = 8, 2.5, 60  # bytes of a pair: of a run, in its part, in memory
PAGE, OF_PAGE = 1e6, 1.5e9  # bytes of a page, and of the process that runs it
# Seconds of a page and, for a million pairs, more of them; one core of an AMD EPYC.
PAGES = {"coordination": (6, 0.9), "modularity": (5, 0.9), "thresholds": (13, 1.0)}
PAGES |= {"layers": (10, 0.2), "dynamics": (38, 0.0), "replication": (41, 0.0)}
OTHER_PAGES = 4, 0.3
Work = tuple[float | int, float | int]  # tokens in the blocks, positions at the head


@dataclass(frozen=True)
class Cost:
    """What is to be done, in seconds a part, and bytes that are held at most and kept."""

    seconds: dict[str, float]
    memory: float
    disk: float
    measured: float  # seconds that it took to find out

    def lines(self) -> list[str]:
        """A line a part, then all of it."""
        rows = self.seconds | {"in all": sum(self.seconds.values())}
        width = max(map(len, rows)) + 2
        held = f"{self.memory / 1e9:.1f} GB of memory at most, {self.disk / 1e9:.2g} GB of disk"
        said = f"{held}; estimated from {self.measured:.0f} s of measuring here"
        return [*(f"{name:{width}}{told(some):>8}" for name, some in rows.items()), said]


def told(seconds: float) -> str:
    """A time with two or three digits."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class Load:
    """A model and a text, as far as the time of measuring them depends on these.

    Contexts are taken to be alike, in their tokens and in their rare positions.
    """

    sizes: Architecture
    n_ctx: int
    drawn: Positions  # stratified
    domains: int
    token: float = math.nan  # seconds of one in the blocks
    position: float = math.nan  # seconds of ablating every neuron there

    @cached_property
    def tokens(self) -> int:
        """Tokens of the contexts that hold stratified positions."""
        return np.unique(self.drawn.context).size * self.n_ctx

    def holding(self, rare: int) -> float:
        """Tokens of contexts that hold so many rare positions."""
        share = rare / (self.drawn.stratum == RARE).sum()
        return min(float(self.drawn.weight.sum()), self.tokens * share)

    def work(self, name: str) -> Work:
        """Tokens and positions that a part takes; the last layer screens all of them.

        Raises `NotTestableError` for a part that these data do not have.
        """
        kind, _, rest = name.partition(": ")
        sizes, n, (choice, _, mode) = self.sizes, len(self.drawn), rest.partition(", ")
        whole = RELEASED_CONTEXTS * self.n_ctx
        if kind == "effects":
            tokens, n = (whole, whole) if choice == WHOLE else (self.tokens, n)
            return tokens + sizes.gated * min(tokens, GATED * self.n_ctx), n
        if kind == "attention":
            return (whole if choice == "code" else self.holding(parts.QUERIES)), 0
        if kind == "heads":
            rare = parts.ABLATED if mode == "mean" else parts.ABLATED_MORE
            passes = 2 + parts.LAST * (sizes.n_heads + 1) / sizes.n_layers
            return passes * (whole if choice == WHOLE else self.holding(rare)), 0
        if kind == "layer":
            return self.layer(-int(choice)), 0
        if kind == "domains" and self.domains < 2:
            raise NotTestableError("the corpus has one domain")
        return {
            "model": (0, 0),
            "interventions": (0, len(parts.INTERVENTIONS) * n),
            "groups": (self.tokens, len(KINDS) * (1 + SETS) * len(PERCENT) * n),
            "domains": (self.holding(self.domains * SCORED), self.domains * SCORED),
            "unembedding": (0, sizes.d_mlp + sizes.d_model),
        }.get(kind, (self.tokens, 0))  # of any other part: one pass

    def layer(self, depth: int) -> float:
        """Tokens of a layer: each neuron runs the later blocks again, of the last its attention."""
        if depth > self.sizes.n_layers:
            raise NotTestableError(f"layer -{depth} is deeper than the model")
        again = (layers.TOP + layers.RANDOM) * max(0.0, depth - 5 / 3) / self.sizes.n_layers
        screen = (depth == 1) * (1 + len(KINDS)) * self.holding(layers.SCREENED)
        return screen + (3 + again) * self.holding(layers.ABLATED)

    def direct(self, name: str) -> float:
        """Seconds of a part by its work alone. Raises `NotTestableError`."""
        tokens, positions = self.work(name)
        return tokens * self.token + positions * self.position

    def seconds(self, name: str) -> float:
        """The same, corrected by what the lead model's part took."""
        found, (theirs, made) = self.direct(name), lead()
        return found * made[name] / theirs.direct(name) if found and name in made else found


@cache
def lead() -> tuple[Load, dict[str, float]]:
    """The lead model as it was measured, and the seconds that each part took."""
    folder, effects = Folder(SHIPPED / LEAD), f"effects: {STRATIFIED}"
    entries = folder.record()["parts"]
    made = {name: one["made"]["seconds"] for name, one in entries.items() if "made" in one}
    sizes = Architecture(**folder.read("model").attrs["architecture"])
    drawn, domains = Positions.of(folder.read(effects)), folder.read("domains").sizes["part"]
    load = Load(sizes, PageParameters().n_ctx, drawn, domains)
    position = made["interventions"] / load.work("interventions")[1]
    token = (made[effects] - len(drawn) * position) / load.work(effects)[0]
    return replace(load, token=token, position=position), made


def cost_of_run(asked: Measurements, pages: Mapping[str, Collection[str]]) -> Cost:
    """Time, memory and disk of running pages: `pages` names the parts that each reads.

    The name "" is of no page: its parts are measured alone. What was measured before costs nothing.
    Raises `UserError` for a model that cannot be measured.
    """
    started, seconds, pairs, memory, disk = time.monotonic(), {}, 0, 0.0, 0.0
    needed = dict.fromkeys(name for some in pages.values() for name in some)
    missing = [name for name in needed if not asked.there(name)]
    steps = new_steps(asked.parameters) if "dynamics" in pages else 0
    if missing or steps:
        source = parts.source_of(asked.parameters)
        load, loading = load_of(source)
        seconds["model"] = loading
        for name in missing:
            with suppress(NotTestableError):  # costs no more than to find out
                seconds.setdefault(name, SEALED + load.seconds(name))
        if steps:
            share = STEP_POSITIONS / asked.parameters.n_positions
            each = loading + share * load.seconds(f"effects: {STRATIFIED}")
            seconds["checkpoints"] = steps * each
        pairs, disk = len(load.drawn) * load.sizes.d_mlp, disk_of(load, missing)
        memory = memory_at_most(source, pairs)
    of_pages = [PAGES.get(page, OTHER_PAGES) for page in pages if page]
    spent = time.monotonic() - started
    if of_pages:
        seconds["pages"] = sum(fixed + more * pairs / 1e6 for fixed, more in of_pages)
    return Cost(seconds, max(memory, OF_PAGE), disk + PAGE * len(pages), spent)


def new_steps(asked: PageParameters) -> int:
    """Revisions whose effects, at fewer positions, are neither shipped nor kept."""
    same = {"corpus", "n_documents", "packed", "unigram", "device", "dtype"}
    given, names = asked.model_dump(include=same), [n for n in asked.revisions.split(",") if n]
    steps = [Measurements(step_parameters(asked.model, name, **given)) for name in names]
    return sum(not step.there(f"effects: {STRATIFIED}") for step in steps)


def disk_of(load: Load, names: list[str]) -> float:
    """Bytes that the runs of these parts keep, and the parts beside them."""
    found = 0.0
    for name in names:
        if name.startswith(("effects", "interventions")):
            n = load.work(name)[1]
            found += KEPT * max(n, BLOCK) + PACKED * n * name.startswith("effects")
    return found * load.sizes.d_mlp


def memory_at_most(source: Source, pairs: int) -> float:
    """Bytes of memory, at most: so far this process has held the model, and what was timed."""
    inputs, n_ctx = (source.model, source.contexts), source.contexts.tokens.shape[1]
    block = memory_of(source.model, n_ctx, *cut_to_fit(*inputs, MEMORY))
    now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    now *= 1 if sys.platform == "darwin" else 1024
    return float(now + max(block, forward_memory(source.model, n_ctx, STACK), IN_WORK * pairs))


def load_of(source: Source) -> tuple[Load, float]:
    """What is to be measured, with its tokens and positions timed; and the seconds of loading it.

    Raises `UserError`.
    """
    started, model = time.monotonic(), source.model
    drawn, (_, n_ctx) = source.positions(STRATIFIED), source.contexts.tokens.shape
    domains = len({document.domain for document in source.corpus.documents})
    loading = time.monotonic() - started
    used = np.unique(drawn.context[drawn.stratum != MIDDLE])
    enough = math.ceil(WORK / (2 * model.architecture.n_parameters * n_ctx))
    used = source.parameters.rng("cost").permutation(used)[: min(enough, 16)]
    few = drawn[np.isin(drawn.context, used)]
    seen = partial(gather, model, source.contexts, few)
    token = seconds_of(seen) / (used.size * n_ctx)
    position = position_time(source, seen())
    return Load(model.architecture, n_ctx, drawn, domains, token, position), loading


def position_time(source: Source, seen: Gathered) -> float:
    """Seconds of the fast path at a stratified position, its setting up spread over all of them.

    It reads a few positions again and again, as in a large block.
    """
    head, n = final_head(source.model), len(source.positions(STRATIFIED))
    most = PAIRS // (source.model.architecture.d_vocab * source.model.architecture.d_mlp)
    rows = torch.arange(min(max(most, 16), 256), device=seen.resid.device) % len(seen.resid)
    n_parts = cut_to_fit(source.model, source.contexts, MEMORY)[1]
    more = {"tolerance": TOLERANCE, "n_positions": n, "n_parts": n_parts}
    make = partial(make_method, head, *seen.rows(rows[:PILOT]), seen.mean, **more)
    offset = torch.linspace(0, 0.99, len(rows), dtype=torch.float64, device=rows.device)
    block = partial(apply_method, make(), *seen.rows(rows), seen.mean, offset)
    return seconds_of(make) / n + seconds_of(block) / len(rows)


def seconds_of(work: Callable[[], Any]) -> float:
    """Seconds of a call; of a short one the mean of as many as take a fifth of a second."""
    n, seconds = Timer(work).autorange()
    return seconds / n
