# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (coordination)=
# # Do plateau neurons act together? Claims C1, I1
#
# The paper says that the plateau neurons, though spread over the layer, *coordinate*: their
# activations use fewer dimensions per neuron than those of random neurons (C1), and pairs of them
# share more mutual information (I1) {cite}`distributed2025`. Its reviewers asked which
# distributions, which estimator and which sample size stand behind the mutual information, why each
# claim rests on one number without uncertainty, what weights say, and where *coordinated* ends and
# *modular* begins.
#
# This page measures the group against many control groups in place of one or two, on equal numbers of
# rare and common targets, and in a network that learned nothing. {ref}`method` explains the ablation
# that the group is chosen by, and the three protocols.

# %% tags=["parameters", "remove-cell"]
model = "docs-gpt2"  # shipped name, local directory or Hub id
revision = ""  # revision of a Hub model, such as step1000
corpus = "docs"  # docs, or a .txt, .jsonl or .parquet file
unigram = ""  # .npy file of token counts; empty: the model's own, else the corpus's
protocol = "corrected"  # the reading shown first; every page compares all three
rare_percentile = 15.0  # percentage of types called rare (and common)
n_ctx = 256  # tokens a context
n_positions = 1600  # scored positions in each class
group_percent = 1.0  # neurons in the plateau group, % of the layer
n_controls = 1000  # control groups of the same size
n_bootstrap = 1000  # resamples of documents for an interval
n_null = 1000  # label permutations, and draws for the power
seed = 0  # seed of every random choice
device = "cpu"  # where the model runs

# %% tags=["remove-cell"]
# %config InlineBackend.print_figure_kwargs = {"bbox_inches": None}
from functools import partial

import numpy as np
from myst_nb import glue

from raretok import coordination_figures as draw
from raretok.book import style as figures
from raretok.book.figcheck import digest
from raretok.claims.study import Study
from raretok.ledger.verdicts import as_records, p_text, verdict_table
from raretok.sections import coordination, dimension
from raretok.sections import coordination_arrays as arrays
from raretok.sections import coordination_page as page
from raretok.sections.coordination_words import told
from raretok.sections.labels import label_controlled

study = Study.of(globals())
lead = study.protocol.name  # the protocol of the first figures

# %% [markdown]
# ## The group and what it is compared with
#
# The group: the {glue:text}`size` neurons ({glue:text}`percent` % of the layer) whose ablation raises
# the loss on rare targets most. In the protocol `corrected` they are chosen on one half of the
# documents and measured on the other, both ways round, and each of {glue:text}`n_controls` control
# groups has for every neuron of the group one of the ten neurons nearest to it in four traits: how
# much it varies, its mean, how often it fires, how strongly it writes. The other protocols compare with *any*
# neurons, as the released code does with two random groups.
#
# Nobody can match what has no like. {numref}`fig-balance` shows what is left under the protocol
# {glue:text}`lead`: {glue:text}`matching`. So the main test is repeated below with only those neurons
# that do have a match.

# %% tags=["remove-cell"]
found = {name: study.coordination(name) for name in ("code", "text", "corrected")}
untrained = {name: study.coordination(name, trained=False) for name in found}
effects = study.effects(lead)
for name, text in told(found[lead], untrained[lead], effects).items():
    glue(name, text, display=False)
for name, text in page.settings(study.parameters, study.group_size).items():
    glue(name, text, display=False)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "How well the controls match. Left: mean traits of the group (circles) and of its controls (squares) with the range of single control groups; 0 is the layer's mean. Right: distance of each neuron of the group from the control neurons drawn for it. A neuron far to the right has no like in the layer.", "name": "fig-balance"}, "image": {"alt": "Left: four traits of group and controls in standard deviations. Right: dots, one a neuron, by distance from its controls", "classes": "wide"}}
fig, axes = figures.panels(2, width=4.6, height=3.3)
draw.either(axes[0], draw.trait_dots, arrays.balance_figure(found[lead]))
draw.either(axes[1], draw.member_distances, arrays.distance_figure(found[lead]))
figures.legend_below(fig, axes[0], 3)

# %% tags=["remove-cell"]
print(digest(fig))

# %% [markdown]
# ## How many dimensions?
#
# The spectrum of the group's correlation matrix says how many dimensions it uses. Two readings:
# the *participation ratio* {cite}`litwinkumar2017`, $(\sum\lambda)^2/\sum\lambda^2$, and the number of
# principal components that hold 95 % of the variance, which the released code counts. The first equals
# $n / (1 + (n - 1)\,\overline{r^2})$: it is the mean square correlation in another unit, so a group
# with fewer dimensions is one whose neurons are more correlated, no more and no less.
#
# {numref}`fig-dimension`: the dimension of the group is {glue:text}`dimension`;
# {glue:text}`common`. In the untrained network it is {glue:text}`untrained`. Permuting each neuron's
# activations over the positions shows what the group would use if its neurons had nothing to do with
# each other.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Dimensions per neuron: control groups (grey), the plateau group (solid) and the group once each neuron's activations are shuffled over positions (dashed, where the participation ratio is shown). Fewer dimensions lie to the left. Protocol as above; each panel has its own axis.", "name": "fig-dimension"}, "image": {"alt": "Three histograms of dimension per neuron in control groups with the plateau group marked: rare targets, common targets, untrained network", "classes": "wide"}}
fig, axes = figures.panels(3, width=3.3, height=3.2)
shown = ((found, "rare"), (found, "common"), (untrained, "rare"))
for ax, (runs, kind) in zip(axes, shown, strict=True):
    draw.either(ax, figures.null_histogram, arrays.dimension_figure(runs[lead], kind))
    ax.set_title(f"{'untrained, ' if runs is untrained else ''}{kind} targets")
figures.legend_below(fig, axes[0], 3)

# %% tags=["remove-cell"]
print(digest(fig))

# %% [markdown]
# The table has both readings under each protocol, and a second control: groups of neurons that matter
# as much to *common* targets as the group does to rare ones. If the group lies below random neurons
# but not below those, then it coordinates because its neurons matter, not because they matter to rare tokens.
# Such neurons exist only as far as common targets have any: {glue:text}`equal`.

# %% tags=["hide-input"]
page.dimension_table({**found, f"{lead}, untrained": untrained[lead]})

# %% [markdown]
# The released code's own test could not have said anything: it sets one number against one number,
# whose t-test has no p-value. Were the group a random one, it would still lie below both of two random
# groups in one case of three.
#
# ### Only neurons that have a match
#
# With the neurons left out that are farther from their controls than a caliper, the ratio to the
# controls changes: {glue:text}`match`. Fewer neurons also make a blunter test: the columns *smallest
# effect seen* say what it would have seen in 80 % of cases.

# %% tags=["hide-input"]
page.match_table(found[lead], effects)

# %% [markdown]
# ### Does the size of the group matter, or the sign of its effect?
#
# The same test for other sizes, among them the size that the head test of {ref}`regimes` singles out
# ({glue:text}`singled` neurons), and for as many *suppressing* neurons as there are in the group, those
# whose ablation lowers the loss on rare targets. The claim is about the boosting ones.

# %% tags=["hide-input"]
sizes = page.group_sizes(effects, study.protocol)
page.sizes_table(effects, partial(study.folds, lead), sizes, study.group_size)

# %% tags=["remove-cell"]
glue("singled", page.singled_out(effects, study.protocol), display=False)

# %% [markdown]
# ### What a dimension depends on besides coordination
#
# Neurons that have nothing in common also miss their full dimension in a finite sample, the more so the
# more of them there are ({numref}`fig-sample`). Groups of different size, or measured on different
# numbers of positions, cannot be compared: here group and controls always share both, and so do rare
# and common targets.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Dimension per neuron of unrelated neurons by number of positions (right: the same for the participation ratio). All should lie at 1 if the estimate had no bias. The vertical line marks the number of positions used here.", "name": "fig-sample"}, "image": {"alt": "Curves of dimension per neuron rising towards one with the number of positions, one a group size", "classes": "wide"}}
fig, axes = figures.panels(2, width=4.4, share=True)
rng = study.rng("unrelated neurons")
for ax, spectrum in zip(
    axes, (dimension.variance_count, dimension.participation_ratio), strict=True
):
    curves = arrays.independent_figure(found[lead], spectrum, rng=rng)
    draw.sample_curves(ax, **curves, ylabel="dimensions / neurons")
axes[0].set_title("95 % count")
axes[1].set_title("participation ratio")
figures.legend_below(fig, axes[0], 4)

# %% tags=["remove-cell"]
print(digest(fig))

# %% [markdown]
# ## Who goes with whom?
#
# {numref}`fig-coactivation` shows the correlations themselves, {numref}`fig-pairs` their distribution. A
# dimension below the controls' can come from one tight pair, from a block, or from many weak
# correlations; the pictures tell which.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Correlations of activations on rare targets: the plateau group (left) and the control group whose participation ratio is the median (right), neurons ordered by average-linkage clustering. Red: active together; blue: one instead of the other. In the protocol corrected, the first half.", "name": "fig-coactivation"}, "image": {"alt": "Two heatmaps of pairwise correlations, plateau group and a typical control group", "classes": "wide"}}
fig, axes = figures.panels(2, width=4.2, height=3.8)
for ax, content in zip(axes, arrays.coactivation_figure(found[lead], effects), strict=True):
    image = draw.either(ax, draw.heatmap, content)
draw.colour_bar(fig, axes, image)

# %% tags=["remove-cell"]
print(digest(fig))

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Cumulative distribution of pairwise correlations: the plateau group (line) and the band of its controls. A line below the band on the right half has more strongly correlated pairs than they have.", "name": "fig-pairs"}, "image": {"alt": "Cumulative distribution of correlations of the plateau group against a band of control groups, rare and common targets", "classes": "wide"}}
fig, axes = figures.panels(2, width=4.2, share=True)
for ax, kind in zip(axes, ("rare", "common"), strict=True):
    draw.either(ax, draw.cumulative, arrays.cumulative_figure(found[lead], effects, kind))
figures.legend_below(fig, axes[0], 2)

# %% tags=["remove-cell"]
print(digest(fig))

# %% [markdown]
# ### Coordinated or modular?
#
# A coordinated subspace sounds like a module, and reviewers asked where the line is. This book draws
# it so: a group is *coordinated* if its neurons go with each other more than comparable neurons do, and
# *modular* if, besides, they go with each other more than with the rest, that is, if there is a boundary.
# Coordination compares the inside of the group with the inside of other groups; modularity compares the
# inside with the way across. A subspace that all neurons of a kind take part in is coordinated without
# a module. Here {glue:text}`squares`. The page on modularity takes up the second question; the page
# on the detectors plants worlds from one module to fully distributed and says which of the two tests sees what.

# %% tags=["hide-input"]
page.squares_table(found[lead], effects)

# %% [markdown]
# ## Mutual information
#
# Correlation sees straight lines only; mutual information (the paper's Eq. 5) sees any relation, but
# has to be estimated.
# The estimator here, as in the released code, is the one from {glue:text}`k` nearest neighbours
# {cite}`kraskov2004`, written out and checked against Gaussian pairs, whose information is
# $-\frac12\ln(1-\rho^2)$, and against scikit-learn. It needs no bins. Activations are
# z-scored, and moved at random within the step they were rounded to, so that equal values are no
# neighbours at distance 0. A group's information is the mean over its pairs ({glue:text}`pairs` at most), on
# {glue:text}`positions` positions of each class and half at most, against {glue:text}`mi_controls` control groups:
# each costs as much as the group itself.
#
# {numref}`fig-estimator` shows why the estimator matters. Shuffled neurons share nothing: nearest
# neighbours say so at every sample size, a count in bins does not, and neither does the clipping of
# negative estimates at 0, which scikit-learn does. Where two neurons do share something, a small
# sample shows only part of it: only estimates from equal numbers of positions can be compared.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Estimated information by number of positions, mean over the pairs of the group, rare targets. Left: each neuron shuffled over positions, so the truth is 0 (grey line). Right: as measured. The vertical line marks the number used below.", "name": "fig-estimator"}, "image": {"alt": "Estimated mutual information against sample size for three estimators, shuffled and real pairs", "classes": "wide"}}
fig, axes = figures.panels(2, width=4.4, share=True)
contents = arrays.estimator_figures(found[lead], effects, rng=study.rng("estimators"))
for ax, content, title in zip(axes, contents, ("shuffled", "as measured"), strict=True):
    draw.either(ax, partial(draw.sample_curves, ylabel="information (nats a pair)"), content)
    ax.set_title(title)
figures.legend_below(fig, axes[0], 3)

# %% tags=["remove-cell"]
print(digest(fig))

# %% [markdown]
# {numref}`fig-information` sets the group against its controls: {glue:text}`shared`. From common to
# rare targets it changes by {glue:text}`change`. The last columns of the table give a second
# diagnostic, the information that Gaussian neurons with the same correlations would share: what
# the nearest neighbours find beyond it is not linear.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Mean pairwise information in control groups (grey) and in the plateau group (line). Protocol as above; each panel has its own axis.", "name": "fig-information"}, "image": {"alt": "Three histograms of mutual information in control groups with the plateau group marked: rare targets, common targets, untrained network", "classes": "wide"}}
fig, axes = figures.panels(3, width=3.3, height=3.2)
for ax, (runs, kind) in zip(axes, shown, strict=True):
    draw.either(ax, figures.null_histogram, arrays.information_figure(runs[lead], kind))
    ax.set_title(f"{'untrained, ' if runs is untrained else ''}{kind} targets")
figures.legend_below(fig, axes[0], 2)

# %% tags=["remove-cell"]
print(digest(fig))

# %% tags=["hide-input"]
page.information_table({**found, f"{lead}, untrained": untrained[lead]})

# %% [markdown]
# ## Do their weights agree?
#
# Neurons may act together because they read alike or because their inputs happen to coincide in this
# text. Cosines of weight vectors do not depend on the text. The mean size of the cosine in the group
# is {glue:text}`weights` ({numref}`fig-weights`). The signed mean in the table tells alike from opposite.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Mean size of the cosine between weight vectors of two neurons: what they read (left) and what they write (right), in control groups (grey) and in the plateau group (line).", "name": "fig-weights"}, "image": {"alt": "Histograms of mean absolute cosine of W_in and W_out in control groups with the plateau group marked"}}
fig, axes = figures.panels(2, width=4.0, height=3.2)
for ax, weights in zip(axes, ("W_in", "W_out"), strict=True):
    draw.either(ax, figures.null_histogram, arrays.cosine_figure(found[lead], weights))
figures.legend_below(fig, axes[0], 2)

# %% tags=["remove-cell"]
print(digest(fig))

# %% tags=["hide-input"]
page.weights_table({**found, f"{lead}, untrained": untrained[lead]})

# %% [markdown]
# ## What changes between the protocols, and why
#
# - `code` counts components up to 95 % at positions whose *input* is rare, with neurons ranked by the mean of
#   $|\Delta\ell|$. The count moves in whole components: for a small group it is too coarse a measure. Its
#   group is referred here to {glue:text}`n_controls` random groups in place of two.
# - `text` uses the participation ratio at rare *targets*. Its controls are any neurons, most of
#   which are nearly silent and nearly unrelated: being lower than those shows that the group's neurons
#   are active, more than that they coordinate.
# - `corrected` chooses and measures on different documents and compares with neurons that vary,
#   fire and write as the group does, as far as there are any.
#
# ## Verdicts
#
# Value of C1: dimension of the group over the mean of its controls; of I1: information of the group less
# the mean of its controls. Intervals over documents hold the groups fixed. The power is for 10 % fewer
# dimensions and for 0.02 nats a pair, the smallest effects that would matter. The verdicts take the
# whole group, with the matching it has; the table of matches above says what remains of C1 among
# neurons that have a like.

# One null world more is asked. Controls are matched on what a neuron does, not on its influence, so
# the group may act together because its neurons matter, not because they matter to *rare* targets. So the
# labels rare and common are exchanged within documents, groups are chosen again under them, and
# tested in the same way: the median p is {glue:text}`exchanged_p` for the dimension
# ({glue:text}`exchanged_draws` exchanges) and {glue:text}`informed_p` for the information
# ({glue:text}`informed_draws`: each is dear), under the
# protocol {glue:text}`lead`. Where that is below 0.05, what is seen is not about rarity, and the verdict
# says so.

# %% tags=["remove-cell"]
exchanged = {name: study.dimension_when_exchanged(name) for name in found}
informed = {name: study.information_when_exchanged(name) for name in found}
glue("exchanged_p", p_text(float(np.median(exchanged[lead]))), display=False)
glue("informed_p", p_text(float(np.median(informed[lead]))), display=False)
glue("exchanged_draws", len(exchanged[lead]), display=False)
glue("informed_draws", len(informed[lead]), display=False)

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
evidence = []
for name, both in found.items():
    run = study.effects(name).attrs["measurement"]
    tested = coordination.evidence(both, untrained[name], run)
    evidence += label_controlled(tested, {"C1": exchanged[name], "I1": informed[name]})
verdict_table(evidence)

# %% [markdown]
# ## Limits
#
# Matching is on four traits and is imperfect for neurons at the extremes; the table of matches says how much of
# the finding hangs on them. The halves of `corrected` are drawn once, so its groups vary with the seed. Correlations over
# positions mix what happens within a text with what differs between texts. Information is measured on
# pairs: what three neurons share only together does not show. The intervals of the information
# resample what each position adds to the estimate, not the neighbours. In the released code, rows
# with the same token and neighbouring tokens count once; here every position counts. And the verdicts are about
# this model and this text: {ref}`rerun` has the command for others.

# %% tags=["remove-cell"]
glue("verdicts", verdict_table(evidence), display=False)
glue("claims", as_records(evidence), display=False)
