"""Tables, pictured values and sentences of the page `ledger` and of the front page."""

import html
from collections import Counter
from pathlib import Path

import pandas as pd
from IPython.display import HTML

from raretok.ledger.claims import paper_claims
from raretok.ledger.ledger_figures import CELLS
from raretok.ledger.records import NOT_RUN, Entry, title, unequal_settings
from raretok.ledger.verdicts import number_text, p_text, power_text
from raretok.stats.documents import ALPHA, POWER
from raretok.text.protocol import PROTOCOLS


def shown(table: pd.DataFrame, classes: str = "") -> HTML:
    """A table whose cells may hold links; nothing in it is cut short.

    Of the class `sentences` (book/_assets/custom.css) its cells stay readable on a phone.
    """
    with pd.option_context("display.max_colwidth", None):
        return HTML(table.to_html(escape=False, classes=classes))


def link(page: str, label: str = "", text: str = "") -> str:
    """HTML link to a page of the site, or to the figure of that label on it."""
    target = f"{page}.html#{label}" if label else f"{page}.html"
    return f'<a href="{html.escape(target)}">{html.escape(text or title(page))}</a>'


def claims_table() -> pd.DataFrame:
    """What the paper claims, and the effect that a test of it must be able to see."""
    rows = [
        {
            "claim": claim.id,
            "the paper says": html.escape(claim.statement),
            "published": html.escape(claim.published),
            "effect that matters": html.escape(claim.matters),
        }
        for claim in paper_claims().values()
    ]
    return pd.DataFrame(rows).set_index("claim")


def ledger_table(entries: list[Entry]) -> pd.DataFrame:
    """The ledger, verdict first, with links to where each line is shown."""
    rows = [
        {
            "claim": entry.claim.id,
            "protocol": entry.protocol,
            "verdict": entry.verdict,
            "ours (95 %)": ours(entry),
            "published": html.escape(entry.claim.published),
            "p": "" if entry.found is None else html.escape(p_text(entry.found.p)),
            "adjusted p": html.escape(p_text(entry.p_adjusted)),
            "power": "" if entry.found is None else power_text(entry.found.power),
            "smallest effect seen": smallest(entry),
            "shown in": where(entry),
            "run": entry.found.run if entry.found else "",
        }
        for entry in entries
    ]
    return pd.DataFrame(rows).set_index(["claim", "protocol"])


def ours(entry: Entry) -> str:
    """Value, interval and unit, or nothing."""
    if entry.found is None or entry.found.value is None:
        return ""
    return html.escape(number_text(entry.found, entry.claim))


def smallest(entry: Entry) -> str:
    """The effect that 80 % of runs would have seen."""
    if entry.found is None or entry.found.smallest is None:
        return ""
    return f"{entry.found.smallest:.2g}"


def where(entry: Entry) -> str:
    """Link to the figure or page of an entry; no link to a page that was not run."""
    if entry.found is None:
        return title(entry.page)
    return link(entry.page, entry.found.figure)


def by_claim(entries: list[Entry]) -> dict[str, dict[str, Entry]]:
    """The entries by claim, then by protocol."""
    found: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        found.setdefault(entry.claim.id, {})[entry.protocol] = entry
    return found


def matrix(entries: list[Entry]) -> dict[str, list]:
    """Verdicts by claim and protocol, as arguments of `ledger_figures.verdict_matrix`."""
    rows = by_claim(entries)
    return {
        "verdicts": [[row[name].verdict for name in PROTOCOLS] for row in rows.values()],
        "claims": [f"{name}  {paper_claims()[name].short}" for name in rows],
        "protocols": list(PROTOCOLS),
    }


def untestable_table(entries: list[Entry]) -> pd.DataFrame:
    """What could not be decided here, and why."""
    rows = [
        {"claim": entry.claim.id, "protocol": entry.protocol, "why": html.escape(entry.why)}
        for entry in entries
        if entry.verdict == "not testable here"
    ]
    columns = ["claim", "protocol", "why"]
    return pd.DataFrame(rows, columns=columns).set_index(["claim", "protocol"])


def correction_table(entries: list[Entry]) -> pd.DataFrame:
    """The tests below the level before the correction, and what it makes of them."""
    rows = [
        {
            "claim": entry.claim.id,
            "protocol": entry.protocol,
            "p": p_text(entry.found.p),
            "adjusted p": p_text(entry.p_adjusted),
            "verdict on its page": entry.verdict_on_page,
            "verdict here": entry.verdict,
        }
        for entry in entries
        if entry.found and entry.found.p is not None and entry.found.p < ALPHA
    ]
    columns = ["claim", "protocol", "p", "adjusted p", "verdict on its page", "verdict here"]
    return pd.DataFrame(rows, columns=columns).set_index(["claim", "protocol"])


def protocol_table(entries: list[Entry]) -> pd.DataFrame:
    """How often each protocol gives each verdict, and where it parts from `corrected`."""
    rows = []
    for name, protocol in PROTOCOLS.items():
        mine = [entry for entry in entries if entry.protocol == name]
        counts = Counter(entry.verdict for entry in mine)
        other = [
            e.claim.id
            for e, sound in zip(mine, of_protocol(entries, "corrected"), strict=True)
            if e.verdict != sound.verdict
        ]
        rows.append(
            {
                "protocol": name,
                "how it reads the paper": html.escape(protocol.note),
                **{verdict: counts[verdict] for verdict in CELLS if verdict != NOT_RUN},
                "other verdict than corrected": ", ".join(other) or "none",
            }
        )
    return pd.DataFrame(rows).set_index("protocol")


def of_protocol(entries: list[Entry], name: str) -> list[Entry]:
    return [entry for entry in entries if entry.protocol == name]


def split_table(entries: list[Entry]) -> pd.DataFrame:
    """The claims on which the protocols part, and the case that decided under each."""
    rows = [
        {"claim": name, **{p: f"{e.verdict}: {html.escape(e.why)}" for p, e in row.items()}}
        for name, row in by_claim(entries).items()
        if len({entry.verdict for entry in row.values()}) > 1
    ]
    return pd.DataFrame(rows, columns=["claim", *PROTOCOLS]).set_index("claim")


def told(entries: list[Entry], folder: Path) -> dict[str, str]:
    """Counts of the page's sentences, as they are shown."""
    unequal = ", ".join(unequal_settings(folder))
    run = [entry for entry in entries if entry.found]
    tested = [entry for entry in run if entry.found.p is not None]
    powered = [e for e in tested if e.found.power is not None and e.found.power >= POWER]
    missing = ", ".join(dict.fromkeys(title(e.page) for e in entries if not e.found))
    return {
        "n_claims": counted(len({entry.claim.id for entry in run}), "claim"),
        "n_tests": counted(len(tested), "test"),
        "n_powered": str(len(powered)),
        "n_before": str(sum(e.found.p < ALPHA for e in tested)),
        "n_after": str(sum(e.p_adjusted < ALPHA for e in tested)),
        "n_changed": counted(sum(entry.changed for entry in run), "verdict"),
        "n_split": str(len(split_table(entries))),
        "n_pages": counted(len({entry.page for entry in run}), "page"),
        "model": ", ".join(sorted({entry.model for entry in run})) or "none",
        "missing": f"Claims are missing from: {missing}." if missing else "None is missing.",
        "unequal": f"The pages differ in their settings of {unequal}."
        if unequal
        else "All pages were run with the same settings.",
    }


def counted(n: int, noun: str) -> str:
    """A number with its noun."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def standing(entries: list[Entry]) -> str:
    """Markdown for the front page: the claims by their verdict under `corrected`."""
    lines = []
    for verdict in CELLS:
        found = [e for e in of_protocol(entries, "corrected") if e.verdict == verdict]
        claims = "; ".join(claim_link(entry) for entry in found)
        lines += [f"- **{verdict[0].upper()}{verdict[1:]}**: {claims}."] if found else []
    parted = list(split_table(entries).index)
    if parted:
        lines += ["", f"The other two readings give another verdict on {', '.join(parted)}."]
    else:
        lines += ["", "The other two readings give the same verdicts."]
    return "\n".join(lines)


def claim_link(entry: Entry) -> str:
    """A claim in a few words, with a link to its page (MyST) if that was run."""
    text = f"{entry.claim.id}, {entry.claim.short}"
    return f"{{doc}}`{text} </book/{entry.page}>`" if entry.found else text


def readme_table(entries: list[Entry]) -> str:
    """The verdicts as the table of the README."""
    rows = [
        f"| {name}, {paper_claims()[name].short} | "
        + " | ".join(row[protocol].verdict for protocol in PROTOCOLS)
        + " |"
        for name, row in by_claim(entries).items()
    ]
    head = f"| claim | {' | '.join(f'`{protocol}`' for protocol in PROTOCOLS)} |"
    return "\n".join([head, "|---" * (1 + len(PROTOCOLS)) + "|", *rows])
