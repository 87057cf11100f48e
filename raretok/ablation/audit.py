"""The audit: pairs of position and neuron through the model's own forward pass, in float64.

Nothing here is rebuilt from parts that the method uses: the model runs from the tokens to its own
logits, once as it is and once with the input of the last down-projection changed by a hook. What
stands between the last block and the logits, and whatever the MLP's output is multiplied by, counts
as the model has it. Two tokens of one context do not disturb each other, since nothing after the
last MLP looks at another position; so a context serves many pairs at once.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from raretok.ablation.closed_form import delta_loss
from raretok.ablation.gather import check_finite
from raretok.ablation.head import FinalHead, clean_loss, final_head
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
# A value for each pair of position and neuron.
OfPairs = Callable[[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]], Float[np.ndarray, " pair"]]
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
    tokens: Int[Tensor, "context pos"],
    place: Int[Tensor, " pair"],
    pos: Int[Tensor, " pair"],
    change: Callable[[Float[Tensor, "context pos d_mlp"]], None] | None = None,
) -> Float[Tensor, " pair"]:
    """Loss, in nats, of the token after each position, from the model's own logits.

    `change` may write into the input of the last down-projection.
    """

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        post = args[0].clone()
        change(post.view(*tokens.shape, -1))  # OPT joins batch and positions before its MLP
        return (post, *args[1:])

    with ExitStack() as stack:
        if change is not None:
            stack.callback(model.down_projection().register_forward_pre_hook(hook).remove)
        logits = model.bridge(tokens.to(model.device), return_type="logits", use_cache=False)
    target = tokens[place, pos + 1].to(logits.device)
    return nn.functional.cross_entropy(logits[place, pos].double(), target, reduction="none")


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
        for context in np.unique(positions.context):
            rows = np.flatnonzero(positions.context == context)
            pos = torch.from_numpy(positions.pos[rows])
            place, at = torch.zeros_like(pos), torch.from_numpy(neuron[rows])
            tokens = torch.from_numpy(contexts.tokens[context, : positions.pos[rows].max() + 2])
            new = torch.from_numpy(replacement[rows])

            def change(post: Tensor, place=place, pos=pos, at=at, new=new) -> None:
                post[place, pos, at] = new.to(post)

            found[rows] = twice(model, (tokens[None], place, pos), change, effect).cpu().numpy()
        return found

    try:
        with in_double(model):
            return run()
    except RuntimeError:
        return run()


def twice(
    model: LanguageModel, where: tuple[Tensor, ...], change: Callable[..., None], effect: str
) -> Float[Tensor, " pair"]:
    """Ablated less clean loss; under `direct` the final norm keeps its unablated scale."""
    if effect == "total":
        return own_loss(model, *where, change) - own_loss(model, *where)
    scale: list[Tensor] = []
    with own_scale(model, lambda module, args, seen: scale.append(seen)):
        clean = own_loss(model, *where)
    again = iter(scale)  # NanoChat's final norm is its first one too
    with own_scale(model, lambda module, args, seen: next(again)):
        return own_loss(model, *where, change) - clean


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
    head = final_head(model)
    sizes = {"n_pairs": FIRST_PAIRS, "n_contexts": FIRST_CONTEXTS}
    rows, neuron = pairs_to_check(positions, model.architecture.d_mlp, **sizes)
    some = positions[rows]
    apart = path_difference(model, head, contexts, some)
    if not apart <= PATH_LIMIT:
        why = "another step follows its last block"
        raise refusal(model, f"its loss differs by up to {apart:.1g} nats", why)
    zero = np.zeros(len(some))
    own = own_delta_loss(model, contexts, some, neuron, zero)
    apart = np.abs(own - closed_form_at(model, head, contexts, some, neuron)).max()
    # Small effects, as of fresh weights, must be right for their size too.
    if not apart <= min(PATH_LIMIT, max(ROUNDING, SHARE * np.abs(own).max())):
        why = "the output of its last MLP is changed on its way"
        raise refusal(model, f"the effect of a neuron differs by up to {apart:.1g} nats", why)


def refusal(model: LanguageModel, what: str, why: str) -> UserError:
    return UserError(
        f"the closed form does not hold for {model.name} ({model.architecture.family}): {what} "
        f"from the model's own forward pass, so {why}; choose another model"
    )


def path_difference(
    model: LanguageModel, head: FinalHead, contexts: Contexts, positions: Positions
) -> float:
    """Largest difference, in nats, between the model's own loss and that of the closed form."""
    apart = []
    for context in np.unique(positions.context):
        rows = positions[positions.context == context]
        pos = torch.from_numpy(rows.pos)
        tokens = torch.from_numpy(contexts.tokens[[context], : rows.pos.max() + 2])
        own = own_loss(model, tokens, torch.zeros_like(pos), pos)
        seen = capture(model, tokens)
        check_finite(model, seen.resid, seen.post)
        resid = seen.resid[0, pos.to(seen.resid.device)]
        found = clean_loss(head, resid, torch.from_numpy(rows.target).to(resid.device))
        apart.append(float((own - found.double()).abs().max()))
    return max(apart)


def closed_form_at(
    model: LanguageModel,
    head: FinalHead,
    contexts: Contexts,
    positions: Positions,
    neuron: Int[np.ndarray, " position"],
) -> Float[np.ndarray, " position"]:
    """Loss change of setting one neuron to zero at each position, in closed form."""
    found = np.zeros(len(positions))
    for context in np.unique(positions.context):
        rows = np.flatnonzero(positions.context == context)
        pos = torch.from_numpy(positions.pos[rows]).to(model.device)
        seen = capture(model, torch.from_numpy(contexts.tokens[[context], : int(pos.max()) + 1]))
        target = torch.from_numpy(positions.target[rows]).to(model.device)
        here = (seen.resid[0, pos], seen.post[0, pos], target)
        some = torch.from_numpy(neuron[rows]).to(model.device)
        every = delta_loss(head, *here, torch.zeros_like(here[1][0]), neurons=some)
        found[rows] = every.diagonal().cpu().numpy()
    return found


def audit_pairs(
    model: LanguageModel,
    contexts: Contexts,
    positions: Positions,
    stored: OfPairs,
    replacement: OfPairs,
    *,
    effect: str,
) -> tuple[float, int]:
    """Largest error, in nats, of random pairs as they are stored, and how many were checked."""
    sizes = {"n_pairs": PAIRS, "n_contexts": CONTEXTS}
    rows, neuron = pairs_to_check(positions, model.architecture.d_mlp, **sizes)
    new = replacement(rows, neuron)
    exact = own_delta_loss(model, contexts, positions[rows], neuron, new, effect=effect)
    return float(np.abs(stored(rows, neuron).astype(np.float64) - exact).max()), rows.size
