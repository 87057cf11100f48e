r"""Tokens that stand for the vocabulary: the head as it is, the tail by an unbiased sample.

Sums of second order in the changes of the logits are concentrated where $p_v |G_v|^2$ is large. The
tokens with the largest enter as they are; others are drawn at equal steps of its cumulated values
and weighted by the inverse of how often they are drawn.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raretok.ablation.head import CleanPass, Room

CHUNK = 16  # tokens: sampling first finds a chunk, then a token in it


@dataclass(frozen=True)
class Picked:
    """Head tokens first, then sampled ones."""

    token: Int[Tensor, "pos picked"]
    weight: Float[Tensor, "pos picked"]  # in a sum over the vocabulary
    z: Float[Tensor, "pos picked"]
    n_head: int

    def at(self, rows: slice | Int[Tensor, " row"]) -> "Picked":
        """Those of some positions."""
        return Picked(self.token[rows], self.weight[rows], self.z[rows], self.n_head)


@dataclass(frozen=True)
class Ranked:
    """The head, and the scores that the tail is sampled by."""

    clean: CleanPass
    length_sq: Float[Tensor, " d_vocab"]  # |G_v|^2
    head: Int[Tensor, "pos n_head"]
    score: Float[Tensor, "pos entry"]  # p |G|^2; 0 for the head, and past the vocabulary

    def pick(self, n_tail: int, offset: Float[Tensor, " pos"]) -> Picked:
        """The head, and a systematic sample of the tail: weighted, their sum is unbiased.

        `offset` in [0, 1), one number a position, is what is random.
        """
        sampled, total = systematic(self.score, n_tail, offset)
        of_tail = total / (n_tail * self.length_sq[sampled]).clamp_min(1e-30)
        token = torch.cat([self.head, sampled], dim=1)
        weight = torch.cat([self.clean.p.gather(1, self.head), of_tail], dim=1)
        return Picked(token, weight, self.clean.z.gather(1, token), self.head.shape[1])


def rank_tokens(
    clean: CleanPass,
    length_sq: Float[Tensor, " d_vocab"],
    n_head: int,
    *,
    room: Room | None = None,
) -> Ranked:
    """Find the head; what lies in `room` lasts until it is used again."""
    n_pos, d_vocab = clean.p.shape
    width = d_vocab + -d_vocab % CHUNK
    score = (room or Room()).take("score", clean.p, n_pos, width)
    torch.mul(clean.p, length_sq, out=score[:, :d_vocab])
    score[:, d_vocab:] = 0
    head = score[:, :d_vocab].topk(min(n_head, d_vocab), dim=1).indices
    return Ranked(clean, length_sq, head, score.scatter_(1, head, 0.0))


def systematic(
    score: Float[Tensor, "pos entry"], n: int, offset: Float[Tensor, " pos"]
) -> tuple[Int[Tensor, "pos {n}"], Float[Tensor, "pos 1"]]:
    """`n` entries of each row at equal steps of its cumulated score, and the score in total.

    An entry is drawn n * score / total times on average. Rows are cumulated in two stages, which
    is many times faster than one long running sum.
    """
    chunks = score.unflatten(1, (-1, CHUNK))
    of_chunk = chunks.sum(dim=2).double()
    until = of_chunk.cumsum(dim=1)
    total = until[:, -1:]
    steps = torch.arange(n, device=score.device, dtype=torch.float64)
    point = (steps + offset[:, None]) / n * total
    chunk = torch.searchsorted(until, point, right=True).clamp_max(until.shape[1] - 1)
    before = until.gather(1, chunk) - of_chunk.gather(1, chunk)
    rows = torch.arange(len(score), device=score.device)[:, None]
    inside = chunks[rows, chunk].cumsum(dim=2, dtype=torch.float64)
    place = torch.searchsorted(inside, (point - before)[..., None], right=True).squeeze(2)
    # Rounding may point past the chunk: its last entry with a score is meant.
    last = torch.searchsorted(inside, inside[..., -1:].contiguous()).squeeze(2)
    return chunk * CHUNK + torch.minimum(place, last), total.to(score.dtype)


def variance_of_sum(
    squares: Float[Tensor, "pos change"], total: Float[Tensor, "pos change"], n: int
) -> Float[Tensor, "pos change"]:
    """Variance of a sum of n sampled terms, from their squares' sum, as if drawn independently.

    Equal steps through the scores scatter less than that, so it errs on the large side.
    """
    if n < 2:
        return torch.zeros_like(total)
    return squares.addcmul_(total, total, value=-1 / n).clamp_min_(0).mul_(n / (n - 1))
