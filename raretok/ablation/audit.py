"""The audit: pairs of position and neuron through the model's own forward pass, in float64.

Nothing here is rebuilt from parts that the method uses: the model runs from the tokens to its own
logits, once as it is and once with the input of the last down-projection changed by a hook. What
stands between the last block and the logits, and whatever the MLP's output is multiplied by, counts
as the model has it. Two tokens of one context do not disturb each other, since nothing after the
last MLP looks at another position; so a context serves many pairs at once.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from raretok.ablation.batches import ScoredBatch, scored_batches
from raretok.ablation.closed_form import delta_loss
from raretok.ablation.gather import check_finite
from raretok.ablation.head import clean_loss, final_head
from raretok.ablation.method import pair_error
from raretok.errors import UserError
from raretok.models.adapter import LanguageModel
from raretok.models.rerun import capture
from raretok.models.storage import set_dtype
from raretok.text.corpus import Contexts
from raretok.text.rarity import Positions

PAIRS = 64
CONTEXTS, FIRST_CONTEXTS = 16, 2  # that the pairs are spread over
SEED = 0
LIMIT = 1e-4  # nats; rounding stays a hundred times below
FIRST_PAIRS = 16  # tried before anything is measured
ROUNDING, SHARE = 1e-6, 0.1  # nats, and of the largest effect, that the two may differ by
PATH_LIMIT = 1e-3  # nats, between the closed form's path and the model's own in its own precision


@contextmanager
def in_double(model: LanguageModel) -> Iterator[None]:
    """Let every block, and every module outside them, run in float64; one at a time is widened."""
    root, dtype = model.bridge.original_model, model.dtype
    blocks = list(model.bridge.blocks)
    others = list(beside(root, {id(block) for block in blocks}))
    with ExitStack() as stack:
        for module in [*blocks, *others]:
            widen = module.register_forward_pre_hook(lambda m, args: m.double() and None)
            narrow = module.register_forward_hook(lambda m, args, out: set_dtype(m, dtype))
            stack.callback(widen.remove)
            stack.callback(narrow.remove)
        try:
            yield
        finally:
            set_dtype(root, dtype)


def beside(module: nn.Module, blocks: set[int]) -> Iterator[nn.Module]:
    """The outermost modules that hold none of the blocks; an outer one may ask for its dtype."""
    for child in module.children():
        if id(child) in blocks:
            continue
        if any(id(inner) in blocks for inner in child.modules()):
            yield from beside(child, blocks)
        else:
            yield child


@contextmanager
def own_scale(model: LanguageModel, hook: Callable[..., Tensor | None]) -> Iterator[None]:
    """Let `hook` see, or replace, what the final norm divides by."""
    norm = model.bridge.ln_final
    native, inner = norm.use_native_layernorm_autograd, norm.original_component
    bare = getattr(inner, "weight", None) is None  # as of OLMo; TransformerLens asks for one
    if bare:
        inner.weight = torch.ones(model.architecture.d_model, device=model.device)
    norm.use_native_layernorm_autograd = False  # only then does the hook's answer count
    handle = norm.hook_scale.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
        norm.use_native_layernorm_autograd = native
        if bare:
            inner.weight = None


@torch.no_grad()
def own_loss(
    model: LanguageModel,
    at: ScoredBatch,
    change: Callable[[Float[Tensor, "context pos d_mlp"]], None] | None = None,
    layer: int = -1,
) -> Float[Tensor, " pair"]:
    """Loss, in nats, of the target of each position, from the model's own logits.

    `change` may write into the input of a layer's down-projection.
    """

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        post = args[0].clone()
        change(post.view(*at.tokens.shape, -1))  # OPT joins batch and positions before its MLP
        return (post, *args[1:])

    with ExitStack() as stack:
        if change is not None:
            stack.callback(model.down_projection(layer).register_forward_pre_hook(hook).remove)
        logits = model.bridge(at.tokens, return_type="logits", use_cache=False)
    target = at.target.to(logits.device)
    return nn.functional.cross_entropy(logits[at.place, at.pos].double(), target, reduction="none")


def own_delta_loss(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    neuron: Int[np.ndarray, " position"],
    replacement: Float[np.ndarray, " position"],
    *,
    effect: str = "total",
) -> Float[np.ndarray, " position"]:
    """Loss change, in nats, of one neuron's new activation at each position; float64 throughout.

    In the model's own precision where its code cannot run in another (products of experts).
    """
    found = np.zeros(len(positions))

    def run() -> Float[np.ndarray, " position"]:
        for at in scored_batches(model, contexts, positions, size=1):
            which = at.place, at.pos, torch.from_numpy(neuron[at.rows]).to(at.pos.device)
            new = torch.from_numpy(replacement[at.rows])

            def change(post: Tensor, which=which, new=new) -> None:
                post[which] = new.to(post)

            found[at.rows] = twice(model, at, change, effect).cpu().numpy()
        return found

    try:
        with in_double(model):
            return run()
    except RuntimeError:
        return run()


def twice(
    model: LanguageModel, at: ScoredBatch, change: Callable[..., None], effect: str, layer: int = -1
) -> Float[Tensor, " pair"]:
    """Ablated less clean loss; under `direct` the final norm keeps its unablated scale."""
    if effect == "total":
        return own_loss(model, at, change, layer) - own_loss(model, at)
    scale: list[Tensor] = []
    with own_scale(model, lambda module, args, seen: scale.append(seen)):
        clean = own_loss(model, at)
    again = iter(scale)  # NanoChat's final norm is its first one too
    with own_scale(model, lambda module, args, seen: next(again)):
        return own_loss(model, at, change, layer) - clean


def pairs_to_check(
    positions: Positions, d_mlp: int, *, n_pairs: int, n_contexts: int
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Random positions of a few contexts, no position twice, and a random neuron for each."""
    rng = np.random.default_rng(SEED)
    contexts = rng.permutation(np.unique(positions.context))[:n_contexts]
    there = rng.permutation(np.flatnonzero(np.isin(positions.context, contexts)))
    rows = np.sort(there[:n_pairs])
    return rows, rng.integers(d_mlp, size=rows.size)


def check_model(model: LanguageModel, contexts: Contexts, positions: Positions) -> None:
    """Refuse, before anything is measured, a model whose own forward pass is another one.

    Raises `UserError` where its logits, or the effect of a few neurons, are not what the closed
    form makes of its residual.
    """
    sizes = {"n_pairs": FIRST_PAIRS, "n_contexts": FIRST_CONTEXTS}
    rows, neuron = pairs_to_check(positions, model.architecture.d_mlp, **sizes)
    some = positions[rows]
    apart, effect = in_closed_form(model, contexts, some, neuron)
    if not apart <= PATH_LIMIT:
        why = "another step follows its last block"
        raise refusal(model, f"its loss differs by up to {apart:.1g} nats", why)
    own = own_delta_loss(model, contexts, some, neuron, np.zeros(len(some)))
    apart = np.abs(own - effect).max()
    # Small effects, as of fresh weights, must be right for their size too.
    if not apart <= min(PATH_LIMIT, max(ROUNDING, SHARE * np.abs(own).max())):
        why = "the output of its last MLP is changed on its way"
        raise refusal(model, f"the effect of a neuron differs by up to {apart:.1g} nats", why)


def refusal(model: LanguageModel, what: str, why: str) -> UserError:
    return UserError(
        f"the closed form does not hold for {model.name} ({model.architecture.family}): {what} "
        f"from the model's own forward pass, so {why}; choose another model"
    )


def in_closed_form(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    neuron: Int[np.ndarray, " position"],
) -> tuple[float, Float[np.ndarray, " position"]]:
    """Largest difference, in nats, of the loss in closed form from the model's own; and the loss
    change of setting one neuron to zero at each position."""
    head, apart, effect = final_head(model), np.zeros(len(positions)), np.zeros(len(positions))
    for at in scored_batches(model, contexts, positions, size=1):
        own, seen = own_loss(model, at), capture(model, at.tokens)
        check_finite(model, seen.resid, seen.post)
        resid, post = at.scored(seen.resid), at.scored(seen.post)
        loss = clean_loss(head, resid, at.target)
        apart[at.rows] = (own.to(loss.device) - loss.double()).abs().cpu().numpy()
        some, zero = torch.from_numpy(neuron[at.rows]).to(post.device), torch.zeros_like(post[0])
        every = delta_loss(head, resid, post, at.target, zero, neurons=some)
        effect[at.rows] = every.diagonal().cpu().numpy()
    return float(apart.max()), effect


def audit_verdict(
    model: LanguageModel,
    error: float,
    n_pairs: int,
    tolerance: float,
    n_positions: int,
    limit: float = LIMIT,
) -> dict[str, int | float]:
    """What a run says of its accuracy; warns where the audit found more than the method explains.

    A pair may be off by rounding (`limit`, nats) and, on the fast path, by what its neighbours
    average out.
    """
    limit += 10 * pair_error(tolerance, n_positions)
    passed = bool(error <= limit)
    if not passed:
        warnings.warn(
            f"THE AUDIT FAILED: the effects are up to {error:.1g} nats off the own forward pass of "
            f"{model.name} in {n_pairs} random pairs, {limit:.1g} are allowed; do not use this "
            f"run, its {model.architecture.family} architecture may not be supported",
            stacklevel=2,
        )
    return {
        "audit_pairs": n_pairs,
        "audit_limit": limit,
        "audit_max_error": error,
        "audit_passed": int(passed),
    }
