"""The front page's answer in words, and the card that other sites show for a link to the book."""

import math
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt

from raretok.claims.regimes.figures import law, rank_curve
from raretok.claims.sample import KINDS
from raretok.claims.study import CORRECTED, Study
from raretok.claims.style import COLOURS
from raretok.ledger.claims import claims
from raretok.ledger.over_models import NAMES, beside
from raretok.ledger.promise import CALIBRATED, TRUE_SUPPORT, VERDICTS, calibrated, support, worst
from raretok.ledger.records import book_ledger
from raretok.ledger.replication import REPRODUCED
from raretok.ledger.tables import decisive, ours, region_text
from raretok.ledger.verdicts import Entry
from raretok.measure.find import LEAD

PLATEAU, MODEL = "R1", NAMES[LEAD]
OPENING = {
    "supported": f"{MODEL} has a plateau",
    "contradicted": f"{MODEL} has no plateau",
    "inconclusive": f"Whether {MODEL} has a plateau stays open",
    "not testable": f"Whether {MODEL} has a plateau cannot be told here",
}
SHORT = ", but the interval ends below what a plateau would be"
NAMED = ("supported", "contradicted", "reproduced")  # verdicts whose claims the answer names


def answer(book: Path) -> str:
    """The answer in three sentences, and how far it can be trusted (MyST)."""
    lead, found = paper_entries(book), beside(book)[0]
    runs = [one for one in found if one.runs and claims()[one.claim].of_the_paper]
    n = max((len(one.runs) for one in runs), default=0)
    on_model = counted([(e.verdict, e.finding.claim) for e in lead], VERDICTS)
    on_runs = counted([(one.verdict, one.claim) for one in runs], REPRODUCED)
    plateau = " ".join(plateau_words(e) for e in lead if e.finding.claim == PLATEAU)
    return (
        f"- {plateau}\n- Of the paper's {len(lead)} claims, on {MODEL} {on_model}.\n"
        f"- Over {n} training runs of small models of our own {on_runs}.\n\n{trust_words()}"
    )


def paper_entries(book: Path) -> list[Entry]:
    """The paper's claims on the first model, under the corrected reading."""
    return [entry for entry in decisive(book_ledger(book)) if entry.claim.of_the_paper]


def plateau_words(entry: Entry) -> str:
    """The claim that gives the paper its subject."""
    supports, contradicts = map(region_text, (entry.spec.supports, entry.spec.contradicts))
    number = ours(entry.finding) or "an unknown number of"
    return (
        f"**{OPENING[entry.verdict]}**{short_of(entry)}: the 1 % of last-layer neurons that matter "
        f"most to rare tokens have **{number}** times the influence that one smooth curve through "
        f"the neurons below them predicts, where {supports} would be a plateau and {contradicts} "
        f"none{f' ({entry.why})' if entry.why else ''}."
    )


def short_of(entry: Entry) -> str:
    """That an open interval ends below every value that would support the claim, where it does."""
    one, bounds = entry.finding.estimate, [low for low, _ in entry.spec.supports]
    below = one and None not in bounds and one.high < min(bounds)
    return SHORT if below and entry.verdict == "inconclusive" else ""


def counted(verdicts: list[tuple[str, str]], order: tuple[str, ...]) -> str:
    """How many claims have each verdict; named where that is a decision."""
    parts = []
    for verdict in order:
        some = [claims()[claim].short for one, claim in verdicts if one == verdict]
        names = f" ({', '.join(some)})" if verdict in NAMED else ""
        parts += [f"**{len(some)} {'is' if len(some) == 1 else 'are'} {verdict}**{names}"] * bool(
            some
        )
    return " and ".join([", ".join(parts[:-1]), *parts[-1:]]) if parts[1:] else "".join(parts)


def trust_words() -> str:
    """What simulated data say of the verdicts."""
    rows = calibrated(CALIBRATED)
    found = {name: support(rows, name, one.primary) for name, one in claims().items()}
    able = {name: one["able"] for name, one in found.items() if one}
    weak, strong = ([n for n in able if able[n] is kind] for kind in (False, True))
    wrong = 100 * worst(rows)
    falsely = f"at most {math.ceil(wrong)} % of the data sets" if wrong else "none of the data sets"
    sizes = sorted({row["runs"] for row in rows})
    return (
        "*How sure is that?* Every verdict is read off a 95 % interval. We also simulated data, "
        f"{sizes[0]} to {sizes[-1]} data sets a setting, from `{CALIBRATED}`, one of the small "
        f"models. Where a claim was made false, it was supported in {falsely}. Where it was made "
        f"true, {len(strong)} of {len(able)} claims ({', '.join(strong)}) were supported in at "
        f"least {100 * TRUE_SUPPORT:.0f} % of them: for the other {len(weak)} a missing "
        "*supported* is weak evidence ({ref}`calibration`)."
    )


def card(book: Path, out: Path) -> None:
    """Draw the card, 1200 by 630 pixels: the curves of the first claim and what came of them."""
    sample, lead, ax = Study.shipped(LEAD).sample(CORRECTED), paper_entries(book), None
    with plt.rc_context({"font.size": 15, "axes.spines.top": False, "axes.spines.right": False}):
        figure = plt.figure(figsize=(12, 6.3), dpi=100, facecolor="white")
        for left, kind in zip((0.09, 0.57), KINDS, strict=True):
            ax = figure.add_axes((left, 0.12, 0.4, 0.46), sharey=ax)
            rank_curve(ax, sample, kind)
            law(ax, sample, kind)
            ax.set_title(f"{kind} tokens", color=COLOURS[kind], weight="bold")
            ax.set_ylim(bottom=1e-5)
    figure.text(0.04, 0.88, "Rare-token neurons, tested", fontsize=38, weight="bold")
    plateau = next(one for one in lead if one.finding.claim == PLATEAU)
    found = f"{OPENING[plateau.verdict]}: {ours(plateau.finding)} {plateau.spec.unit}"
    counts = Counter(entry.verdict for entry in lead)
    some = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    text = f"{found}\n{len(lead)} claims of the paper: {some}"
    figure.text(0.04, 0.71, text, fontsize=16, linespacing=1.7, color="0.2")
    figure.savefig(out, metadata={"Software": None})
    plt.close(figure)
