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
# Every other page takes neurons away one at a time. Here they go together. Without the
# {glue:text}`neurons_1` neurons (1 % of the last MLP) that matter most to rare targets, the loss on those
# rises by {glue:text}`joint_1` nats a token, {glue:text}`against_sets_1` of the {glue:text}`n_sets` random
# sets like them; it {glue:text}`against_sum_1` the sum of what each does alone
# ({glue:text}`synergy_1` of it).

# %% tags=["parameters", "remove-cell"]
# Filled in from raretok/measure/parameters.py when the page is run.

# %% tags=["remove-cell"]
# %config InlineBackend.print_figure_kwargs = {"bbox_inches": None}
from myst_nb import glue

from raretok.claims import style
from raretok.claims.groups import estimate
from raretok.claims.groups import figures as page
from raretok.claims.study import Study
from raretok.ledger.over_models import NAMES

study = Study.of(globals())
own = NAMES.get(study.measurements.label, study.measurements.label)
studies = {own: study} | {NAMES.get(name, name): one for name, one in study.beside().items()}
models = page.read(studies)
groups = models[own]
for name, text in page.said(groups).items():
    glue(name, text, display=False)

# %% [markdown]
# ## How a group is measured
#
# Documents are dealt into blocks. On one half of the blocks neurons are ranked by their mean effect on rare
# targets, and on the other half the first 0.1 to 10 % of them are set to their means at once; then
# the halves change places. The same is done for common targets. Each *random set* has as many neurons, drawn
# to be like those of the group in their activations and the length of what they write. An interval leaves out
# one block of documents at a time *with the groups held*: it counts which documents were measured, not
# that other documents would have chosen other neurons.
#
# ## The loss as they go together

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Change of the loss as the top neurons go together, by how many: neurons chosen for rare targets (left) and for common ones (right). Marks: the group, with 95 % intervals over documents; bands: range of the random sets. The vertical axis is linear below 0.01 nats and logarithmic above.", "name": "fig-together"}, "image": {"alt": "Two panels: loss change on rare and common targets by the percentage of neurons ablated together, above bands of random sets", "classes": "wide"}}
fig, axes = style.panels(2, width=4.4, height=3.8, share=True)
for ax, chosen_for in zip(axes, estimate.KINDS, strict=True):
    with style.or_reason(ax):
        page.together(ax, page.there(groups), chosen_for)
style.legend_below(fig, axes[0], 4)

# %% [markdown]
# Without the first {glue:text}`most` % chosen for rare targets, the loss on them rises by
# {glue:text}`joint_most` nats; random sets of 1 % change it by {glue:text}`sets_1` nats.
# {numref}`fig-together-beside` has the models beside.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The same for the models beside, neurons chosen for rare targets.", "name": "fig-together-beside"}, "image": {"alt": "A panel a model: loss change on rare and common targets by the percentage of neurons ablated together", "classes": "wide"}}
others = {name: one for name, one in models.items() if name != own}
fig, axes = style.panels(2, 2, width=4.4, height=3.0)
for ax in axes[len(others) :]:
    ax.set_axis_off()
for ax, (name, one) in zip(axes, others.items(), strict=False):
    with style.or_reason(ax):
        page.together(ax, page.there(one), "rare")
    ax.set_title(name)

# %% [markdown]
# ## More or less than the sum
#
# If neurons did not touch each other, the joint effect would be the sum of what each does alone, and the ratio
# of the two 1. *Above 1* they stand in for each other: while one is away, the others still hold the loss
# down, and only together is all of it lost. *Below 1* they overlap: what one takes away,
# another cannot take away again. At 1 % the joint effect on rare targets {glue:text}`against_sum_1` the sum:
# {glue:text}`meaning_1`.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Joint effect over the sum of single effects, by size of the group: neurons chosen for rare targets (left) and for common ones (right), with 95 % intervals over documents. Grey: the models beside, on rare targets. The line at 1 is the sum; a group of one neuron lies on it but for rounding. A mark is missing where an effect does not raise the loss; an interval may leave the picture.", "name": "fig-synergy"}, "image": {"alt": "Two panels: ratio of joint to summed single effects by percentage of neurons, with a line at 1", "classes": "wide"}}
beside = {name: one for name, one in others.items() if not isinstance(one, str)}
fig, axes = style.panels(2, width=4.4, height=3.8, share=True)
for ax, chosen_for in zip(axes, estimate.KINDS, strict=True):
    with style.or_reason(ax):
        page.over_single(ax, page.there(groups), chosen_for, beside)
style.legend_below(fig, axes[0], 5)

# %% [markdown]
# ## Rare over common
#
# The group chosen for rare targets raises their loss {glue:text}`selectivity_1` times as much as that of common
# targets. For the group chosen for common targets the ratio is {glue:text}`selectivity_common_1`; the first
# {glue:text}`more_selective_1` the second. A ratio alone does not make a neuron one for rare tokens:
# rare targets have more loss to change, and the random sets in the table show what that comes to.

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
style.told(lambda: page.group_table(page.there(groups)))

# %% [markdown]
# At 1 %, beside the other models:

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
page.models_table(models)

# %% [markdown]
# ## What this shows, and what it does not
#
# Neurons of the last MLP do not read each other: all that one does to another's effect goes through the final
# norm and the softmax. A ratio above 1 may therefore be no more than the curve of the loss, which
# rises the faster the less probable its token has become. Nothing here says that the neurons
# have learned to work as a group, only what removing them at once costs; {ref}`coordination` asks how
# they act together. Rounding of the single effects is in the ratio as well, a thousandth or so.
