r"""Estimates with 95 % intervals over documents: blocks of documents are left out in turn.

Positions of one document share its topic and its words, so documents are dealt into blocks and each
estimate is computed again without each block, choice of the neurons included. With $G$ blocks

$$\widehat{\mathrm{var}} = \frac{G - 1}{G} \sum_g (\hat\theta_{(g)} - \bar\theta)^2$$

(Kott, 2001). Unlike a bootstrap sample, what is left holds no document twice, so neurons can be
chosen on some documents and measured on others in it as in the whole.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import t as student

from raretok.errors import NotTestableError

Folds = Float[np.ndarray, "left_out split block"]
Rows = Int[np.ndarray, " row"]
BLOCKS = 16
SPLITS = 20  # choices of the half of the blocks that neurons are chosen on


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def through(self, function) -> "Estimate":
        """The same after an increasing function, such as exp."""
        return Estimate(*(float(function(one)) for one in (self.value, self.low, self.high)))


@dataclass(frozen=True)
class Deal:
    """Documents in blocks, and the halves of the blocks that neurons are chosen on."""

    documents: Int[np.ndarray, " document"]  # ascending
    block: Int[np.ndarray, " document"]
    halves: Bool[np.ndarray, "split block"]

    @property
    def n_blocks(self) -> int:
        return self.halves.shape[1]

    def of(self, document: Rows) -> Rows:
        """Block of each row, by its document."""
        return self.block[np.searchsorted(self.documents, document)]

    @cached_property
    def kept(self) -> Bool[np.ndarray, "left_out block"]:
        """Blocks that each estimate uses: all of them, then all but one."""
        return np.vstack([np.ones(self.n_blocks, dtype=bool), ~np.eye(self.n_blocks, dtype=bool)])

    def folds(self, cross_fitted: bool) -> tuple[Folds, Folds]:
        """Blocks that neurons are chosen on, and those they are measured on: 1 or 0."""
        kept = self.kept[:, None].astype(float)
        if not cross_fitted:
            return kept, kept
        return kept * self.halves, kept * ~self.halves


def deal(
    document: Rows, *, first: Int[np.ndarray, " some"] | None = None, rng: np.random.Generator
) -> Deal:
    """Deal the documents into blocks of nearly the same number of positions.

    Documents in `first` (those that a dear measurement was made on) are dealt before the others, so
    that each block has its share. Raises `NotTestableError` for fewer than 4 documents.
    """
    present, size = np.unique(document, return_counts=True)
    if present.size < 4:
        few = f"{present.size} documents are too few for an interval"
        raise NotTestableError(f"{few}: 4 are needed")
    n = min(BLOCKS, present.size)
    shuffled = rng.permutation(present.size)
    late = np.zeros(present.size) if first is None else ~np.isin(present, first)
    order = shuffled[np.lexsort((-size[shuffled], late[shuffled]))]
    rounds = -(-present.size // n)
    places = np.concatenate([rng.permutation(n) for _ in range(rounds)])[: present.size]
    block = np.empty(present.size, dtype=np.int64)
    block[order] = places
    halves = []
    for _ in range(SPLITS // 2):
        half = np.zeros(n, dtype=bool)
        half[rng.permutation(n)[: n // 2]] = True
        halves += [half, ~half]
    return Deal(present, block, np.array(halves))


def block_sums(
    values: Float[np.ndarray, "row *rest"],
    weight: Float[np.ndarray, " row"],
    block: Rows,
    n_blocks: int,
) -> Float[np.ndarray, "block *rest"]:
    """Weighted sums over the rows of each block, in float64 and in the order of the rows."""
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    sums = np.stack([weight[block == b] @ flat[block == b] for b in range(n_blocks)])
    return sums.reshape(n_blocks, *values.shape[1:])


def jackknife(
    values: Float[np.ndarray, " left_out"], scatter: float = 0.0, n_scatter: int = 100
) -> Estimate:
    """The estimate of all documents (the first value) and its interval from those that follow.

    `scatter`: standard deviation of the same number over groups of neurons drawn as the controls
    are; a group that is nothing special differs from their mean by so much. It was found from
    `n_scatter` of them, and so was their mean. Raises `NotTestableError` where a value is not
    finite.
    """
    if not np.isfinite(values).all():
        raise NotTestableError("without some of the documents the number cannot be computed")
    left_out = values[1:]
    n = left_out.size
    sd = float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))
    apart = scatter * np.sqrt(1 + 1 / n_scatter)
    own, theirs = student.ppf(0.975, [n - 1, n_scatter - 1])
    reach = float(np.hypot(own * sd, theirs * apart))
    return Estimate(float(values[0]), float(values[0]) - reach, float(values[0]) + reach)
