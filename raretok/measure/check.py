"""Is a stored measurement what this machine measures? A random sample of it, measured again."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from raretok.ablation.closed_form import delta_loss
from raretok.ablation.gather import Gathered, gather
from raretok.ablation.head import clean_loss, final_head
from raretok.ablation.interventions import donors
from raretok.ablation.plan import Options
from raretok.ablation.precision import TOLERANCE, pair_error
from raretok.errors import UserError
from raretok.measure.attention_capture import capture_rows
from raretok.measure.cards import BEFORE, SEEN, captured, logits_of, windows, written
from raretok.measure.find import Measurements
from raretok.measure.groups import together
from raretok.measure.influence import PRECISE, blocks_of, influence_sums
from raretok.measure.layers import SCREENED, screened_blocks
from raretok.measure.layers import scored as screened_at
from raretok.measure.parts import (
    BITS,
    COARSE,
    FINE,
    cell_sums,
    cells_of,
    heads_part,
    model_part,
    source_of,
)
from raretok.measure.rows import Rows
from raretok.measure.source import STRATIFIED, Source
from raretok.measure.unembedding import unembedding_part
from raretok.text.rarity import MIDDLE, Positions

POSITIONS = 64  # at which every neuron is ablated again
# Of a model with more parameters less is measured again: each part would run the whole text.
LARGE, FEW = 50_000_000, 12
CONTEXTS = 3  # whose attention is captured again
DOCUMENTS = 3  # whose sums are made again
# What another processor's float32 makes of a number: of its size, and of 1.
RELATIVE, ABSOLUTE = 2e-4, 2e-5
RMS, LARGEST = 1.25, 8.0  # allowed differences, in units of the stated error
MANY, SCALE = 1_000, 0.005  # of so many values a common factor may be off by half a percent


Values = Float[np.ndarray, "..."]


@dataclass(frozen=True)
class Checked:
    """Differences of one quantity between what is stored and what was measured again."""

    part: str
    quantity: str
    n: int
    rms: float  # in units of the stated error
    largest: float
    scale: float  # of what is stored to what was measured again, over all values

    @property
    def passed(self) -> bool:
        scaled = self.n >= MANY and abs(self.scale - 1) > SCALE
        return self.rms <= RMS and self.largest <= LARGEST and not scaled

    @property
    def line(self) -> str:
        verdict = "agrees" if self.passed else "DIFFERS"
        return (
            f"{verdict:8} {self.part}, {self.quantity}: {self.n} values, rms {self.rms:.2f} and "
            f"largest {self.largest:.1f} stated errors, scale {self.scale:.4f}"
        )


def checked(
    part: str, quantity: str, stored: Values, again: Values, error: Values | float
) -> Checked:
    """Compare; `error` is what the stored number may be off by, one standard deviation."""
    scale = np.sqrt(error**2 + (RELATIVE * again) ** 2 + ABSOLUTE**2)
    z = np.abs(stored - again) / scale
    rms, largest = (float(np.sqrt(np.mean(z**2))), float(z.max())) if z.size else (0.0, 0.0)
    power = float(np.square(again).sum())
    slope = float((stored * again).sum()) / power if power > 0 else 1.0
    return Checked(part, quantity, z.size, rms, largest, slope)


def bit_error(values: Values, bits: int) -> Values:
    """Standard deviation of rounding to so many binary digits after the first; an upper bound."""
    return np.abs(values) * 2.0 ** -(bits + 1) / np.sqrt(3)


@dataclass(frozen=True)
class Stored:
    """One part as it is stored, and what it is measured again from."""

    name: str
    data: xr.Dataset
    source: Source
    rng: np.random.Generator

    def checked(
        self, quantity: str, again: np.ndarray, error: Values | float, stored: Values | None = None
    ) -> Checked:
        """Compare one quantity, whole unless what is `stored` of it is given."""
        stored = self.data[quantity].values if stored is None else stored
        return checked(self.name, quantity, stored.astype(float), again.astype(float), error)


def check(asked: Measurements) -> Iterator[Checked]:
    """Measure a sample of every part again. Raises `UserError` where the text is another one."""
    folder = asked.ready or asked.kept
    source, rng = source_of(asked.parameters), asked.parameters.rng("check")
    for name, entry in folder.record()["parts"].items():
        kind, _, rest = name.partition(": ")
        left_out = kind in UNCHECKED or (large(source) and kind not in CHECKED_LARGE)
        if "not testable" in entry or left_out:
            continue
        if entry["made"]["corpus_sha256"] != source.corpus.sha256:
            raise UserError(
                f"{asked.label} was measured on another text than this machine has: "
                "install requirements.lock"
            )
        stored = Stored(name, folder.read(name), source, rng)
        yield from CHECKS[kind](stored, *rest.split(", ") if rest else [])


def large(source: Source) -> bool:
    return source.model.architecture.n_parameters > LARGE


def check_model(of: Stored) -> Iterator[Checked]:
    """Weights and token counts, in full."""
    again = model_part(of.source, None)
    for quantity in of.data.data_vars:
        yield of.checked(quantity, again[quantity].values, 0.0)


def check_effects(of: Stored, draw: str) -> Iterator[Checked]:
    """Every neuron at some positions, summed over the whole vocabulary."""
    data, n = of.data, FEW if large(of.source) else POSITIONS
    some = np.sort(of.rng.permutation(data.sizes["position"])[:n])
    effect, post, loss = closed_form(of.source, Positions.of(data)[some], data.mean_post.values)
    sampling = data.sampling_error.values * np.sqrt(data.sizes["position"])
    for quantity, again, extra in (("delta_loss", effect, sampling), ("post", post, 0.0)):
        error = np.sqrt(data[f"{quantity}_step"].values ** 2 / 12 + extra**2)
        yield of.checked(quantity, again, error, data[quantity].values[some])
    yield of.checked("loss", loss, bit_error(loss, FINE), data.loss.values[some])


def closed_form(
    source: Source, positions: Positions, mean_post: Float[np.ndarray, " neuron"]
) -> tuple[Values, Values, Values]:
    """Effects, activations and losses at a few positions, exactly."""
    model = source.model
    seen = gather(model, source.contexts, positions, include_first=False, progress=False)
    target = source.on_device(positions.target)
    mean = torch.from_numpy(mean_post).to(seen.post)
    head = final_head(model)
    effect = delta_loss(head, seen.resid, seen.post, target, mean)
    loss = clean_loss(head, seen.resid, target)
    return tuple(one.double().cpu().numpy() for one in (effect, seen.post, loss))


def check_attention(of: Stored, protocol: str) -> Iterator[Checked]:
    """The rows of every query in a few contexts."""
    rows = Rows.of(of.data)
    used = of.rng.permutation(np.unique(rows.queries.context))[:CONTEXTS]
    some = np.isin(rows.queries.context, used)
    again = capture_rows(of.source.model, of.source.contexts, rows.queries[some])
    for quantity, bits in (("mass", BITS), ("gini", FINE), ("gini_rest", FINE)):
        stored = getattr(rows, quantity)[:, some]
        new = getattr(again, quantity)[-len(stored) :].astype(np.float64)
        yield of.checked(quantity, new, bit_error(new, bits), stored)


def check_heads(of: Stored, draw: str, mode: str) -> Iterator[Checked]:
    """Every ablation again: means and donors come from all positions."""
    again = heads_part(of.source, None, draw, mode).astype(np.float64)
    for quantity in ("change", "before", "after"):
        new = again[quantity].values
        # Both are rounded, each by itself.
        yield of.checked(quantity, new, 2**0.5 * bit_error(new, BITS))
    yield of.checked(
        "delta_loss", again.delta_loss.values, bit_error(again.delta_loss.values, FINE)
    )


def check_interventions(of: Stored) -> Iterator[Checked]:
    """The sums of every neuron in a few documents."""
    source, positions = of.source, of.source.positions(STRATIFIED)
    used = few_documents(positions, of.rng)
    rows = np.flatnonzero(np.isin(positions.document, used))
    donor = donors(positions.stratum, np.random.default_rng(Options().resample_seed))[rows]
    seen = seen_at(source, positions[rows])
    target = source.on_device(positions.target[rows])
    new = {
        "zero": torch.zeros_like(seen.post[0]),
        "resample": seen_at(source, positions[donor]).post,
        "direct": seen.mean_post,
    }
    labels, weight = (
        cells_of(positions.document[rows], positions.stratum[rows]),
        positions.weight[rows],
    )
    # One more error: of the tokens that were sampled, for each position of a cell.
    sampled = pair_error(TOLERANCE, len(positions)) * np.sqrt(cell_sums(labels, weight**2)[1])
    for row, name in enumerate(of.data.interventions):
        effect, inputs = "direct" if name == "direct" else "total", (seen.resid, seen.post, target)
        found = delta_loss(final_head(source.model), *inputs, new[name], effect=effect)
        again = cell_sums(labels, weight[:, None] * found.double().cpu().numpy())[1]
        error = np.hypot(bit_error(again, COARSE), sampled[:, None])
        stored = of.data.delta_loss.values[row][np.isin(of.data.cell_document.values, used)]
        yield of.checked(name, again, error, stored)


def few_documents(positions: Positions, rng: np.random.Generator) -> Int[np.ndarray, " document"]:
    """Random documents of the smaller half, by scored positions."""
    present, size = np.unique(positions.document, return_counts=True)
    return rng.permutation(present[size <= np.median(size)])[:DOCUMENTS]


def seen_at(source: Source, positions: Positions) -> Gathered:
    """Residuals and activations at some positions, the mean activations over all that are drawn."""
    there = gather(source.model, source.contexts, positions, include_first=False, progress=False)
    mean = source.mean_post(STRATIFIED)
    return replace(there, mean_post=mean.to(there.post))


def check_unembedding(of: Stored) -> Iterator[Checked]:
    """Every neuron."""
    again = unembedding_part(of.source, None)
    for quantity in of.data.data_vars:
        yield of.checked(quantity, again[quantity].values, 0.0)


def check_layer(of: Stored, layer: str) -> Iterator[Checked]:
    """Every neuron of one of the layers: they are screened together."""
    if layer != "-2":
        return
    positions = screened_at(of.source, SCREENED)
    block = blocks_of(positions, of.source.rng("blocks of layers"))
    with tempfile.TemporaryDirectory() as folder:
        again = screened_blocks(of.source, positions, block, int(layer), Path(folder))
    for quantity, new in again.items():
        yield of.checked(quantity, new, bit_error(new, PRECISE))


def check_groups(of: Stored) -> Iterator[Checked]:
    """Every group, in one block of documents."""
    positions = of.source.positions(STRATIFIED)
    block = blocks_of(positions, of.source.rng("blocks of groups"))
    some = int(of.rng.integers(of.data.sizes["block"]))
    rows = np.flatnonzero((positions.stratum != MIDDLE) & (block == some))
    joint = together(of.source, rows, np.full(rows.size, some % 2), of.data.members.values)
    again = influence_sums(joint, positions[rows], np.zeros_like(rows))[0][:, 0]
    stored = of.data.joint.values[:, some].reshape(again.shape)
    yield of.checked("joint", again, bit_error(again, FINE), stored)


def check_cards(of: Stored) -> Iterator[Checked]:
    """Logits of every neuron; a few windows; that a few contexts hold nothing larger.

    Where two tokens or contexts are nearly equal, either may stand first: values are compared.
    """
    data, contexts, neurons = of.data, of.source.contexts, of.data.neuron.values
    logits, types = logits_of(of.source, neurons), data.type.values
    yield of.checked("logit", written(logits)[1], 0.0)
    yield of.checked(
        "type", np.take_along_axis(logits[:, None], types, axis=2), 0.0, data.logit.values
    )
    some = of.rng.permutation(np.unique(data.context.values))[:CONTEXTS]
    some = np.union1d(some, of.rng.permutation(len(contexts))[:CONTEXTS])
    seen = np.full((*contexts.tokens.shape, neurons.size), np.nan, dtype=np.float32)
    post = captured(of.source, some, neurons)["post"]
    seen[some, : post.shape[1]] = post
    rows = np.isin(data.context.values, some)
    token, again = windows(contexts.tokens, seen, data.context.values, data.pos.values)
    token, again, stored = token[rows], again[rows], data.activation.values[rows]
    wrong = (token != data.token.values[rows]).astype(float)  # ids are no sizes
    yield of.checked("token", wrong, 0.0, np.zeros_like(wrong))
    yield of.checked("activation", again, bit_error(again, SEEN), stored)
    top = [kind == "top" for kind in data.kinds]
    peaks, document = data.activation.values[:, top, BEFORE], data.document.values[:, top]
    own = document == contexts.document[some][:, None, None]
    # A context may reach its own document's peak, where that is among the largest, or the least.
    limit = np.where(own.any(axis=2), (peaks * own).sum(axis=2), peaks.min(axis=1))
    here = np.maximum(limit, np.nanmax(seen[some], axis=1))
    yield of.checked("peak", here, bit_error(limit, SEEN), limit)


CHECKS: dict[str, Callable[..., Iterator[Checked]]] = {
    "model": check_model,
    "effects": check_effects,
    "interventions": check_interventions,
    "attention": check_attention,
    "heads": check_heads,
    "unembedding": check_unembedding,
    "layer": check_layer,
    "groups": check_groups,
    "cards": check_cards,
}
# Influence on parts of a text is what `effects` is, at other positions.
UNCHECKED = ("influence", "domains")
CHECKED_LARGE = ("model", "effects", "attention", "unembedding", "cards")
