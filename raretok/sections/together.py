"""A group ablated at once against its neurons one by one: what redundancy hides.

Neurons that back each other up matter little alone and much together: the joint effect exceeds the
sum of the single ones. Neurons that push the same logits saturate: it falls short. Controls say
what any neurons of that kind do.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Int

from raretok.ledger.verdicts import p_text
from raretok.stats.documents import (
    Interval,
    NullTest,
    bootstrap_means,
    document_sums,
    interval,
    null_test,
    ratio_mean,
)
from raretok.stats.groups import Fold


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


def joint_groups(folds: list[Fold], n_controls: int) -> Int[np.ndarray, "group member"]:
    """The groups to ablate at once: of each fold its group and its first control groups."""
    return np.concatenate(
        [np.vstack([fold.group[None], fold.controls[:n_controls]]) for fold in folds]
    )


def together(
    folds: list[Fold],
    effects: xr.Dataset,
    joint: xr.Dataset,
    protocol: str,
    kind: int,
    *,
    counts: Float[np.ndarray, "boot document"],
) -> Together:
    """The group and its control groups on one class of targets; means over the folds.

    `joint` is what ablating `joint_groups` did, summed by document and class; `counts` are
    bootstrap counts of documents 0 .. n - 1.
    """
    joints, sums, boots = [], [], []
    n_groups = len(joint.groups) // len(folds)
    for number, fold in enumerate(folds):
        mine = slice(number * n_groups, (number + 1) * n_groups)
        documents = np.unique(effects.document.values[fold.measured])
        cells = (joint[f"cell_{protocol}"].values == kind) & np.isin(
            joint.cell_document.values, documents
        )
        weight, document = joint.weight.values[cells], joint.cell_document.values[cells]
        total = joint.delta_loss.values[cells, mine]
        joints.append(total.sum(axis=0) / weight.sum())
        rows = fold.measured & (effects.stratum.values == kind)
        single = ratio_mean(effects.delta_loss.values[rows], effects.weight.values[rows])
        sums.append(single[joint.groups.values[mine]].sum(axis=1))
        of_group = document_sums(total[:, :1] / weight[:, None], document, weight, counts.shape[1])
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
