# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (rivals)=
# # What else could these neurons be?
#
# A neuron may matter for rare targets without being there for them: because it moves all logits along word
# frequency, because it regulates how sure the model is {cite}`stolfo2024`, because it writes much whatever
# the token, or because rare targets are hard. In {glue:text}`model`:
#
# - Over all neurons of the layer these four *rivals* together explain {glue:text}`all` % of the variance of
#   influence on rare targets. For comparison, the same neurons' influence on other documents explains
#   {glue:text}`ceiling` %.
# - The rival with the largest part of that: {glue:text}`best`.
# - The rival on which the 1 % of the neurons that matter most, the *group*, score highest:
#   {glue:text}`of_group`.
# - On frequent targets that are as surprising as the rare ones, the group has {glue:text}`left` % of the influence
#   that it has on the rare ones. With the whole interval below 100 %, rarity matters even at equal surprisal; with
#   all of it above, rarity adds nothing.

# %% tags=["parameters", "remove-cell"]
# Filled in from raretok/measure/parameters.py when the page is run.

# %% tags=["remove-cell"]
from myst_nb import glue

from raretok.claims import style
from raretok.claims.rivals import figures as page
from raretok.claims.study import Study
from raretok.ledger.over_models import NAMES

study = Study.of(globals())
studies = style.by_name(study, NAMES)
found = {name: style.told(lambda one=one: page.read(one)) for name, one in studies.items()}
own, *_ = found
numbers = style.numbers(
    found[own],
    all=lambda one: page.percent(one.explained.all),
    ceiling=lambda one: page.percent(one.explained.ceiling),
    best=lambda one: page.largest(one.explained.by["part"]),
    of_group=lambda one: page.largest(one.scores),
    left=lambda one: page.percent(one.left),
    noiseless=lambda one: style.number(100 * one.explained.ceiling.value**0.5),
    matched=lambda one: style.number(100 * one.matched),
)
for name, text in (numbers | {"model": own}).items():
    glue(name, text, display=False)

# %% [markdown]
# ## Four rivals, one score a neuron each
#
# The scores were written down before any was computed. $s$ is the standard deviation of a neuron's
# activation over the text.
#
# - **Token frequency**: how far the neuron moves the logits along the log frequency of the types, times $s$.
# - **Entropy**: $\lVert W_\mathrm{out} \rVert\,s$ times the share of $\lVert W_\mathrm{out} \rVert^2$ in the
#   directions that the unembedding hardly reads. What is written there acts through the scale of the final
#   norm, and makes all logits smaller or larger together.
# - **Activation scale**: $\lVert W_\mathrm{out} \rVert\,s$, the size of all that the neuron writes.
# - **Difficulty**: its influence on targets that are *not* rare, weighted so that they are as surprising as
#   the rare ones (ten bins of surprisal; {glue:text}`matched` % of the rare targets have such others).
#
# Scores, and influence on rare targets, are turned into normal scores of their ranks over the layer. A
# regression on all four explains a part of the variance. Shapley values divide that part among them: what a
# rival adds, averaged over all orders of adding them {cite}`lindeman1980`. Difficulty is measured on one
# half of the documents and influence on the other. What the influence on one half explains of the influence
# on the other is the *ceiling* in {numref}`fig-rival-shares`. Scores that have no noise of their own could
# explain more, up to the root of the ceiling, {glue:text}`noiseless` %.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "What each rival explains of the variance of the neurons' influence on rare targets (Shapley values), by model, with 95 % intervals over documents. Dashed: the ceiling.", "name": "fig-rival-shares"}, "image": {"alt": "Bars grouped by model, one colour a rival: the share of the variance of influence on rare targets that token frequency, entropy, activation scale and difficulty each explain, with 95 % intervals. A dashed line above each group is the ceiling. Compare how much of the height to the ceiling the bars fill."}}
fig, axes = style.panels(height=4.8)
with style.or_reason(axes[0]):
    page.shares(axes[0], found)
    style.legend(fig, 3)

# %% [markdown]
# ## Rarity or difficulty?
#
# Rare targets surprise the model. If the group is there for surprising targets, it matters as much on
# frequent ones that surprise as much. {numref}`fig-rival-contrast` compares the two, on documents that the
# group (the top 1 %) was not chosen on.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Influence of the group on rare targets, on others weighted to be as surprising, and on common ones, by model, with 95 % intervals over documents.", "name": "fig-rival-contrast"}, "image": {"alt": "Marks grouped by model: influence of the group on rare targets (round), on frequent targets as surprising (square) and on common targets (triangle), with 95 % intervals over a line at 0. Compare the square with the round mark of each model."}}
fig, axes = style.panels(height=4.4)
with style.or_reason(axes[0]):
    page.contrast(axes[0], found)
    style.legend(fig, 3)

# %% [markdown]
# ## The numbers
#
# Percentages of the variance of influence over the neurons: the rival's *part* (Shapley value), what it
# explains *alone*, and what it adds *last*, when the three others are in already. The *group's score* is the
# mean of the top 1 % on the rival, in standard deviations over the layer: they may stand out on a score that
# explains little over all neurons.

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
page.rivals_table(found)

# %% [markdown]
# The group at equal surprisal: its influence on rare targets over that on others as surprising, and the
# inverse as a percentage (*left*). A ratio is *undefined* where either influence may not be positive;
# the percentage needs that of rare targets alone. *Through the norm's scale* is the part of the group's influence
# on rare targets that goes through the scale of the final norm, the way of an entropy neuron.

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
style.table(found, "model", page.of_group)

# %% [markdown]
# ## What this shows, and what it does not
#
# Three of the scores have no sign while influence has one: a neuron that scores high on them may raise the
# loss or lower it. That a rival explains influence is no proof that the neurons are *of* that kind: scores
# correlate, and a regression over all neurons says little about the few at the top, for which the group's
# scores are given. The two kinds of neurons of Stolfo et al. are measured by weights and one standard
# deviation of the activation, which understates a neuron that fires rarely and hard. Difficulty alone is
# measured with noise, so its part is a lower bound.
#
# The group was chosen for rare targets, which favours these at equal surprisal. The ratio of the group that
# is chosen on the others instead leans the other way: if surprisal were all, that one would be at most 1.
# Surprisal is the model's own: rare and frequent targets that surprise it equally may still differ in more
# than rarity.
