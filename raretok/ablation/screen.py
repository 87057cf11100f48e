r"""First-order effect of every neuron of a layer, and how well it orders them.

One forward and one backward pass a class.

Attribution patching (Kramár et al. 2024, arXiv 2403.00745): the mean loss of a class,
$\sum_t w_t \ell_t / \sum_t w_t$ over its scored positions $t$, changes by about

$$\sum_{pos} \frac{\partial\, \mathrm{mean\ loss}}{\partial\, post_{pos,i}}\,
(\mathrm{replacement}_i - post_{pos,i}),$$

the sum running over the positions where neuron i is ablated. What it leaves out is everything that
bends: the later attention and MLPs, the final norm and the softmax. It ranks neurons; the exact
path measures them.
"""

from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from raretok.ablation.batches import ScoredBatch
from raretok.ablation.checkpoints import Arrays, Checkpoints, shown
from raretok.ablation.head import clean_pass
from raretok.ablation.split import push_gradient
from raretok.ablation.stacked import Layer
from raretok.models.adapter import LanguageModel
from raretok.models.rerun import Capture, capture, run_from
from raretok.stats.documents import DocumentSums, bootstrap_means
from raretok.text.rarity import COMMON, RARE, Positions

CLASSES = (RARE, COMMON)
BOUNDS = ("value", "low", "high")
MEASURES = ("spearman", "spearman of sizes", "recall")
LOWEST = (-1, -1, 0)  # value of each measure
SIGMAS = 1.96  # 95 %
LARGEST = 0.1  # of the neurons, for the recall


def class_weights(positions: Positions) -> Float[np.ndarray, "token_class position"]:
    """Weight of each position in the mean of each of CLASSES: zero outside the class."""
    return np.stack([positions.weight * (positions.stratum == stratum) for stratum in CLASSES])


def screened(
    at: Layer, batches: list[ScoredBatch], positions: Positions, kept: Checkpoints
) -> list[DocumentSums]:
    """First-order change of the loss, nats, for every neuron: sums by document for each of CLASSES.

    What is kept is not computed again.
    """
    weight = class_weights(positions)
    documents, document = np.unique(positions.document, return_inverse=True)
    total = np.zeros((len(CLASSES), documents.size, len(at.W_out)))
    for k, batch in enumerate(shown(batches, "screen")):
        make = partial(screen, at, batch, weight[:, batch.rows])
        of_context = np.empty(len(batch.contexts), dtype=np.int64)
        of_context[batch.place.cpu().numpy()] = document[batch.rows]
        for summed, values in zip(total, kept.part(f"screen-{k}", make)["total"], strict=True):
            np.add.at(summed, of_context, values)
    size = [np.bincount(document, w, minlength=documents.size) for w in weight]
    return [DocumentSums(*pair) for pair in zip(total, size, strict=True)]


def screen(
    at: Layer,
    batch: ScoredBatch,
    weight: Float[np.ndarray, "token_class scored"],
    captured: Capture | None = None,
) -> Arrays:
    """First-order change of the weighted sum of losses, in nats, by class, context and neuron.

    One forward pass, one from the layer on, and one backward pass a row of `weight`. Contexts do
    not read each other, so that their parts come apart. Beside the `total` what goes straight to
    the final norm, `unmediated` by later layers: of the scored positions' own activations. What was
    `captured` before is not run again.
    """
    captured = captured or capture(at.model, batch.tokens, at.index)
    clean = clean_pass(at.head, batch.scored(captured.final), batch.target, double=False)
    at_end = push_gradient(at.head, clean, batch.target)
    change = (at.value - captured.post) * batch.ablated[..., None]
    weighted = torch.from_numpy(weight).to(at_end)[..., None] * at_end
    after = gradients_at(at.model, at.index, batch, captured, weighted)
    at_post = at.gradient(captured.post, after)
    total = torch.einsum("cbpn,bpn->cbn", at_post, change)
    straight = at.gradient(batch.scored(captured.post), weighted) * batch.scored(change)
    unmediated = torch.zeros_like(total).index_add_(1, batch.place, straight)
    return {"total": total.cpu().numpy(), "unmediated": unmediated.cpu().numpy()}


def gradients_at(
    model: LanguageModel,
    layer: int,
    batch: ScoredBatch,
    captured: Capture,
    at_end: Float[Tensor, "token_class scored d_model"],
) -> Float[Tensor, "token_class batch pos d_model"]:
    """Gradients by the residual leaving `layer`, from those before the final norm."""
    with torch.enable_grad():
        resid = captured.resid.detach().requires_grad_()
        final = run_from(model, resid, layer)
    found = []
    for gradient in at_end:
        full = torch.zeros_like(captured.final)
        full[batch.place, batch.pos] = gradient
        found.append(torch.autograd.grad(final, resid, full, retain_graph=True)[0])
    return torch.stack(found)


def rank_agreement(
    screened: DocumentSums,
    exact: DocumentSums,
    counts: Float[np.ndarray, "boot document"],
    *,
    rng: np.random.Generator | None = None,
) -> Float[np.ndarray, "bound measure"]:
    """Value and 95 % interval of each of MEASURES, for neurons in the same order in both.

    `counts` are resamples of documents, used for both, which keeps them paired. With `rng` neurons
    are resampled too: right for a random subset, which stands for its layer, and wrong for the
    top, which stands for itself. The interval is 1.96 standard deviations of the resamples to
    either side of the value, within the range of the measure: resampling adds noise that screen and
    exact share, so that resamples agree better than the sample and their percentiles may miss it.
    """
    everything = np.ones((1, counts.shape[1]))
    value = _measures(bootstrap_means(screened, everything), bootstrap_means(exact, everything))
    drawn, exactly = bootstrap_means(screened, counts), bootstrap_means(exact, counts)
    # A resample without a document of the class has no mean, hence no ranks.
    whole = np.isfinite(exactly).all(axis=1)
    drawn, exactly = drawn[whole], exactly[whole]
    if rng is not None:
        neuron = rng.integers(exactly.shape[1], size=exactly.shape)
        drawn, exactly = (np.take_along_axis(part, neuron, axis=1) for part in (drawn, exactly))
    spread = SIGMAS * np.nanstd(_measures(drawn, exactly), axis=0)
    low, high = np.maximum(value[0] - spread, LOWEST), np.minimum(value[0] + spread, 1)
    return np.stack([value[0], low, high])


def _measures(
    screened: Float[np.ndarray, "boot neuron"], exact: Float[np.ndarray, "boot neuron"]
) -> Float[np.ndarray, "boot measure"]:
    sizes = np.abs(screened), np.abs(exact)
    return np.column_stack([spearman(screened, exact), spearman(*sizes), recall(*sizes)])


def spearman(
    a: Float[np.ndarray, "row neuron"], b: Float[np.ndarray, "row neuron"]
) -> Float[np.ndarray, " row"]:
    """Rank correlation of each row, ties at their mean rank; NaN where a row is constant."""
    a, b = (rankdata(part, axis=1) for part in (a, b))
    a, b = (part - part.mean(axis=1, keepdims=True) for part in (a, b))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))


def recall(
    screened: Float[np.ndarray, "row neuron"], exact: Float[np.ndarray, "row neuron"]
) -> Float[np.ndarray, " row"]:
    """Share of the exactly largest tenth of the neurons that is in the screen's largest tenth."""
    k = max(1, round(LARGEST * exact.shape[1]))
    large, ranked_high = (part >= np.sort(part)[:, -k, None] for part in (exact, screened))
    return (large & ranked_high).sum(axis=1) / large.sum(axis=1)
