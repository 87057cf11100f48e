r"""Tokens that stand for the vocabulary: the head as it is, the tail by an unbiased sample.

Sums of second order in the changes of the logits are concentrated where $p_v |G_v|^2$ is large. The
tokens with the largest enter as they are; others are drawn at equal steps of its cumulated values
and weighted by the inverse of how often they are drawn.

Few draws rarely meet a token that matters much, and where they miss it they look precise. So a
sample that decided whether it is good enough would keep what is too small and drop what is too
large. A second one, the probe, decides, and never enters the sum.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.head import Branch, ByPosition, CleanPass, Room

CHUNK = 16  # tokens: sampling first finds a chunk, then a token in it
DOUBT = 60.0  # tokens, of which the heavy tails of the terms hide in fewer


@dataclass(frozen=True)
class Picked(ByPosition):
    """Head tokens first, then the sample, then the probe."""

    token: Int[Tensor, "pos picked"]
    weight: Float[Tensor, "pos picked"]  # in a sum over the vocabulary: head and sample, or probe
    z: Float[Tensor, "pos picked"]
    n_head: int
    n_tail: int  # in the sample
    n_probe: int
    branch_z: Float[Tensor, "pos picked"] | None = None  # of a sandwich norm
    bent: Float[Tensor, "pos picked"] | None = None  # of a soft cap


@dataclass(frozen=True)
class Ranked:
    """The head, and the scores that the tail is sampled by."""

    clean: CleanPass
    length_sq: Float[Tensor, " d_vocab"]  # |G_v|^2
    head: Int[Tensor, "pos n_head"]
    score: Float[Tensor, "pos entry"]  # p |G|^2; 0 for the head, and past the vocabulary
    branch: Branch | None = None

    @cached_property
    def cumulated(self) -> "Cumulated":
        return Cumulated.of(self.score)

    def pick(
        self,
        n_tail: int,
        offset: Float[Tensor, " pos"],
        n_probe: int = 0,
        probe_offset: Float[Tensor, " pos"] | None = None,
    ) -> Picked:
        """The head, and a systematic sample of the tail: weighted, their sum is unbiased.

        The offsets in [0, 1), one number a position, are what is random in sample and probe.
        """
        tokens, weights = [self.head], [self.clean.p.gather(1, self.head)]
        for n, at in ((n_tail, offset), (n_probe, probe_offset)):
            if n:
                sampled, total = systematic(self.cumulated, n, at)
                tokens.append(sampled)
                weights.append(total / (n * self.length_sq[sampled]).clamp_min(1e-30))
        token, weight = torch.cat(tokens, dim=1), torch.cat(weights, dim=1)
        beside = (self.branch and self.branch.z, self.clean.bent)
        more = (values if values is None else values.gather(1, token) for values in beside)
        z = self.clean.z.gather(1, token)
        return Picked(token, weight, z, self.head.shape[1], n_tail, n_probe, *more)


def rank_tokens(
    clean: CleanPass,
    length_sq: Float[Tensor, " d_vocab"],
    n_head: int,
    *,
    branch: Branch | None = None,
    room: Room | None = None,
) -> Ranked:
    """Find the head; what lies in `room` lasts until it is used again."""
    n_pos, d_vocab = clean.p.shape
    width = d_vocab + -d_vocab % CHUNK
    score = (room or Room()).take("score", clean.p, n_pos, width)
    torch.mul(clean.p, length_sq, out=score[:, :d_vocab])
    score[:, d_vocab:] = 0
    head = score[:, :d_vocab].topk(min(n_head, d_vocab), dim=1).indices
    return Ranked(clean, length_sq, head, score.scatter_(1, head, 0.0), branch)


def digits(offset: Float[Tensor, " pos"], k: int) -> Float[Tensor, " pos"]:
    """The k-th of four numbers in [0, 1) that one in float64 holds: its binary digits from 13 k."""
    return offset * 2.0 ** (13 * k) % 1


@dataclass(frozen=True)
class Cumulated:
    """Scores of each row cumulated in two stages: many times faster than one long running sum."""

    chunks: Float[Tensor, "pos chunk entry"]
    of_chunk: Float[Tensor, "pos chunk"]
    until: Float[Tensor, "pos chunk"]

    @classmethod
    def of(cls, score: Float[Tensor, "pos entry"]) -> "Cumulated":
        chunks = score.unflatten(1, (-1, CHUNK))
        of_chunk = chunks.sum(dim=2).double()
        return cls(chunks, of_chunk, of_chunk.cumsum(dim=1))


def systematic(
    score: Cumulated, n: int, offset: Float[Tensor, " pos"]
) -> tuple[Int[Tensor, "pos {n}"], Float[Tensor, "pos 1"]]:
    """`n` entries of each row at equal steps of its cumulated score, and the score in total.

    An entry is drawn n * score / total times on average.
    """
    chunks, of_chunk, until = score.chunks, score.of_chunk, score.until
    total = until[:, -1:]
    steps = torch.arange(n, device=until.device, dtype=torch.float64)
    point = (steps + offset[:, None]) / n * total
    chunk = torch.searchsorted(until, point, right=True).clamp_max(until.shape[1] - 1)
    before = until.gather(1, chunk) - of_chunk.gather(1, chunk)
    rows = torch.arange(len(until), device=until.device)[:, None]
    inside = chunks[rows, chunk].cumsum(dim=2, dtype=torch.float64)
    place = torch.searchsorted(inside, (point - before)[..., None], right=True).squeeze(2)
    # Rounding may point past the chunk: its last entry with a score is meant.
    last = torch.searchsorted(inside, inside[..., -1:].contiguous()).squeeze(2)
    return chunk * CHUNK + torch.minimum(place, last), total.to(chunks.dtype)


def doubt(n: int) -> float:
    """How many times larger a variance may well be than n terms with heavy tails show it."""
    return 1 + DOUBT / n


def weighted_sum(
    f: Float[Tensor, "row picked change"], picked: Picked
) -> tuple[Float[Tensor, "row change"], ...]:
    """Sum of the terms of head and sample, and its variance as sample and probe tell it.

    Overwrites `f`.
    """
    sizes = [picked.n_head, picked.n_tail, picked.n_probe]
    weights = [part[:, None] for part in picked.weight.split(sizes, dim=1)]
    head, sampled, probed = (
        (weight @ terms).squeeze(1)
        for weight, terms in zip(weights, f.split(sizes, dim=1), strict=True)
    )
    squares, squares_probed = (
        (weight.square() @ terms).squeeze(1)
        for weight, terms in zip(weights[1:], f.square_().split(sizes, dim=1)[1:], strict=True)
    )
    variance = variance_of_sum(squares, sampled, picked.n_tail)
    by_probe = variance_of_sum(squares_probed, probed, picked.n_probe)
    return head + sampled, variance, by_probe * (picked.n_probe / picked.n_tail)


def variance_of_sum(
    squares: Float[Tensor, "*sum"], total: Float[Tensor, "*sum"], n: int
) -> Float[Tensor, "*sum"]:
    """Variance of a sum of n sampled terms, from their squares' sum, as if drawn independently.

    Equal steps through the scores scatter less than that, so it errs on the large side.
    """
    if n < 2:
        return torch.zeros_like(total)
    return squares.addcmul_(total, total, value=-1 / n).clamp_min_(0).mul_(n / (n - 1))
