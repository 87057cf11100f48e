"""What a run will cost on this machine, from a few contexts and positions that are timed first."""

import math
import resource
import sys
import time
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from raretok.ablation.audit import CONTEXTS, FIRST_CONTEXTS, own_delta_loss
from raretok.ablation.batches import scored_batches
from raretok.ablation.closed_form import delta_loss
from raretok.ablation.gather import gather
from raretok.ablation.groups import group_delta_loss
from raretok.ablation.head import final_head
from raretok.ablation.method import apply_method, make_method
from raretok.ablation.plan import BLOCK, STACK, cut_to_fit, forward_memory, memory_of
from raretok.ablation.precision import PILOT, TOLERANCE
from raretok.ablation.screen import class_weights
from raretok.ablation.stacked import AUDIT_PAIRS, Layer
from raretok.errors import NotTestableError
from raretok.measure import groups, layers, parts
from raretok.measure.attention_capture import capture_rows, contexts_of
from raretok.measure.find import STEP_POSITIONS, Measurements, step_parameters
from raretok.measure.head_ablation import ablate_heads, targets_of
from raretok.measure.influence import EXACT, SCORED
from raretok.measure.parameters import PageParameters
from raretok.measure.source import MEMORY, STRATIFIED, WHOLE, Source
from raretok.models.adapter import W_out_of
from raretok.text.protocol import PROTOCOLS
from raretok.text.rarity import KINDS, MIDDLE, RARE, Positions

WORK = 1e11  # operations of a timing, about: a second of two cores
SEALED = 0.1  # seconds that a part takes to be kept, however small
PAIRS = 2**31  # tokens times neurons times positions that the closed form is timed on
SHORT = 0.1  # seconds; a call that takes less is repeated
WRITTEN = 5e6  # pairs of position and neuron that are packed, or written, in a second
KEPT, PACKED, IN_WORK = 8, 2.5, 60  # bytes of a pair: of a run, in its part, in memory
PAGE, OF_PAGE = 1e6, 1.5e9  # bytes of a page, and of the process that runs it
# Seconds of a page and, for a million pairs, more of them; one core of an AMD EPYC.
PAGES = {"coordination": (6, 0.9), "modularity": (5, 0.9), "thresholds": (13, 1.0)}
PAGES |= {"layers": (10, 0.2), "dynamics": (38, 0.0), "replication": (41, 0.0)}
OTHER_PAGES = 4, 0.3


@dataclass(frozen=True)
class Cost:
    """What is to be done, in seconds a part, and bytes that are held at most and kept."""

    seconds: dict[str, float]
    memory: float
    disk: float
    measured: float  # seconds that it took to find out

    def lines(self) -> list[str]:
        """A line a part, then all of it."""
        rows = self.seconds | {"in all": float(np.nansum([*self.seconds.values()]))}
        width = max(map(len, rows)) + 2
        held = f"{self.memory / 1e9:.1f} GB of memory at most, {self.disk / 1e9:.2g} GB of disk"
        said = f"{held}; estimated from {self.measured:.0f} s of measuring here"
        return [*(f"{name:{width}}{told(some):>8}" for name, some in rows.items()), said]


def told(seconds: float) -> str:
    """A time with two or three digits."""
    if math.isnan(seconds):
        return "?"
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def cost_of_run(parameters: PageParameters, pages: Mapping[str, Collection[str]]) -> Cost:
    """Time, memory and disk of running pages: `pages` names the parts that each reads.

    What was measured before costs nothing. Raises `UserError` for a model that cannot be measured.
    """
    started, asked = time.monotonic(), Measurements(parameters)
    needed = dict.fromkeys(name for some in pages.values() for name in some)
    probe = Probe(parameters, [name for name in needed if not there(asked, name)])
    steps = ["checkpoints"] if parameters.revisions and "dynamics" in pages else []
    seconds = {"model": probe.load()} if [*probe.missing, *steps] else {}
    for name in [name for name in [*probe.missing, *steps] if name != "model"]:
        try:
            seconds[name] = SEALED + probe.of(name)
        except NotTestableError:
            continue  # costs no more than to find out
        except Exception:  # what stops it here stops the part itself too, which says why
            seconds[name] = math.nan
    memory, disk = probe.held if seconds else (0.0, 0.0)
    spent, pairs = time.monotonic() - started, (probe.pairs if seconds else 0) / 1e6
    of_pages = (PAGES.get(page, OTHER_PAGES) for page in pages)
    seconds["pages"] = sum(fixed + more * pairs for fixed, more in of_pages)
    return Cost(seconds, max(memory, OF_PAGE), disk + PAGE * len(pages), spent)


def there(asked: Measurements, name: str) -> bool:
    """Whether a part ships or is kept."""
    return any(folder and asked.has(folder, name) for folder in (asked.ready, asked.kept))


def seconds_of(work: Callable[[], Any]) -> float:
    """Seconds of a call; of a short one the median of a few, after the first."""
    found: list[float] = []
    while not found or (found[0] < SHORT and len(found) < 6):
        started = time.monotonic()
        work()
        found.append(time.monotonic() - started)
    return float(np.median(found[1:] or found))


class Probe:
    """Seconds of every part, from what it spends its time on; that is timed once."""

    def __init__(self, parameters: PageParameters, missing: Collection[str]):
        self.source: Source = parts.source_of(parameters)
        self.missing, self.memory, self.disk = missing, {}, 0.0
        self.loading = math.nan

    def load(self) -> float:
        """Read model and text: seconds that it took. Raises `UserError`."""
        started, source = time.monotonic(), self.source
        self.inputs, _ = (source.model, source.contexts), source.counts
        self.sizes, self.head = source.model.architecture, final_head(source.model)
        self.loading = time.monotonic() - started
        return self.loading

    def of(self, name: str) -> float:
        """Seconds of a part. Raises `NotTestableError` for one that these data do not have."""
        kind, _, rest = name.partition(": ")
        return getattr(self, kind)(*rest.split(", ") if rest else [])

    def tokens(self, positions: Positions) -> int:
        """Tokens of the contexts that hold some positions."""
        return int(self.source.contexts.length[np.unique(positions.context)].sum())

    def few(self, draw: str = STRATIFIED, passes: float = 1.0) -> Positions:
        """Positions of a few contexts of a draw, so many that `passes` over them take WORK."""
        positions, length = self.source.positions(draw), self.source.contexts.length
        used = np.unique(positions.context[positions.stratum != MIDDLE])
        used = self.source.rng("cost").permutation(used)[:16]
        most = WORK / (2 * self.sizes.n_parameters * passes)
        enough = 1 + np.searchsorted(length[used].cumsum(), most)
        return positions[np.isin(positions.context, used[:enough])]

    def a_token(self, of: Hashable, few: Positions, work: Callable[[], Any]) -> float:
        """Seconds a token of some work on the contexts of a few positions."""
        if of not in self.memory:
            self.memory[of] = seconds_of(work) / self.tokens(few)
        return self.memory[of]

    @cached_property
    def pass_(self) -> float:
        """A token of a forward pass without its logits."""
        few, options = self.few(), {"include_first": False, "progress": False}
        return self.a_token("pass", few, lambda: gather(*self.inputs, few, **options))

    def forward(self, positions: Positions) -> float:
        return self.pass_ * self.tokens(positions)

    @cached_property
    def rows(self) -> tuple[torch.Tensor, ...]:
        """What the closed form reads, of a few positions again and again: as in a large block."""
        few = self.few()
        seen = gather(*self.inputs, few, include_first=False, progress=False)
        most = PAIRS // (self.sizes.d_vocab * self.sizes.d_mlp)
        rows = torch.arange(min(max(most, 16), 256), device=seen.resid.device) % len(few)
        target = self.source.on_device(few.target)[rows]
        return seen.resid[rows], seen.post[rows], target, seen.mean_post

    @cached_property
    def fast(self) -> tuple[float, float]:
        """Setting the fast path up for the stratified positions, and one of these."""
        resid, post, target, mean = self.rows
        n, n_parts = len(self.source.positions(STRATIFIED)), cut_to_fit(*self.inputs, MEMORY)[1]
        more = {"output": self.head.mlp_output(post[:PILOT]), "n_positions": n, "effect": "total"}
        more |= {"tolerance": TOLERANCE, "n_parts": n_parts}
        pilot, made = (resid[:PILOT], (mean - post)[:PILOT], target[:PILOT]), []
        once = seconds_of(lambda: made.append(make_method(self.head, *pilot, **more)))
        offset = torch.linspace(0, 0.99, len(resid), dtype=torch.float64, device=resid.device)
        every = seconds_of(lambda: apply_method(made[-1], resid, post, target, mean, offset))
        if n_parts > 1:  # directions are made anew for every block
            return once * (1 + n / BLOCK), max(0.0, every - once) / len(resid)
        return once, every / len(resid)

    def ablation(self, draw: str, times: int = 1) -> float:
        """Every neuron of the last MLP at the positions of a draw, its audit, and its run."""
        positions, (once, every), few = self.source.positions(draw), self.fast, self.few()
        one = few[few.context == few.context[0]]
        rest = np.zeros(len(one), dtype=np.int64), np.zeros(len(one))
        double = self.a_token("double", one, lambda: own_delta_loss(*self.inputs, one, *rest))
        audited = min(CONTEXTS, np.unique(positions.context).size) + FIRST_CONTEXTS
        n, pair, block = len(positions), self.sizes.d_mlp, min(BLOCK, len(positions))
        self.disk += times * KEPT * -(-n // block) * block * pair
        return times * (once + every * n + audited * double * self.tokens(one) + n * pair / WRITTEN)

    def effects(self, draw: str) -> float:
        positions = self.source.positions(draw)
        gated = self.source.contexts.length[np.unique(positions.context)[: parts.GATED]].sum()
        found = self.forward(positions) + self.sizes.gated * gated * self.pass_
        pairs = len(positions) * self.sizes.d_mlp
        self.disk += PACKED * pairs
        return found + self.ablation(draw) + pairs / WRITTEN

    def interventions(self) -> float:
        passed = f"effects: {STRATIFIED}" in self.missing  # and kept its activations
        found = 0.0 if passed else self.forward(self.source.positions(STRATIFIED))
        return found + self.ablation(STRATIFIED, len(parts.INTERVENTIONS))

    def attention(self, protocol: str) -> float:
        reading, few = PROTOCOLS[protocol], self.few()
        scored = self.source.positions(reading.draw)
        stratum = self.source.classes(protocol).stratum(getattr(scored, reading.by))
        drawn = Positions(**{**vars(scored), "stratum": stratum})
        used = contexts_of(drawn, parts.QUERIES, rng=self.source.rng(f"queries {protocol}"))
        row = self.a_token("rows", few, lambda: capture_rows(*self.inputs, few))
        return row * self.source.contexts.length[used].sum()

    def heads(self, draw: str, mode: str) -> float:
        positions, n = self.source.positions(draw), self.sizes.n_layers
        if draw != WHOLE:
            n_rare = parts.ABLATED if mode == "mean" else parts.ABLATED_MORE
            used = contexts_of(positions, n_rare, rng=self.source.rng(f"heads {n_rare}"))
            positions = positions[np.isin(positions.context, used)]
        targets, one = targets_of(self.sizes, range(max(0, n - parts.LAST), n)), mode == "first"
        few = self.few(draw, 2 + len(targets) / n)
        given = few, targets, "first" if one else "mean"
        more = {"rng": self.source.rng("cost"), "per_context": 1}
        more |= {"per_context": parts.RELEASED_QUERIES} if draw == WHOLE else {}
        found = self.a_token((draw, one), few, lambda: ablate_heads(*self.inputs, *given, **more))
        return found * self.tokens(positions)

    def layer(self, back: str) -> float:
        """The first of the layers that are missing pays for the screen of all."""
        depth, n_layers, source = -int(back), self.sizes.n_layers, self.source
        if depth > n_layers:
            raise NotTestableError(f"layer {back} is deeper than the model")
        some, screen = layers.scored(source, layers.ABLATED), self.screen
        # Each neuron runs the later blocks again, of the last one the attention alone: a third.
        again = (layers.TOP + layers.RANDOM) * max(0.0, depth - 5 / 3) / n_layers
        each = (3 + again) * self.pass_ + max(0.0, screen - self.pass_) / n_layers
        found = self.tokens(some) * each
        found += 2 * AUDIT_PAIRS * source.contexts.tokens.shape[1] * self.pass_
        if f"layer: {back}" != next(name for name in self.missing if name.startswith("layer: ")):
            return found
        positions = layers.scored(source, layers.SCREENED)
        return found + self.tokens(positions) * screen + self.forward(positions)

    @cached_property
    def screen(self) -> float:
        """A token of the pass in which the last layers are screened."""
        model, few, at = self.source.model, self.few(passes=2.0), []
        for index in list(range(self.sizes.n_layers))[-layers.DEEPEST :]:
            none = torch.zeros_like(W_out_of(model, index)[:, 0])
            at.append(Layer(model, self.head, index, none))
        batches, weight = scored_batches(*self.inputs, few), class_weights(few)

        def work() -> None:
            for batch in batches:
                layers.screened_layers(at, batch, weight[:, batch.rows])

        return self.a_token("screen", few, work)

    def domains(self) -> float:
        everything, rng = self.source.everything("corrected"), self.source.rng("cost of domains")
        names, of = np.unique([d.domain for d in self.source.corpus.documents], return_inverse=True)
        if names.size < 2:
            raise NotTestableError("the corpus has one domain")
        rare = rng.permutation(np.flatnonzero(everything.stratum == RARE))
        domain = of[everything.document[rare]]
        drawn = np.concatenate([rare[domain == i][:SCORED] for i in range(names.size)])
        resid, post, target, mean = self.rows

        def exact(some: slice) -> None:
            rows = resid[some], post[some], target[some], mean
            delta_loss(self.head, *rows, tolerance=EXACT)

        seconds, n = [seconds_of(lambda n=n: exact(slice(n))) for n in (8, len(resid))], len(resid)
        # What is done once a block, of hundreds of positions, is left out.
        every = max(0.0, seconds[1] - seconds[0]) / (n - 8)
        return self.forward(everything[np.sort(drawn)]) + drawn.size * every

    def groups(self) -> float:
        resid, post, target, mean = self.rows
        n, positions = self.sizes.d_mlp, self.source.positions(STRATIFIED)
        order = torch.from_numpy(self.source.rng("cost of groups").permutation(n)).to(target.device)
        some = [order[: groups.size_of(percent, n)] for percent in groups.PERCENT]
        given = resid, mean - post, target, some, self.head.mlp_output(post)
        every = seconds_of(lambda: group_delta_loss(self.head, *given)) / len(resid)
        sets = len(KINDS) * (1 + groups.SETS) * (positions.stratum != MIDDLE).sum()
        return self.forward(positions) + sets * every

    def unembedding(self) -> float:
        """In float64, with the eigenvectors of the unembedding beside it."""
        return 2 * (1 + self.sizes.d_model / self.sizes.d_mlp) * self.fast[0]

    def checkpoints(self) -> float:
        """Effects at fewer positions of the revisions that the page dynamics is asked for."""
        own, name = self.source.parameters, f"effects: {STRATIFIED}"
        asked = {"corpus", "n_documents", "packed", "unigram", "device", "dtype"}
        given = own.model_dump(include=asked)
        steps = [step_parameters(own.model, one, **given) for one in own.revisions.split(",")]
        new = sum(not there(Measurements(step), name) for step in steps)
        each = new and self.loading + self.of(name) * STEP_POSITIONS / own.n_positions
        return float(new * each)

    @property
    def pairs(self) -> int:
        """Of stratified positions and neurons."""
        return len(self.source.positions(STRATIFIED)) * self.sizes.d_mlp

    @property
    def held(self) -> tuple[float, float]:
        """Bytes of memory, at most, and of disk."""
        model, contexts = self.inputs
        n_ctx, unit = contexts.tokens.shape[1], 1 if sys.platform == "darwin" else 1024
        block = memory_of(model, n_ctx, *cut_to_fit(*self.inputs, MEMORY))
        # So far this process has held the model, and what was timed.
        now = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        most = max(block, forward_memory(model, n_ctx, STACK), IN_WORK * self.pairs)
        return float(now + most), self.disk
