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
# The paper looks at the last MLP alone; reviewers asked whether such neurons sit in earlier layers too. The
# top 1 % of the neurons are taken from each of the last {glue:text}`n_layers` MLPs, and their influence on
# rare targets is added up. The last layer's share of the sum is {glue:text}`share`. Above one half, most of it is
# there; if all layers had the same, it would be one in {glue:text}`n_layers`.

# %% tags=["parameters", "remove-cell"]
# Filled in from raretok/measure/parameters.py when the page is run.

# %% tags=["remove-cell"]
from myst_nb import glue

from raretok.claims import style
from raretok.claims.finding import or_none
from raretok.claims.layers import estimate
from raretok.claims.layers import figures as page
from raretok.claims.study import Study
from raretok.ledger import tables
from raretok.ledger.figures import readings
from raretok.ledger.over_models import NAMES
from raretok.ledger.records import as_records
from raretok.ledger.verdicts import judged

study = Study.of(globals())
studies = style.by_name(study, NAMES)
models = {name: style.told(lambda one=one: estimate.read(one)) for name, one in studies.items()}
exact = {name: or_none(one.sample, "corrected") for name, one in studies.items()}
first, *_ = studies
own = models[first]
findings = study.findings("layers")
entries = judged(findings)
glue("n_layers", min(study.architecture.n_layers, len(estimate.BACK)), display=False)
for name, one in zip(("share", "lift_before"), findings, strict=True):
    glue(name, style.cell(one.estimate, "not testable here"), display=False)

# %% tags=["hide-input"]
tables.verdict_box(entries)

# %% [markdown]
# ## How layers are measured
#
# A neuron of an earlier layer acts through everything after it, so that its effect follows from no closed
# formula, and one forward pass for each neuron would take too long. Effects are therefore found to *first
# order*: the gradient of the loss by a neuron's activation, times the change of the activation to its mean,
# at all positions of a context at once. What is left out is all that is not linear in the change. Two
# effects are told apart: the *total* one, which passes through the later layers too, and the *unmediated*
# one, what the neuron writes straight to the final norm.
#
# In every layer the top 1 % are chosen on one half of the documents and measured on the other. All layers
# are measured at the same positions, and an interval leaves the same documents out of each. A layer whose
# neurons do not keep their order from one half to the other comes out too low, as its top is then chosen by
# chance. Of a layer that was not measured the table gives the reason.
#
# ## The influence of the top 1 % by layer

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Influence of the top 1 % of each MLP on rare and on common targets, each neuron alone, added up, with 95 % intervals over documents. Solid: total; dashed: the unmediated part of the same neurons. Diamonds: exact ablation in the last layer, at other positions. Each panel has its own scale.", "name": "fig-layers"}, "image": {"alt": "A panel a model: influence of the top 1 % of neurons in each of the last layers, the last at the right, on rare targets and on common ones, with 95 % intervals. Solid lines are the total, dashed ones the unmediated part; diamonds at the right are exact ablation. Compare the height of the last layer with that of the earlier ones."}}
fig, axes = style.panels(len(models), height=3.3)
for ax, (name, one) in zip(axes, models.items(), strict=True):
    with style.or_reason(ax):
        page.influence_by_layer(ax, style.there(one), exact[name])
    ax.set_title(name)
style.legend(fig, 3)

# %% [markdown]
# ## The curves
#
# Whether the top neurons stand out in a layer is a matter of the shape of its rank curve.
# {numref}`fig-layer-curves` has those of all layers. In the layer before the last the top 1 % have
# {glue:text}`lift_before` times the influence that the smooth curve through the others predicts (the lift of
# R1).

# %% tags=["hide-input"] mystnb={"figure": {"caption": "First-order influence by rank in each of the last layers, ranked on some documents and measured on others, means in bins; a line breaks where such a mean is not positive. Black, dotted: exact ablation in the last layer.", "name": "fig-layer-curves"}, "image": {"alt": "Two log-log panels, rare targets left, common targets right: influence by rank of the neuron, one line style and colour for each of the last layers, and a dotted line for exact ablation in the last layer. Compare which layer's line lies highest, and how close the dotted line runs to that of the last layer."}}
fig, axes = style.panels(2, height=4.4, share=True)
for ax, kind in zip(axes, ("rare", "common"), strict=True):
    with style.or_reason(ax):
        page.curves(ax, style.there(own), exact[first], kind)
style.legend(fig, 3)

# %% [markdown]
# ## How good first order is
#
# In each layer some of the first-ranked neurons, and as many random ones, were also ablated exactly, at
# fewer positions. {numref}`fig-agreement` compares the two: a rank correlation of 1 would be the same order. The
# order may be right and the sizes wrong: the rows *last* and *last, exact* of the table below have the influence
# in the last layer to first order and exactly, at other positions of the same documents.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Agreement of first-order effects with exact ablation by layer, with 95 % intervals: rank correlation (left), and how many of the exactly largest tenth are among the largest tenth to first order (right). Filled: neurons ranked first; hollow: random ones.", "name": "fig-agreement"}, "image": {"alt": "Two panels over the last layers: rank correlation of first-order with exact effects left, share of the largest tenth found right, each between 0 and 1 where all agrees. Filled marks are neurons ranked first, hollow ones random neurons; red for rare and blue for common targets, with 95 % intervals."}}
fig, axes = style.panels(2, height=4.2)
for ax, measure in zip(axes, (0, 2), strict=True):
    with style.or_reason(ax):
        page.agreement(ax, style.there(own).agreement, measure)
style.legend(fig, 2)

# %% [markdown]
# ## The numbers
#
# The first row has the exact effects in the last layer, the numbers of {ref}`regimes`. *Share* is the share
# of the sum over the layers; *reliability* is the rank correlation of the influence on rare targets between
# halves of the documents; *agreement* is the rank correlation of first-order with exact effects on rare targets,
# among the neurons ranked first (*top*) and random ones. A number is *undefined* where neurons that raise the
# loss on one half of the documents, taken together, do not on the other.

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
own if isinstance(own, str) else page.layer_table(own, exact[first])

# %% [markdown]
# All models, each with as many of the last four layers as it has:

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
style.table(models, "model", page.of_model)

# %% [markdown]
# ## What this shows, and what it does not
#
# A share says where the *strongest* neurons are, not where rare tokens are handled: attention and the other
# 99 % of the neurons are left out. The effects of several layers are not parts of one whole either: a neuron
# of an early layer may act through one of the last, and then both are counted. First order may miss neurons
# whose effect is far from linear, above all before the last layer; the agreement of the ranks says how far
# that goes.
#
# ## The finding

# %% tags=["hide-input"] mystnb={"figure": {"caption": "What was found for each estimand of G3: marks with 95 % intervals over documents (an arrow where an interval leaves the picture; hollow where the verdict is *not testable*), on the regions that support (blue) and contradict (orange) the claim.", "name": "fig-readings-layers"}, "image": {"alt": "One row for each estimand of G3: a mark with a horizontal 95 % interval on a line shaded blue where values support the claim and orange where they contradict it, with the verdict in words at the right. Compare which region an interval lies in whole."}}
fig = readings(entries)

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
tables.verdict_table(entries)

# %% tags=["remove-cell"]
glue("findings", as_records(findings), display=False)
others = list(studies.values())[1:]
replicates = [one for other in others for one in other.findings("layers")]
glue("replicates", as_records(replicates), display=False)
