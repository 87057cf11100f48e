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
# A neuron may matter for rare targets without being there for them: because it moves all logits along
# word frequency, because it regulates how sure the model is {cite}`stolfo2024`, because it writes much
# whatever the token, or because rare targets are hard. Over all neurons, {glue:text}`answer`. The
# most influential ones, the top 1 %, stand out most by {glue:text}`group`. {glue:text}`rarity`

# %% tags=["parameters", "remove-cell"]
# Filled in from raretok/measure/parameters.py when the page is run.

# %% tags=["remove-cell"]
# %config InlineBackend.print_figure_kwargs = {"bbox_inches": None}
from myst_nb import glue

from raretok.claims import style
from raretok.claims.rivals import figures as page
from raretok.claims.study import Study
from raretok.ledger.over_models import NAMES

study = Study.of(globals())
found = page.over_models(study, NAMES)
for name, text in page.said(found).items():
    glue(name, text, display=False)

# %% [markdown]
# ## Four rivals, one score a neuron each
#
# They were written down before any was computed. $s$ is the standard deviation of a neuron's activation
# over the text.
#
# - **Token frequency**: how far the neuron moves the logits along log frequency of the type, times $s$.
# - **Entropy**: $\lVert W_\mathrm{out} \rVert\,s$ times the share of $\lVert W_\mathrm{out} \rVert^2$ in
#   the directions that the unembedding hardly reads. What is written there acts through the final norm's
#   scale, and makes all logits smaller or larger together.
# - **Activation scale**: $\lVert W_\mathrm{out} \rVert\,s$, the size of all that the neuron writes.
# - **Difficulty**: its influence on targets that are *not* rare, weighted so that they are as surprising
#   as the rare ones (ten bins of surprisal; {glue:text}`matched` % of the rare targets have such others).
#
# Scores, and influence on rare targets, become normal scores of their ranks over the layer. A regression
# on all four explains a part of the variance, and Shapley values share it out: what a rival adds, averaged
# over all orders of adding them {cite}`lindeman1980`. Difficulty is measured on one half of the documents and
# influence on the other. What influence on the one half explains of influence on the other is the
# *ceiling*; a score without noise could go beyond it, up to its root, {glue:text}`noiseless` %.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "What each rival explains of the variance of the neurons' influence on rare targets (Shapley values), by model, with 95 % intervals over documents. Dashed: the ceiling; grey: what is left of it.", "name": "fig-rival-shares"}, "image": {"alt": "Bars with whiskers: share of the variance by rival and model under a dashed ceiling", "classes": "wide"}}
fig, axes = style.panels(1, width=8.8, height=4.2)
with style.or_reason(axes[0]):
    page.shares(axes[0], found)
    style.legend_below(fig, axes[0], 3)

# %% [markdown]
# ## Are the top neurons of a known kind?
#
# {numref}`fig-rival-scatter` has two of the scores neuron by neuron. The most influential neurons (the
# top 1 %, the *group*) may stand out on a score even where it explains little of all neurons' influence.
# Of the group's influence on rare targets, {glue:text}`scale` goes through the final norm's scale, the
# way of an entropy neuron.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Every neuron of the page's own model by its token frequency and its entropy score (normal scores of ranks). Red: neurons that are in the group in half of the splits of the documents or more.", "name": "fig-rival-scatter"}, "image": {"alt": "Scatter of neurons, token frequency score against entropy score, the group marked"}}
fig, axes = style.panels(1, width=6.4, height=5.4)
with style.or_reason(axes[0]):
    page.scatter(axes[0], found)
    style.legend_below(fig, axes[0], 2)

# %% [markdown]
# ## Rarity or difficulty?
#
# Rare targets surprise the model. If surprise is what the group is for, it matters as much on frequent
# targets that surprise as much. {numref}`fig-rival-contrast` compares these, on documents that the group
# was not chosen on.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Influence of the group on rare targets, on others weighted to be as surprising, and on common ones, by model, with 95 % intervals over documents.", "name": "fig-rival-contrast"}, "image": {"alt": "Marks with whiskers: influence of the group on three kinds of targets, by model", "classes": "wide"}}
fig, axes = style.panels(1, width=8.0, height=3.8)
with style.or_reason(axes[0]):
    page.contrast(axes[0], found)
    style.legend_below(fig, axes[0], 3)

# %% [markdown]
# ## The numbers
#
# Percentages of the variance of influence over the neurons, and of its size whichever way it goes; *last*
# is what is lost without the rival. The correlation is with influence itself and has a sign.

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
page.rivals_table(found)

# %% [markdown]
# The group at equal surprisal, and through the norm's scale. A ratio is a gap where the group's influence
# on either kind of target may not be positive; what is *left* needs that of rare targets alone.

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
page.group_table(found)

# %% [markdown]
# ## What this shows, and what it does not
#
# A rival that explains influence is no proof that the neurons are *of* that kind: scores correlate, and
# a regression over all neurons says little of the few at the top, for which the group's scores speak. The
# two ways of Stolfo et al. are measured by weights and by one standard deviation of the activation; a neuron
# that fires rarely and hard is understated. Difficulty alone is measured with noise, so its part is a lower
# bound. The group was chosen for rare targets, which favours them at equal surprisal; the ratio of the
# group that is chosen on the others instead leans the other way, so that surprisal alone would leave that
# one at or below 1. Surprisal is the model's own: what surprises it may differ in more than rarity.
