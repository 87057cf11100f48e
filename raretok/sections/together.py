"""A group ablated at once against its neurons one by one: what redundancy hides.

Neurons that back each other up matter little alone and much together: the joint effect exceeds the
sum of the single ones. Neurons that push the same logits saturate: it falls short. Controls say
what any neurons of that kind do.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from raretok.groups import Fold
from raretok.ledger import p_text
from raretok.stats import Interval, NullTest, bootstrap_means, document_sums, interval, null_test

# Effect of groups of neurons on the loss at some positions, in nats.
Joint = Callable[
    [Bool[np.ndarray, " position"], Bool[np.ndarray, "group neuron"]],
    Float[np.ndarray, "chosen group"],
]


@dataclass(frozen=True)
class Together:
    """Joint effect of the group on a class of targets, and the sum of its single effects; nats."""

    joint: float
    interval: Interval  # of joint, over documents
    summed: float
    joint_null: Float[np.ndarray, " draw"]
    summed_null: Float[np.ndarray, " draw"]
    test: NullTest  # joint less summed, against the control groups, two-sided

    @property
    def ratio(self) -> float:
        return self.joint / self.summed

    @property
    def ratio_of_controls(self) -> float:
        """Joint over summed effect of all control groups together."""
        return float(self.joint_null.sum() / self.summed_null.sum())


def together(
    folds: list[Fold],
    delta_loss: Float[np.ndarray, "position neuron"],
    weight: Float[np.ndarray, " position"],
    document: Int[np.ndarray, " position"],
    rows: Bool[np.ndarray, " position"],
    joint: Joint,
    *,
    n_controls: int,
    counts: Float[np.ndarray, "boot document"],
) -> Together:
    """Measure the group and its first `n_controls` control groups at the chosen `rows`.

    `counts` are bootstrap counts of documents 0 .. n - 1. Means over the folds.
    """
    joints, sums, boots = [], [], []
    for fold in folds:
        chosen = rows & fold.measured
        groups = np.concatenate([fold.group[None], fold.controls[:n_controls]])
        effect = joint(chosen, membership(groups, delta_loss.shape[1])).astype(np.float64)
        mean = weight[chosen] / weight[chosen].sum()
        joints.append(mean @ effect)
        sums.append((mean @ delta_loss[chosen].astype(np.float64))[groups].sum(axis=1))
        of_group = document_sums(effect[:, :1], document[chosen], weight[chosen], counts.shape[1])
        boots.append(bootstrap_means(of_group, counts)[:, 0])
    joint_mean, summed = np.mean(joints, axis=0), np.mean(sums, axis=0)
    excess = joint_mean - summed
    return Together(
        float(joint_mean[0]),
        interval(np.mean(boots, axis=0)),
        float(summed[0]),
        joint_mean[1:],
        summed[1:],
        null_test(float(excess[0]), excess[1:], "two-sided"),
    )


def together_table(found: dict[str, Together]) -> pd.DataFrame:
    """Joint and summed effects of several groups, beside their controls."""
    rows = {
        name: {
            "together, nats": f"{one.joint:.3f}",
            "95 %": f"{one.interval.low:.3f} to {one.interval.high:.3f}",
            "one by one, summed": f"{one.summed:.3f}",
            "together over summed": f"{one.ratio:.2f}",
            "controls together": f"{np.median(one.joint_null):.3f}",
            "controls together over summed": f"{one.ratio_of_controls:.2f}",
            "excess against controls: p": p_text(one.test.p),
        }
        for name, one in found.items()
    }
    return pd.DataFrame(rows).T


def membership(
    groups: Int[np.ndarray, "group member"], n_neurons: int
) -> Bool[np.ndarray, "group neuron"]:
    """A row for each group that marks its members."""
    marks = np.zeros((len(groups), n_neurons), dtype=bool)
    marks[np.arange(len(groups))[:, None], groups] = True
    return marks
