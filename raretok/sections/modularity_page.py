"""Tables and sentences of the page `modularity`."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from raretok.errors import UserError
from raretok.ledger.claims import Evidence
from raretok.ledger.verdicts import p_text
from raretok.sections.communities import EXACT_NODES, best_partitions, modularity
from raretok.sections.graphs import correlation
from raretok.sections.louvain import (
    RESOLUTIONS,
    SEEDS,
    Consensus,
    consensus,
    louvain_labels,
)
from raretok.sections.modularity import (
    BOOTSTRAP_CONTROLS,
    BOOTSTRAPS,
    OWN_DRAWS,
    SPLITS,
    Modularity,
    evidence,
    untestable,
)
from raretok.sections.regimes_page import equals
from raretok.sections.released_modularity import (
    gap_clusters,
    released_p,
    released_score,
    spectral_labels,
)
from raretok.stats.documents import ALPHA, NullTest, null_test

CHECKED = 50  # control groups on which Louvain is compared with the exact search
CHECK_SEEDS = 5
NODES = (30, 50, 100)  # group sizes of the released code
NOISE_GRAPHS = 10  # independent groups of each size
NOISE_POSITIONS = 400
SPOKEN = {  # measures that the page's sentences name
    "Q": "largest Q",
    "held": "held-out Q",
    "together": "mean |r|",
    "second": "second eigenvalue",
    "silhouette": "silhouette",
}


def attempt(
    find: Callable[[str], Modularity], protocols: list[str], *, needed: bool = True
) -> tuple[dict[str, Modularity], dict[str, str]]:
    """What each protocol finds, and why the others cannot be tested here.

    Raises the first reason where no protocol can be and one is needed.
    """
    found, reasons = {}, {}
    for name in protocols:
        try:
            found[name] = find(name)
        except UserError as error:
            reasons[name] = str(error)
    if needed and not found:
        raise UserError(next(iter(reasons.values())))
    return found, reasons


def all_evidence(
    found: dict[str, Modularity],
    untrained: dict[str, Modularity],
    reasons: dict[str, str],
    rng: np.random.Generator,
) -> list[Evidence]:
    """Evidence on M1 under each protocol, testable or not."""
    tested = [evidence(one, untrained.get(name), rng=rng) for name, one in found.items()]
    return tested + [untestable(name, reason) for name, reason in reasons.items()]


def settings_table() -> pd.DataFrame:
    """How many draws stand behind each number."""
    rows = {
        "splits of the documents, held-out Q": SPLITS,
        "rewired and shuffled graphs": OWN_DRAWS,
        "samples of documents, interval": BOOTSTRAPS,
        "control groups in each sample": BOOTSTRAP_CONTROLS,
        "Louvain seeds": SEEDS,
        "nodes up to which the largest Q is exact": EXACT_NODES,
    }
    return pd.DataFrame({"number": rows}).rename_axis("setting")


def number(value: float, digits: int = 3) -> str:
    """A number as a table shows it: no minus sign before a zero."""
    return f"{round(float(value), digits) + 0.0:.{digits}f}"


def against(test: NullTest) -> dict[str, str]:
    """A statistic beside its null."""
    return {
        "group": number(test.value),
        "controls, mean": number(test.null.mean()),
        "sd": number(test.null.std()),
        "z": f"{test.z:+.1f}",
        "p": p_text(test.p),
    }


def measures_table(found: Modularity) -> pd.DataFrame:
    """Each statistic of the group against its control groups (two-sided), and the second control.

    The last row asks whether members link to each other more than to their controls (one-sided).
    """
    rows = {}
    for name, one in found.measures.items():
        row = against(null_test(one.value, one.null, "two-sided"))
        rows[name] = {**row, "equals, mean": number(one.equals.mean())}
    rows["|r| inside less |r| to controls"] = {**against(found.beyond), "equals, mean": ""}
    return pd.DataFrame(rows).T


def nulls_table(found: dict[str, Modularity]) -> pd.DataFrame:
    """The largest Q against each of its nulls, with the sign, under each protocol."""
    rows = [
        {"protocol": name, "null": null, **against(test)}
        for name, one in found.items()
        for null, test in one.nulls.items()
    ]
    table = pd.DataFrame(rows).rename(columns={"controls, mean": "null, mean"})
    return table.set_index(["protocol", "null"])


def louvain_table(found: Modularity) -> pd.DataFrame:
    """Louvain from 50 seeds at each resolution; one number a fold where they differ by fold."""
    sizes = [
        links.among(fold.group[None]).size[0]
        for fold, links in zip(found.folds, found.links, strict=True)
    ]
    rows = []
    for gamma in RESOLUTIONS:
        runs = [consensus(size, gamma) for size in sizes]

        def each(show: Callable[[Consensus], str], runs: list[Consensus] = runs) -> str:
            return " / ".join(show(one) for one in runs)

        rows.append(
            {
                "resolution": gamma,
                "communities": each(lambda one: str(one.n_communities)),
                "agreement of seeds (Rand)": each(lambda one: f"{one.stability:.2f}"),
                "Q, mean run": each(lambda one: number(one.Q)),
                "Q, largest": each(lambda one: number(one.best_Q)),
            }
        )
    return pd.DataFrame(rows).set_index("resolution")


def louvain_shortfall(found: Modularity) -> tuple[float, float]:
    """Largest Q less Louvain's mean Q: of the group, and of 50 control groups; first fold."""
    fold, links = found.folds[0], found.links[0]
    graphs = links.among(np.concatenate([fold.group[None], fold.controls[:CHECKED]])).size
    runs = [
        modularity(graphs, np.stack([louvain_labels(one, 1.0, seed) for one in graphs]))
        for seed in range(CHECK_SEEDS)
    ]
    short = best_partitions(graphs).Q - np.mean(runs, axis=0)
    return float(short[0]), float(short[1:].mean())


def released_table(found: dict[str, Modularity]) -> pd.DataFrame:
    """What the released code would report of the group under each protocol (first fold).

    Its own test compares the group with two random groups: here, how often it would call the group
    different if the two were drawn from the controls again and again.
    """
    rows = {}
    for name, one in found.items():
        fold, links = one.folds[0], one.links[0]
        group = released_score(links.among(fold.group[None]).r)
        controls = released_score(links.among(fold.controls).r)
        pairs = controls.Q_signed[: 2 * (len(fold.controls) // 2)].reshape(-1, 2)
        p = np.array([released_p(float(group.Q_signed[0]), two) for two in pairs])
        rows[name] = {
            "clusters": int(group.labels[0].max()) + 1,
            "Q fed with signs": number(group.Q[0]),
            "of controls, 5 to 95 %": " to ".join(
                number(at, 1) for at in np.quantile(controls.Q, [0.05, 0.95])
            ),
            "Q signed": number(group.Q_signed[0]),
            "score of modular": f"{group.score[0]:.1f}",
            "called modular": "yes" if group.supported[0] else "no",
            "controls called modular": f"{100 * controls.supported.mean():.0f} %",
            "its own test: p < 0.05": f"{100 * (p < 0.05).mean():.0f} % of pairs",
        }
    return pd.DataFrame(rows)


def noise_table(size: int, rng: np.random.Generator) -> pd.DataFrame:
    """Q of |r| graphs of neurons that have nothing to do with each other, by group size."""
    rows = {}
    for n_nodes in sorted({size, *NODES}):
        post = rng.normal(size=(NOISE_GRAPHS, NOISE_POSITIONS, n_nodes))
        graphs = np.abs(correlation(post, np.ones(NOISE_POSITIONS)))
        spectral = spectral_labels(graphs, gap_clusters(graphs), rng=rng)
        louvain = np.stack([louvain_labels(one, 1.0, 0) for one in graphs])
        rows[f"{n_nodes} neurons"] = {
            "spectral, as released": number(modularity(graphs, spectral).mean()),
            "Louvain": number(modularity(graphs, louvain).mean()),
            "largest": number(best_partitions(graphs).Q.mean()),
        }
    return pd.DataFrame(rows).T


def side_of(test: NullTest) -> str:
    """Where a value lies in its null, in words."""
    if test.p >= ALPHA:
        return "within the range of"
    return "above" if test.z > 0 else "below"


def told(found: Modularity) -> dict[str, str]:
    """Numbers and findings of the page's sentences, as they are shown."""
    nulls = dict(zip(("controls", "rewired", "shuffled"), found.nulls.values(), strict=True))
    short_group, short_controls = louvain_shortfall(found)
    said = {
        "lead": found.protocol.name,
        "likeness": found.likeness,
        "n_controls": str(found.test.null.size),
        "size": str(found.folds[0].group.size),
        "n_positions": str(sum(activity.weight.size for activity in found.activities)),
        "short_group": f"{short_group:.4f}",
        "short_controls": f"{short_controls:.4f}",
        "beyond": number(found.beyond.value),
        "beyond_p": equals(found.beyond.p),
    }
    for name, test in nulls.items():
        said |= {f"z_{name}": f"{test.z:+.1f}", f"side_{name}": side_of(test)}
    for name, measure in SPOKEN.items():
        test = found.against_controls(measure, "two-sided")
        said |= {
            name: number(test.value),
            f"{name}_controls": number(test.null.mean()),
            f"{name}_p": equals(test.p),
            f"{name}_side": side_of(test),
        }
    return said
