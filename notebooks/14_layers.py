# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (layers)=
# # Does it sit in the last layer? Claim G3
#
# The paper looks at the last MLP alone; reviewers asked whether its neurons may sit earlier too. Of the
# influence on rare targets that the top 1 % of each of the last {glue:text}`n_layers` MLPs have together, the
# last holds {glue:text}`share`: {glue:text}`place`. Equal layers would have {glue:text}`fair` % each. That
# specialisation sits in the last layer is **{glue:text}`verdict`**.

# %% tags=["parameters", "remove-cell"]
# Filled in from raretok/measure/parameters.py when the page is run.

# %% tags=["remove-cell"]
# %config InlineBackend.print_figure_kwargs = {"bbox_inches": None}
from myst_nb import glue

from raretok.claims import style
from raretok.claims.layers import figures as page
from raretok.claims.study import Study
from raretok.ledger import tables
from raretok.ledger.figures import readings
from raretok.ledger.over_models import NAMES
from raretok.ledger.records import as_records
from raretok.ledger.verdicts import judged

study = Study.of(globals())
beside = study.beside()
own = NAMES.get(study.measurements.label, study.measurements.label)
studies = {own: study} | {NAMES.get(name, name): one for name, one in beside.items()}
models, exact = page.read(studies), page.exact_of(study)
findings = study.findings("layers")
entries = judged(findings)
glue("verdict", entries[0].verdict, display=False)
for name, text in page.said(models[own], exact).items():
    glue(name, text, display=False)

# %% [markdown]
# ## How layers are measured
#
# A neuron of an earlier layer acts through everything after it, so that no closed form holds, and a forward pass
# for each neuron is too dear. Its effect is therefore found to *first order*: the gradient of the
# loss by its activation, times the change to its mean, over all the positions of a context at once. What the
# gradient leaves out is everything that bends. Two effects are told apart. The *total* one passes through
# the later layers too; the *unmediated* one is what the neuron writes straight to the final norm.
#
# In every layer the top 1 % are chosen on one half of the documents and measured on the other; all layers are
# measured at the same positions, and an interval leaves the same documents out of each. A layer
# whose order does not repeat between halves is underrated: its top is chosen at random. Missing layers:
# {glue:text}`gaps`.
#
# ## The influence of the top 1 % by layer

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Influence of the top 1 % of each MLP on rare and on common targets, each neuron alone, added up, with 95 % intervals over documents. Solid: total; dashed: the unmediated part of the same neurons. Diamonds: exact ablation in the last layer, at other positions. Each panel has its own scale.", "name": "fig-layers"}, "image": {"alt": "A panel a model: influence of the top 1 % of neurons over the last four layers, rare and common targets, total and unmediated", "classes": "wide"}}
fig, axes = style.panels(2, (len(models) + 1) // 2, width=4.4, height=3.0)
for ax in axes[len(models) :]:
    ax.set_axis_off()
for ax, (name, one) in zip(axes, models.items(), strict=False):
    with style.or_reason(ax):
        page.influence_by_layer(ax, page.there(one), page.exact_of(studies[name]))
    ax.set_title(name)
style.legend_below(fig, axes[0], 3)

# %% [markdown]
# ## The curves
#
# A lift is a matter of the shape of the rank curve. {numref}`fig-layer-curves` has those of all layers.
# In the layer before the last the lift of the top 1 % over the smooth curve is {glue:text}`lift_before`.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "First-order influence by rank in each of the last layers, ranked on some documents and measured on others, means in bins. Dotted black: exact ablation in the last layer.", "name": "fig-layer-curves"}, "image": {"alt": "Log-log rank curves of the last four layers, rare targets left and common targets right", "classes": "wide"}}
fig, axes = style.panels(2, width=4.4, height=3.8, share=True)
for ax, kind in zip(axes, ("rare", "common"), strict=True):
    with style.or_reason(ax):
        page.curves(ax, page.there(models[own]), exact, kind)
style.legend_below(fig, axes[0], 5)

# %% [markdown]
# ## What first order costs
#
# In each layer some of its first-ranked neurons and as many random ones were also ablated exactly, at fewer
# positions. {numref}`fig-agreement` compares the two. At its worst the rank correlation on rare targets
# is {glue:text}`agree_top` among the first-ranked and {glue:text}`agree_random` among random ones. A good
# order may still come with wrong sizes: the top 1 % of the last layer have {glue:text}`first_order` nats to first
# order and {glue:text}`exactly` exactly, at other positions of the same documents.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Agreement of first-order effects with exact ablation by layer, with 95 % intervals: rank correlation (left), and how many of the exactly largest tenth are among the largest tenth to first order (right). Filled: neurons ranked first; hollow: random ones.", "name": "fig-agreement"}, "image": {"alt": "Two panels of agreement with intervals over four layers, top and random neurons, rare and common targets", "classes": "wide"}}
fig, axes = style.panels(2, width=4.4, height=3.6)
for ax, measure in zip(axes, (0, 2), strict=True):
    with style.or_reason(ax):
        page.agreement(ax, page.there(models[own]).agreement, measure)
style.legend_below(fig, axes[0], 2)

# %% [markdown]
# ## The numbers
#
# The first row has the exact effects in the last layer, the numbers of {ref}`regimes`. *Share* is of the sum over
# the layers, *reliability* the rank correlation of rare influence between halves of the documents.
# A number is missing where the neurons of a layer, those together that seemed to help on one half,
# do not help on the other.

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
style.told(lambda: page.table(page.there(models[own]), exact))

# %% [markdown]
# Over the models, each with the layers that it has of the last four:

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
page.models_table(models)

# %% [markdown]
# ## What this shows, and what it does not
#
# A share says where the *strongest* neurons are, not where rare tokens are handled: attention and the other
# 99 % of the neurons are left out. Effects of several layers are no parts of one whole either; a neuron
# of an early layer may act through one of the last, and then both count. First order may miss neurons that act
# through what bends, above all before the last layer, and the rank agreement says how many.
#
# ## The finding

# %% tags=["hide-input"] mystnb={"figure": {"caption": "What was found for each estimand of G3, with 95 % intervals over documents, on the regions that support (blue) and contradict (orange) the claim.", "name": "fig-readings-layers"}, "image": {"alt": "For each estimand of G3 a mark with its interval over shaded regions", "classes": "wide"}}
fig = readings(entries)

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
tables.verdict_table(entries)

# %% tags=["hide-input"]
tables.verdict_box(entries)

# %% tags=["remove-cell"]
glue("findings", as_records(findings), display=False)
replicates = [one for other in beside.values() for one in other.findings("layers")]
glue("replicates", as_records(replicates), display=False)
