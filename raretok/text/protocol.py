"""Three readings of the paper: what its code does, what its text says, a corrected design."""

from dataclasses import dataclass
from typing import Literal

from raretok.errors import UserError

Rule = Literal["released", "percentile above elbow", "percentile"]


@dataclass(frozen=True)
class Protocol:
    """The choices in which the three readings differ; everything else they share."""

    name: str
    by: Literal["input", "target"]  # whose frequency makes a position rare
    rule: Rule  # which types are rare, and which common (see `rarity.type_classes`)
    draw: Literal["whole contexts", "stratified"]  # which positions are scored
    signed: bool  # influence: the mean of delta_loss, or of |delta_loss|
    boost_only: bool  # keep the neurons whose mean delta_loss is positive
    cross_fitted: bool  # groups are chosen on one half of the documents, measured on the other
    matched: bool  # control groups are like the group in what its neurons do, else any neurons
    note: str


PROTOCOLS = {
    "code": Protocol(
        name="code",
        by="input",
        rule="released",
        draw="whole contexts",
        signed=False,
        boost_only=True,
        cross_fitted=False,
        matched=False,
        note="as released: every position of 10 contexts; a position is rare when its input "
        "token is, and every type outside the most frequent 15 % and above the elbow is rare",
    ),
    "text": Protocol(
        name="text",
        by="target",
        rule="percentile above elbow",
        draw="stratified",
        signed=False,
        boost_only=False,
        cross_fitted=False,
        matched=False,
        note="as written: a position is rare when its target is among the rarest 15 % of types, "
        "the few below the elbow left out; all more frequent types are common",
    ),
    "corrected": Protocol(
        name="corrected",
        by="target",
        rule="percentile",
        draw="stratified",
        signed=True,
        boost_only=False,
        cross_fitted=True,
        matched=True,
        note="target in the rarest 15 % of types against the most frequent 15 %; signed means; "
        "curves ranked on one half of the documents, measured on the other",
    ),
}


def protocol_named(name: str) -> Protocol:
    """The preset of that name. Raises `UserError` for any other name."""
    if name not in PROTOCOLS:
        raise UserError(f"no protocol {name!r}: choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
