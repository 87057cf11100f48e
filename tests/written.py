"""Made-up text for tests of attention: contexts, and positions of every class in them."""

import numpy as np

from raretok.text.corpus import Contexts
from raretok.text.rarity import COMMON, MIDDLE, RARE, Positions

N_CTX = 24


def some_text(n: int = 6, seed: int = 0) -> tuple[Contexts, Positions]:
    """Random contexts of unlike length, and all their positions, a third of them rare."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 257, (n, N_CTX))
    length = rng.integers(N_CTX // 2, N_CTX + 1, n)
    contexts = Contexts(tokens, length, np.arange(n) // 2)
    context, pos = np.nonzero((np.arange(N_CTX - 1) >= 3) & (np.arange(1, N_CTX) < length[:, None]))
    target = tokens[context, pos + 1]
    positions = Positions(
        context=context,
        pos=pos,
        input=tokens[context, pos],
        target=target,
        document=contexts.document[context],
        stratum=np.array([RARE, COMMON, MIDDLE])[target % 3],
        weight=np.ones(pos.size),
    )
    return contexts, positions


def pool(n: int, stratum: int, rng: np.random.Generator, n_documents: int = 6) -> Positions:
    columns = rng.integers(1, 200, (2, n))
    document = rng.integers(n_documents, size=n)
    return Positions(
        context=document,
        pos=rng.integers(3, 20, n),
        input=columns[0],
        target=columns[1],
        document=document,
        stratum=np.full(n, stratum),
        weight=np.ones(n),
    )
