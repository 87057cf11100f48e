"""The plateau detector of the paper's released code, rewritten to be judged.

It follows the settings of the stored runs, not the defaults. With a threshold multiplier of 0
any change of slope of the wanted sign is "significant": the detector reports a plateau for every
sample of noise. Its plateau is where the slope turns *less* steep: the end of a steep head, not of
a flat one. (The elbow that it reports beside, no page looks at.)
"""

import numpy as np
from jaxtyping import Float

from raretok.text.rarity import window_slopes

WINDOW, MAX_LOG_RANK, MAX_SHARE = 3, 3.5, 0.3


def released_plateau(values: Float[np.ndarray, " neuron"]) -> int | None:
    """Last rank of the plateau: of the largest positive change of local slope near the head.

    None where there are too few neurons, or no slope turns.
    """
    y = np.log(np.sort(values[values > 0])[::-1])
    x = np.log(np.arange(1, y.size + 1))
    in_reach = int(np.searchsorted(x, MAX_LOG_RANK, "right")) - 1
    last = min(int(MAX_SHARE * y.size), y.size - WINDOW, in_reach)
    if last <= 2 * WINDOW:
        return None
    starts = np.arange(WINDOW, last - WINDOW + 1)
    changes = np.diff(window_slopes(x, y, WINDOW)[starts])
    return int(starts[changes.argmax() + 1]) + 1 if changes.max() > 0 else None
