"""Is a stored measurement what this machine measures? A random sample of it, measured again."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from raretok.ablation.closed_form import delta_loss
from raretok.ablation.head import clean_loss, final_head
from raretok.ablation.interventions import donors
from raretok.ablation.method import TOLERANCE, pair_error
from raretok.ablation.plan import Options
from raretok.errors import UserError
from raretok.measure.attention import Rows
from raretok.measure.attention_capture import capture_rows
from raretok.measure.cards import BEFORE, SEEN, captured, windows, written
from raretok.measure.find import Measurements
from raretok.measure.influence import PRECISE, blocks_of, influence_sums, together
from raretok.measure.layers import SCREENED, screened_blocks
from raretok.measure.layers import scored as screened_at
from raretok.measure.parts import BITS, COARSE, FINE, PARTS, cell_sums, source_of
from raretok.measure.source import STRATIFIED, Source
from raretok.measure.unembedding import LOGITS, texts, tokens_part
from raretok.text.rarity import MIDDLE, Positions

POSITIONS = 64  # at which every neuron is ablated again
# Of a model with more parameters less is measured again: each part would run the whole text.
LARGE, FEW = 50_000_000, 12
# Binary digits of what ablated heads do; sums are rounded in both, each by itself.
ROUNDED = dict.fromkeys(("change", "before", "after"), BITS - 0.5) | {"delta_loss": FINE}
CONTEXTS = 3  # whose attention is captured again
DOCUMENTS = 3  # whose sums are made again
# What another processor's float32 makes of a number: of its size, and of 1.
RELATIVE, ABSOLUTE = 2e-4, 2e-5
PAIR = 1e-6  # nats, of one group at one position: rms 2e-8 to 3e-6 by the size of group and model
RMS, LARGEST = 1.25, 8.0  # allowed differences, in units of the stated error
MANY, SCALE = 1_000, 0.005  # of so many values a common factor may be off by half a percent

Values = Float[np.ndarray, "..."]
# Of one quantity: its name, what is stored, what is measured again, the error of what is stored.
Pair = tuple[str, np.ndarray, np.ndarray, Values | float]


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
    part: str, quantity: str, stored: np.ndarray, again: np.ndarray, error: Values | float
) -> Checked:
    """Compare; `error` is what the stored number may be off by, one standard deviation."""
    stored, again = stored.astype(float), again.astype(float)
    scale = np.sqrt(error**2 + (RELATIVE * again) ** 2 + ABSOLUTE**2)
    z = np.abs(stored - again) / scale
    rms, largest = (float(np.sqrt(np.mean(z**2))), float(z.max())) if z.size else (0.0, 0.0)
    power = float(np.square(again).sum())
    slope = float((stored * again).sum()) / power if power > 0 else 1.0
    return Checked(part, quantity, z.size, rms, largest, slope)


def bit_error(values: Values, bits: float | int) -> Values:
    """Standard deviation of rounding to so many binary digits after the first; an upper bound."""
    return np.abs(values) * 2.0 ** -(bits + 1) / np.sqrt(3)


@dataclass(frozen=True)
class Stored:
    """One part as it is stored, and what it is measured again from."""

    kind: str
    data: xr.Dataset
    source: Source
    rng: np.random.Generator
    large: bool


def check(asked: Measurements) -> Iterator[Checked]:
    """Measure a sample of every part again. Raises `UserError` where the text is another one."""
    folder = asked.ready or asked.kept
    source, rng = source_of(asked.parameters), asked.parameters.rng("check")
    large = source.model.architecture.n_parameters > LARGE
    for name, entry in folder.record()["parts"].items():
        kind, _, rest = name.partition(": ")
        if "not testable" in entry or kind not in (CHECKED_LARGE if large else CHECKS):
            continue
        if entry["made"]["corpus_sha256"] != source.corpus.sha256:
            raise UserError(
                f"{asked.label} was measured on another text than this machine has: "
                "install requirements.lock"
            )
        of = Stored(kind, folder.read(name), source, rng, large)
        for pair in CHECKS[kind](of, *rest.split(", ") if rest else []):
            yield checked(name, *pair)


def check_whole(of: Stored, *rest: str) -> Iterator[Pair]:
    """Every number of a part, measured again as it was."""
    again = PARTS[of.kind](of.source, None, *rest)
    for name in again.data_vars:
        new = again[name].values.astype(np.float64)
        error = bit_error(new, ROUNDED[name]) if name in ROUNDED else 0.0
        yield name, of.data[name].values, new, error


def check_effects(of: Stored, draw: str) -> Iterator[Pair]:
    """Every neuron at some positions, summed over the whole vocabulary."""
    data, source = of.data, of.source
    n = data.sizes["position"]
    some = np.sort(of.rng.permutation(n)[: FEW if of.large else POSITIONS])
    positions = Positions.of(data)[some]
    seen = source.gathered(positions)
    mean = torch.from_numpy(data.mean_post.values).to(seen.post)
    head = final_head(source.model)
    effect = delta_loss(head, seen.resid, seen.post, seen.target, mean)
    sampling = data.sampling_error.values * np.sqrt(n)
    for name, again, extra in (("delta_loss", effect, sampling), ("post", seen.post, 0.0)):
        error = np.sqrt(data[f"{name}_step"].values ** 2 / 12 + extra**2)
        yield name, data[name].values[some], numbers(again), error
    loss = numbers(clean_loss(head, seen.resid, seen.target))
    yield "loss", data.loss.values[some], loss, bit_error(loss, FINE)


def numbers(values: torch.Tensor) -> Values:
    """In float64, in this process."""
    return values.double().cpu().numpy()


def check_attention(of: Stored, protocol: str) -> Iterator[Pair]:
    """The rows of every query in a few contexts."""
    rows = Rows.of(of.data)
    used = of.rng.permutation(np.unique(rows.queries.context))[:CONTEXTS]
    some = np.isin(rows.queries.context, used)
    again = capture_rows(of.source.model, of.source.contexts, rows.queries[some])
    for quantity, bits in (("mass", BITS), ("gini", FINE), ("gini_rest", FINE)):
        stored = getattr(rows, quantity)[:, some]
        new = getattr(again, quantity)[-len(stored) :].astype(np.float64)
        yield quantity, stored, new, bit_error(new, bits)


def check_interventions(of: Stored) -> Iterator[Pair]:
    """The sums of every neuron in a few documents."""
    source, positions = of.source, of.source.positions(STRATIFIED)
    used = few_documents(positions, of.rng)
    rows = np.flatnonzero(np.isin(positions.document, used))
    mine, rng = positions[rows], np.random.default_rng(Options().resample_seed)
    seen = source.gathered(mine)
    new = {
        "zero": torch.zeros_like(seen.post[0]),
        "resample": source.gathered(positions[donors(positions.stratum, rng)[rows]]).post,
        "direct": source.seen(STRATIFIED).mean.to(seen.post),
    }
    labels = mine.document, mine.stratum
    # One more error: of the tokens that were sampled, for each position of a cell.
    sampled = pair_error(TOLERANCE, len(positions)) * np.sqrt(cell_sums(mine.weight**2, *labels)[1])
    for row, name in enumerate(of.data.interventions):
        effect, inputs = "direct" if name == "direct" else "total", seen.rows(slice(None))
        found = delta_loss(final_head(source.model), *inputs, new[name], effect=effect)
        again = cell_sums(mine.weight[:, None] * numbers(found), *labels)[1]
        stored = of.data.delta_loss.values[row][np.isin(of.data.cell_document.values, used)]
        yield name, stored, again, np.hypot(bit_error(again, COARSE), sampled[:, None])


def few_documents(positions: Positions, rng: np.random.Generator) -> Int[np.ndarray, " document"]:
    """Random documents of the smaller half, by scored positions."""
    present, size = np.unique(positions.document, return_counts=True)
    return rng.permutation(present[size <= np.median(size)])[:DOCUMENTS]


def logits_at(
    source: Source, types: np.ndarray, neurons: Int[np.ndarray, " some"] | slice = slice(None)
) -> Values:
    """What a unit of activation of each neuron adds to the logits of types of its own."""
    head = final_head(source.model, torch.float64)
    W_out, G = head.W_out.cpu().numpy()[neurons], head.G.T.cpu().numpy()
    return np.einsum("nd,n...d->n...", W_out, G[types.astype(int)])


def check_tokens(of: Stored) -> Iterator[Pair]:
    """Every neuron: logits of the tokens it writes to most and of the stored ones, and texts.

    Of two tokens that it writes to alike either may come first.
    """
    again = tokens_part(of.source, None)
    for name, quantity in LOGITS.items():
        own = logits_at(of.source, of.data[name].values)
        both, stored = np.stack([again[quantity].values, own]), of.data[quantity].values
        yield quantity, np.stack([stored, stored]), both, bit_error(both, FINE)
    same = np.array(of.data.texts) == texts(of.source.model, of.data.token.values.astype(int))
    yield "texts", same.astype(float), np.ones(same.size), 0.0


def check_layer(of: Stored, layer: str) -> Iterator[Pair]:
    """Every neuron of one of the layers: they are screened together."""
    if layer != "-2":
        return
    positions = screened_at(of.source, SCREENED)
    block = blocks_of(positions, of.source.parameters.rng("blocks of layers"))
    with tempfile.TemporaryDirectory() as folder:
        again = screened_blocks(of.source, positions, block, int(layer), Path(folder))
    for quantity, new in again.items():
        yield quantity, of.data[quantity].values, new, bit_error(new, PRECISE)


def check_groups(of: Stored) -> Iterator[Pair]:
    """Every group, in one block of documents."""
    positions = of.source.positions(STRATIFIED)
    block = blocks_of(positions, of.source.parameters.rng("blocks of groups"))
    some = int(of.rng.integers(of.data.sizes["block"]))
    rows = np.flatnonzero((positions.stratum != MIDDLE) & (block == some))
    joint = together(of.source, rows, np.full(rows.size, some % 2), of.data.members.values)
    drawn, one = positions[rows], np.zeros_like(rows)
    again = influence_sums(joint, drawn, one)[0][:, 0]
    stored = of.data.joint.values[:, some].reshape(again.shape)
    # Effects of either sign cancel in a sum; what rounds each of them does not.
    rounding = PAIR * np.sqrt(influence_sums(drawn.weight[:, None], drawn, one)[0][:, 0])
    yield "joint", stored, again, np.hypot(bit_error(again, FINE), rounding)


def check_cards(of: Stored) -> Iterator[Pair]:
    """Logits of every neuron; a few windows; that a few contexts hold nothing larger.

    Where two tokens or contexts are nearly equal, either may stand first: values are compared.
    """
    data, contexts, neurons = of.data, of.source.contexts, of.data.neuron.values
    yield "logit", data.logit.values, written(of.source, neurons)[1], 0.0
    yield "type", data.logit.values, logits_at(of.source, data.type.values, neurons), 0.0
    some = of.rng.permutation(np.unique(data.context.values))[:CONTEXTS]
    some = np.union1d(some, of.rng.permutation(len(contexts))[:CONTEXTS])
    seen = np.full((*contexts.tokens.shape, neurons.size), np.nan, dtype=np.float32)
    post = captured(of.source, some, neurons)["post"]
    seen[some, : post.shape[1]] = post
    rows = np.isin(data.context.values, some)
    token, again = windows(contexts.tokens, seen, data.context.values, data.pos.values)
    token, again, stored = token[rows], again[rows], data.activation.values[rows]
    wrong = (token != data.token.values[rows]).astype(float)  # ids are no sizes
    yield "token", np.zeros_like(wrong), wrong, 0.0
    yield "activation", stored, again, bit_error(again, SEEN)
    top = [kind == "top" for kind in data.kinds]
    peaks, document = data.activation.values[:, top, BEFORE], data.document.values[:, top]
    own = document == contexts.document[some][:, None, None]
    # A context may reach its own document's peak, where that is among the largest, or the least.
    limit = np.where(own.any(axis=2), (peaks * own).sum(axis=2), peaks.min(axis=1))
    yield "peak", limit, np.maximum(limit, np.nanmax(seen[some], axis=1)), bit_error(limit, SEEN)


# Influence on parts of a text is what `effects` is, at other positions.
CHECKS: dict[str, Callable[..., Iterator[Pair]]] = {
    "model": check_whole,
    "effects": check_effects,
    "interventions": check_interventions,
    "attention": check_attention,
    "heads": check_whole,
    "unembedding": check_whole,
    "tokens": check_tokens,
    "layer": check_layer,
    "groups": check_groups,
    "cards": check_cards,
}
CHECKED_LARGE = ("model", "effects", "attention", "unembedding", "tokens", "cards")
