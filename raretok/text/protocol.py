"""Three readings of the paper: what its code does, what its text says, a corrected design."""

from dataclasses import dataclass
from typing import Literal

Rule = Literal["released", "percentile above elbow", "percentile"]


@dataclass(frozen=True)
class Protocol:
    """The choices in which the three readings differ; everything else they share."""

    name: str
    rule: Rule  # which types are rare, and which common (see `rarity.type_classes`)
    by: Literal["input", "target"] = "target"  # whose frequency makes a position rare
    draw: Literal["whole contexts", "stratified"] = "stratified"  # which positions are scored
    signed: bool = False  # influence: the mean of delta_loss, or of |delta_loss|
    boost_only: bool = False  # keep the neurons whose mean delta_loss is positive
    cross_fitted: bool = False  # groups: chosen on one half of the documents, measured on the other
    matched: bool = False  # control groups are like the group in what its neurons do, else any


PROTOCOLS = {
    one.name: one
    for one in (
        # As released: every position of 10 contexts. A position is rare when its input token is;
        # so is every type outside the most frequent 15 % and above the elbow.
        Protocol("code", "released", by="input", draw="whole contexts", boost_only=True),
        # As written: a position is rare when its target is among the rarest 15 % of types, the few
        # below the elbow left out; all more frequent types are common.
        Protocol("text", "percentile above elbow"),
        # Targets in the rarest 15 % of types against the most frequent 15 %; signed means.
        Protocol("corrected", "percentile", signed=True, cross_fitted=True, matched=True),
    )
}
