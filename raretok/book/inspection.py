"""What a model is built of, which claims can be tested on it, and what that takes here."""

from collections.abc import Callable, Iterator
from dataclasses import asdict

import numpy as np
import pandas as pd

from raretok.ablation.head import final_head
from raretok.book.pages import pages
from raretok.claims.attention.estimate import LAST, check_reach
from raretok.claims.domains.estimate import FEWEST, POSITIONS, check_domains
from raretok.claims.finding import Finding
from raretok.claims.layers.estimate import check_depth
from raretok.claims.sample import neurons_in
from raretok.claims.study import CORRECTED, parts_of
from raretok.errors import UserError, first_line
from raretok.ledger.claims import NEEDS, Claim, claims
from raretok.ledger.records import title
from raretok.ledger.verdicts import failed_gate
from raretok.measure.cost import cost_of_run
from raretok.measure.find import Measurements
from raretok.measure.parameters import PageParameters
from raretok.measure.parts import source_of
from raretok.measure.source import STRATIFIED, Source
from raretok.paths import ROOT
from raretok.text.rarity import COMMON, RARE


def report(parameters: PageParameters) -> Iterator[str]:
    """Lines on architecture, claims and cost. Raises `UserError` for what cannot be loaded."""
    source = source_of(parameters)
    rows = asdict(source.model.architecture)
    rows["closed form"] = reason(lambda: final_head(source.model)) or "holds"
    yield from (f"{name:14} {value}" for name, value in rows.items())
    yield f"\nclaims on {source.corpus.name}, as far as is known before it is measured"
    for name, why in obstacles(source).items():
        said = f"not testable: {why}" if why else "can be tested"
        yield f"{name:3} {claims()[name].short:35} {said}"
    yield "\nraretok run all, with these parameters"
    needed = parts_of(title(page.stem) for page in pages(ROOT))
    try:
        yield from cost_of_run(Measurements(parameters), needed).lines()
    except Exception as error:  # whatever stops it here stops the run, too
        yield f"cannot be measured: {first_line(error)}"


def reason(check: Callable[[], object]) -> str:
    """Why something is refused; empty where it is not."""
    try:
        check()
    except UserError as error:
        return str(error)
    return ""


def obstacles(source: Source) -> dict[str, str]:
    """Why each claim cannot be tested under `corrected`, before anything is measured; or empty."""
    known = {}
    refused = reason(lambda: final_head(source.model)) or reason(
        lambda: known.update(gates(source))
    )
    found: dict[str, str] = {}
    for name, claim in claims().items():
        found[name] = refused or of_page(source, name, claim) or gate(name, claim, known)
        needed = claim.estimands[claim.primary].gates.get(NEEDS)
        if needed and found[str(needed)]:
            found[name] = f"{needed} must be supported first"
    return found


def gates(source: Source) -> dict[str, float]:
    """What is known of the gates: positions and documents of the rarer class, and the group."""
    positions, percent = source.positions(STRATIFIED), source.parameters.group_percent
    rows = [positions.stratum == stratum for stratum in (RARE, COMMON)]
    return {
        "positions": float(min(mine.sum() for mine in rows)),
        "documents": float(min(np.unique(positions.document[mine]).size for mine in rows)),
        "neurons": float(neurons_in(percent, source.model.architecture.d_mlp)),
    }


def gate(name: str, claim: Claim, known: dict[str, float]) -> str:
    """The first known gate that fails."""
    spec = claim.estimands[claim.primary]
    asked = spec.model_copy(update={"gates": {n: t for n, t in spec.gates.items() if n in known}})
    return failed_gate(Finding(name, claim.primary, CORRECTED, None, known), asked, set())


def of_page(source: Source, name: str, claim: Claim) -> str:
    """What stands against a claim in the architecture, the text or the parameters."""
    architecture, n = source.model.architecture, source.model.architecture.n_layers
    if claim.page == "layers":
        return reason(lambda: check_depth(n))
    if name in ("A3", "A4"):
        last = range(max(0, n - LAST), n)
        return reason(lambda: check_reach([i for i in last if architecture.reaches_last_mlp(i)]))
    if claim.page == "domains":
        return reason(lambda: check_domains(domains(source)))
    if claim.page == "dynamics" and not source.parameters.revisions:
        return "no checkpoints: name some with -p revisions=step0,step1000"
    return "it is about the models that ship" if claim.page == "replication" else ""


def domains(source: Source) -> int:
    """Domains with enough rare positions in enough documents to have an order of the neurons."""
    everything = source.everything(CORRECTED)
    of = np.array([one.domain for one in source.corpus.documents])
    rare = everything.document[everything.stratum == RARE]
    there = pd.Series(rare).groupby(of[rare]).agg(["size", "nunique"])
    return int(((there["size"] >= POSITIONS) & (there["nunique"] >= FEWEST)).sum())
