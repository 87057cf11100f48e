"""The scored positions of one reading, as every claim uses them: influence, groups, controls."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from scipy.special import ndtri
from scipy.stats import rankdata

from raretok.errors import NotTestableError
from raretok.stats.jackknife import Deal, Folds, block_sums, deal
from raretok.stats.matching import GATED_TRAITS, TRAITS, draw_controls, imbalance, neuron_traits
from raretok.text.protocol import Protocol
from raretok.text.rarity import KINDS

LeftOut = Float[np.ndarray, " left_out"]
PerNeuron = Float[np.ndarray, "left_out split neuron"]
Ranks = Float[np.ndarray, "*fold neuron"]
DRAWS = 100  # control groups


@dataclass(frozen=True, eq=False)
class Sample:
    """Positions under one protocol, their documents dealt into blocks.

    Arrays of *folds* have an axis of estimates (all documents, then each block left out) and one of
    splits (halves of the blocks that neurons are chosen on; the rest is what they are measured on).
    """

    protocol: Protocol
    delta_loss: Float[np.ndarray, "position neuron"]  # nats
    post: Float[np.ndarray, "position neuron"]
    weight: Float[np.ndarray, " position"]
    document: Int[np.ndarray, " position"]
    stratum: Int[np.ndarray, " position"]
    W_in: Float[np.ndarray, "neuron d_model"]
    W_out: Float[np.ndarray, "neuron d_model"]
    deal: Deal
    size: int  # neurons in the group
    seed: int = 0
    W_gate: Float[np.ndarray, "neuron d_model"] | None = None  # of a gated MLP
    gate_rate: Float[np.ndarray, " neuron"] | None = None  # how often each gate is open
    given_groups: Int[np.ndarray, "left_out split member"] | None = None  # chosen elsewhere

    @classmethod
    def of(
        cls, effects: xr.Dataset, model: xr.Dataset, protocol: Protocol, deal: Deal, **more: int
    ) -> "Sample":
        """From the parts of a measurement, positions classed as the protocol does."""
        arrays = ("delta_loss", "post", "weight", "document", "stratum")
        weights = {name: model[name].values.astype(np.float64) for name in ("W_in", "W_out")}
        values = {name: effects[name].values for name in arrays}
        if "W_gate" in model:
            weights["W_gate"] = model.W_gate.values.astype(np.float64)
            values["gate_rate"] = effects.gate_rate.values
        return cls(protocol, **values, **weights, deal=deal, **more)

    @classmethod
    def of_blocks(
        cls,
        sums: Float[np.ndarray, "token_class block neuron"],
        weight: Float[np.ndarray, "token_class block"],
        protocol: Protocol,
        *,
        size: int,
        rng: np.random.Generator,
    ) -> "Sample":
        """From sums over blocks of documents: a block is a position of either class and a document.

        Enough for what reads means of effects alone; it has no activations and no weights.
        """
        kind, block = np.nonzero(weight > 0)
        mean = sums[kind, block] / weight[kind, block, None]
        none = np.zeros((mean.shape[1], 1))
        return cls(
            protocol,
            delta_loss=mean,
            post=np.zeros_like(mean),
            weight=weight[kind, block],
            document=block,
            stratum=np.array(list(KINDS.values()))[kind],
            W_in=none,
            W_out=none,
            deal=deal(np.arange(weight.shape[1]), rng=rng),
            size=size,
        )

    def rng(self, purpose: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, *purpose.encode()])

    @cached_property
    def block(self) -> Int[np.ndarray, " position"]:
        return self.deal.of(self.document)

    @cached_property
    def folds(self) -> tuple[Folds, Folds]:
        """Blocks chosen on and blocks measured on."""
        return self.deal.folds(self.protocol.cross_fitted)

    @cached_property
    def sums(self) -> dict[str, dict[str, Float[np.ndarray, "block _"]]]:
        """Of a class, in each block: weight, weighted delta_loss, and its weighted size."""
        found, n = {}, self.deal.n_blocks
        for kind, stratum in KINDS.items():
            rows = self.stratum == stratum
            delta, weight, block = self.delta_loss[rows], self.weight[rows], self.block[rows]
            signed = block_sums(delta, weight, block, n)
            # What is ranked by the size of the mean needs no mean of sizes.
            size = signed if self.protocol.signed else block_sums(np.abs(delta), weight, block, n)
            weights = np.bincount(block, weight, n).astype(float)[:, None]
            found[kind] = {"weight": weights, "signed": signed, "size": size}
        return found

    def mean(self, kind: str, folds: Folds, name: str = "signed") -> PerNeuron:
        """Mean effect of each neuron on a class of targets over some blocks, nats."""
        sums = self.sums[kind]
        return fold_means(folds, sums[name], sums["weight"], f"{kind} position")

    def influence(self, kind: str, measured: bool = False) -> PerNeuron:
        """What the protocol ranks neurons by, nats; below all others where it leaves one out."""
        signed = self.mean(kind, self.folds[measured])
        if self.protocol.signed:
            return signed
        size = self.mean(kind, self.folds[measured], "size")
        return np.where(signed > 0, size, -1.0) if self.protocol.boost_only else size

    def influences(self, kind: str) -> tuple[PerNeuron, PerNeuron]:
        """Influence on the blocks that neurons are chosen on, and on those they are measured on."""
        return self.influence(kind), self.influence(kind, True)

    def of_halves(self, kind: str, left_out: slice = slice(None)) -> tuple[PerNeuron, PerNeuron]:
        """Mean effects, or their sizes where these are ranked, on either half of the blocks."""
        kept, halves = self.deal.kept[left_out, None].astype(float), self.deal.halves
        name = "signed" if self.protocol.signed else "size"
        return self.mean(kind, kept * halves, name), self.mean(kind, kept * ~halves, name)

    @cached_property
    def groups(self) -> Int[np.ndarray, "left_out split member"]:
        """The most influential neurons on rare targets whose ablation raises the loss."""
        if self.given_groups is not None:
            return self.given_groups
        signed = self.mean("rare", self.folds[0])
        ranking = np.where(signed > 0, self.influence("rare"), -np.inf)
        if (np.isfinite(ranking).sum(axis=-1) < self.size).any():
            raise NotTestableError(f"fewer than {self.size} neurons raise the loss when ablated")
        return np.argsort(-ranking, axis=-1, kind="stable")[..., : self.size]

    @property
    def chosen(self) -> Float[np.ndarray, " neuron"]:
        """Share of the halves of the documents in which each neuron is in the group."""
        groups = self.groups[0]
        return np.bincount(groups.ravel(), minlength=self.delta_loss.shape[1]) / len(groups)

    def of_group(
        self, values: PerNeuron, groups: Int[np.ndarray, "left_out split member"] | None = None
    ) -> Float[np.ndarray, " left_out"]:
        """Mean over the members of the group (or of another one) of each fold and the splits."""
        groups = self.groups if groups is None else groups
        return np.take_along_axis(values, groups, axis=-1).mean(axis=(1, 2))

    @cached_property
    def traits(self) -> Float[np.ndarray, "neuron trait"]:
        return neuron_traits(self.post, self.W_out, self.gate_rate)

    def activations(
        self, rows: Int[np.ndarray, " row"], used=slice(None)
    ) -> Float[np.ndarray, "row used"]:
        """Activations at some positions as they are correlated.

        Those of a gated MLP as normal scores of their ranks: a few huge ones of either sign would
        else make the correlations (van der Waerden's scores).
        """
        post = self.post[rows][:, used].astype(np.float64)
        if self.gate_rate is None:
            return post
        return ndtri((rankdata(post, axis=0) - 0.5) / len(post))

    @property
    def matrices(self) -> dict[str, Float[np.ndarray, "neuron d_model"]]:
        """What each neuron reads and writes, by name."""
        gate = {} if self.W_gate is None else {"W_gate": self.W_gate}
        return {"W_in": self.W_in, **gate, "W_out": self.W_out}

    @cached_property
    def controls(self) -> Int[np.ndarray, "neuron draw"]:
        rng, matched = self.rng("controls"), self.protocol.matched
        more = {"matched": matched, "rng": rng, "silent": self.silent}
        return draw_controls(self.groups, self.traits, DRAWS, **more)

    @cached_property
    def silent(self) -> Bool[np.ndarray, " neuron"]:
        """Neurons that say nothing, pruned or dead: constant activation, or constant weights."""
        arrays = [self.post.T, *self.matrices.values()]
        return np.any([np.ptp(rows, axis=1) == 0 for rows in arrays], axis=0)

    def with_controls(self, n_draws: int = DRAWS) -> Int[np.ndarray, "left_out split group member"]:
        """The group of each fold, then its control groups."""
        controls = np.moveaxis(self.controls[self.groups][..., :n_draws], -1, -2)
        return np.concatenate([self.groups[:, :, None], controls], axis=2)

    @cached_property
    def imbalance(self) -> dict[str, float]:
        """Mean trait of the group less that of its controls, in sd over the layer."""
        names = TRAITS if self.gate_rate is None else GATED_TRAITS
        apart = imbalance(self.traits, self.groups[0], self.controls)
        return dict(zip(names, apart.tolist(), strict=True))

    def reliability(self, kind: str) -> float:
        """Rank correlation of influence between halves of the documents; mean over splits."""
        ranks = [ranked(half[0]) for half in self.of_halves(kind, slice(1))]
        return float(correlation(*ranks).mean())

    @property
    def matched_gates(self) -> dict[str, float]:
        """The same with how unlike the group and its controls are, at worst."""
        return self.gates | {"imbalance": max(map(abs, self.imbalance.values()))}

    @property
    def gates(self) -> dict[str, float]:
        """Numbers that claims may be gated by, as far as they can be had."""
        n = {kind: (self.stratum == one) for kind, one in KINDS.items()}
        return {
            "documents": float(min(np.unique(self.document[rows]).size for rows in n.values())),
            "positions": float(min(rows.sum() for rows in n.values())),
            "neurons": float(self.size),
        }


def fold_means(
    folds: Folds,
    sums: Float[np.ndarray, "block value"],
    weight: Float[np.ndarray, "block 1"],
    missing: str,
) -> Float[np.ndarray, "left_out split value"]:
    """Means over the blocks of each fold; `NotTestableError`, naming it, where one has none."""
    total = folds @ weight
    if not (total > 0).all():
        raise NotTestableError(f"a part of the documents has no {missing}")
    return settled((folds @ sums) / total)


def settled(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Numbers to 1e-12 of the largest: equal ones, and zeros, stay so in whatever order they were
    summed; measured effects are whole steps, so that some are exactly equal."""
    step = 1e-12 * np.abs(values).max(initial=0)
    return np.round(values / step) * step if step > 0 else values


def over_ceiling(across: LeftOut, one: LeftOut, two: LeftOut, what: str) -> LeftOut:
    """A correlation over the root of both reliabilities.

    Raises `NotTestableError`, saying `what` does not repeat, where one of these is not positive.
    """
    if min(one.min(), two.min()) <= 0:
        raise NotTestableError(f"{what} between halves")
    return across / np.sqrt(one * two)


def by_rank(ranking: Ranks, values: Ranks) -> Ranks:
    """Values of the neurons of each fold, those that the ranking puts highest first."""
    order = np.argsort(-ranking, axis=-1, kind="stable")
    return np.take_along_axis(values, order, axis=-1)


def neurons_in(percent: float, n_neurons: int) -> int:
    """How many neurons a percentage of a layer is, wherever one is named: rounded, at least two."""
    return max(2, round(percent / 100 * n_neurons))


def ranked(values: Ranks) -> Ranks:
    """Ranks of the neurons, ascending from 0; ties in order of the neurons."""
    return rankdata(values, method="ordinal", axis=-1) - 1.0


def correlation(
    one: Float[np.ndarray, "*#shape value"], two: Float[np.ndarray, "*#shape value"]
) -> Float[np.ndarray, "..."]:
    """Pearson's r along the last axis (of ranks: Spearman's rho).

    0 where one of the two does not vary.
    """
    one = one - one.mean(axis=-1, keepdims=True)
    two = two - two.mean(axis=-1, keepdims=True)
    size = np.sqrt((one**2).sum(axis=-1) * (two**2).sum(axis=-1))
    return np.asarray((one * two).sum(axis=-1) / np.where(size > 0, size, np.inf))
