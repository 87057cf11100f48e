# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (groups)=
# # What do rare-token neurons do together?
#
# Every other page takes neurons away one at a time; here they go together. For the 1 % of the last MLP's
# neurons in {glue:text}`model` that matter most to rare targets:
#
# - change of the loss on rare targets without them: {glue:text}`effect` nats a token;
# - without as many similar neurons, over several random draws: {glue:text}`sets` nats a token;
# - the first over the sum of what each of them does alone: {glue:text}`synergy`. Above 1 they stand in for each
#   other, below 1 they overlap.

# %% tags=["parameters", "remove-cell"]
# Filled in from raretok/measure/parameters.py when the page is run.

# %% tags=["remove-cell"]
from myst_nb import glue

from raretok.claims import style
from raretok.claims.groups import estimate
from raretok.claims.groups import figures as page
from raretok.claims.study import Study
from raretok.ledger.over_models import NAMES

study = Study.of(globals())
studies = style.by_name(study, NAMES)
models = {
    name: style.told(lambda one=one: estimate.Groups.of(one.part("groups")))
    for name, one in studies.items()
}
own, *_ = models
groups, of = models[own], ("rare", "rare", 1.0)  # targets, and what the group was chosen for; %
numbers = style.numbers(
    groups,
    effect=lambda one: estimate.effect(one, *of),
    sets=lambda one: page.range_of_sets(one, *of),
    synergy=lambda one: estimate.synergy(one, *of),
    most=lambda one: f"{one.percent[-1]:g} %",
    without_most=lambda one: estimate.effect(one, "rare", "rare", float(one.percent[-1])),
    for_rare=lambda one: estimate.selectivity(one, "rare", 1.0),
    for_common=lambda one: estimate.selectivity(one, "common", 1.0),
)
for name, text in (numbers | {"model": own}).items():
    glue(name, text, display=False)

# %% [markdown]
# ## How a group is measured
#
# Documents are dealt into blocks. On one half of the blocks neurons are ranked by their mean effect on rare
# targets; on the other half the first 0.1 to 10 % of them are set to their mean activations at once. Then
# the halves change places. The same is done for common targets. Each *random set* has as many neurons as the
# group, drawn to resemble them in their activations and in the length of what they write. An interval leaves
# out one block of documents at a time *with the groups held*: it counts which documents were measured, not
# that other documents would have chosen other neurons.
#
# ## The loss without them

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Change of the loss as the top neurons go together, by how many: neurons chosen for rare targets (left) and for common ones (right). Marks: the group, with 95 % intervals over documents; bands: range of the random sets. The vertical axis is linear below 0.01 nats and logarithmic above.", "name": "fig-together"}, "image": {"alt": "Two panels, neurons chosen for rare targets left and for common ones right: change of the loss against how many neurons go together, in % of the layer. Lines with marks and 95 % intervals for rare and common targets lie over bands that show the range of random sets. Compare the lines with the band of their colour."}}
fig, axes = style.panels(2, height=4.4, share=True)
for ax, chosen_for in zip(axes, estimate.KINDS, strict=True):
    with style.or_reason(ax):
        page.together(ax, style.there(groups), chosen_for)
style.legend(fig, 2)

# %% [markdown]
# A line far outside the band of its colour is an effect that similar neurons do not have. Without the largest
# group chosen for rare targets ({glue:text}`most` of the layer) the loss on these changes by
# {glue:text}`without_most` nats. {numref}`fig-together-beside` has the same for the other models.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The same for the models beside, neurons chosen for rare targets. Each panel has its own scale.", "name": "fig-together-beside"}, "image": {"alt": "A panel a model: change of the loss on rare and on common targets, as lines with marks and 95 % intervals, against how many neurons chosen for rare targets go together, over bands that show the range of random sets."}}
others = {name: one for name, one in models.items() if name != own}
fig, axes = style.panels(len(others), height=3.3)
for ax, (name, one) in zip(axes, others.items(), strict=True):
    with style.or_reason(ax):
        page.together(ax, style.there(one), "rare")
    ax.set_title(name)
style.legend(fig, 2)

# %% [markdown]
# ## More or less than the sum
#
# If neurons did not affect each other's work, the joint effect would be the sum of what each does alone, and
# the ratio of the two would be 1. *Above 1* they stand in for each other: while one is away, the others
# still hold the loss down, and only without all of them is everything lost. *Below 1* they overlap: what is
# lost without one cannot be lost again without another. For the 1 % chosen for rare targets the ratio is
# {glue:text}`synergy` on these; an interval that holds 1 leaves it open.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Joint effect over the sum of single effects, by size of the group: neurons chosen for rare targets (left) and for common ones (right), with 95 % intervals over documents. Grey: the models beside, on rare targets. The line at 1 is the sum; a group of one neuron lies on it but for rounding. A mark is missing where an effect does not raise the loss; an interval may leave the picture.", "name": "fig-synergy"}, "image": {"alt": "Two panels, neurons chosen for rare targets left and for common ones right: joint effect over the sum of single effects, on a logarithmic axis, against how many neurons go together, with marks and 95 % intervals for rare and common targets and thin grey lines for other models. A line at 1 is the sum; above it neurons stand in for each other, below it they overlap."}}
beside = {name: one for name, one in others.items() if not isinstance(one, str)}
fig, axes = style.panels(2, height=4.4, share=True)
for ax, chosen_for in zip(axes, estimate.KINDS, strict=True):
    with style.or_reason(ax):
        page.over_single(ax, style.there(groups), chosen_for, beside)
style.legend(fig, 3)

# %% [markdown]
# ## Rare over common
#
# For the 1 % chosen for rare targets, the change of the loss on rare over that on common targets is
# {glue:text}`for_rare`; for the 1 % chosen for common targets it is {glue:text}`for_common`. Only if the whole
# interval of the first lies above that of the second do neurons chosen for rare targets favour these the more.
# Such a ratio alone does not make a neuron one for rare tokens: rare targets have more loss to change, and the
# random sets in the table show how much that makes where they raise both losses. A ratio is *undefined* where either effect may not raise the
# loss.

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
groups if isinstance(groups, str) else page.group_table(groups)

# %% [markdown]
# At 1 %, beside the other models:

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
style.table(models, "model", page.of_model)

# %% [markdown]
# ## What this shows, and what it does not
#
# Neurons of the last MLP do not read each other: one can change the effect of another only through the final
# norm and the softmax. A ratio above 1 may therefore come from the shape of the loss alone, which rises
# faster the less probable the right token has become. Nothing here says that the neurons have learned to
# work as a group, only what removing them at once costs; {ref}`coordination` asks how they act together. The
# ratio is off by a thousandth or so, as the single effects were rounded when they were stored.
