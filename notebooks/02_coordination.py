# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (coordination)=
# # Do they act together? Claims C1 and I1
#
# The paper says that plateau neurons coordinate: as a group they use fewer dimensions per neuron than
# random groups, and its pairs share more mutual information {cite}`distributed2025`. With the
# correlations $r_{ij}$ of $n$ neurons' activations, the participation ratio
#
# $$\text{dimensions} = \frac{(\sum_i \lambda_i)^2}{\sum_i \lambda_i^2} = \frac{n}{1 + (n - 1)\,\overline{r^2}}$$
#
# is $n$ for unrelated neurons and 1 for copies. C1 is that of the group over that of its controls; I1
# is the mean information of a pair less that of the controls. Either is asked twice. *Existence*: is it
# there on rare targets? *Specificity*: is it stronger there than on common targets, for the same group?
# Neurons that matter for everything would pass the first and fail the second.

# %% tags=["parameters", "remove-cell"]
# Filled in from raretok/measure/parameters.py when the page is run.

# %% tags=["remove-cell"]
from myst_nb import glue

from raretok.claims import style
from raretok.claims.coordination import figures as page
from raretok.claims.study import FIXED, Study
from raretok.ledger import tables
from raretok.ledger.figures import readings
from raretok.ledger.records import as_records
from raretok.ledger.verdicts import judged
from raretok.text.protocol import PROTOCOLS

study = Study.of(globals())
findings = study.findings("coordination")
entries = judged(findings)
sample = study.shown("corrected")
for name in ("r_mean_rare", "r_max_rare", "r_mean_common", "r_max_common"):
    value = style.told(lambda name=name: page.strongest_pairs(sample)[name])
    glue(name, value, display=False)
glue("size", study.group_size, display=False)
glue("fixed", FIXED, display=False)

# %% [markdown]
# ## Comparable neurons
#
# The group is the {glue:text}`size` neurons that matter most to rare targets, chosen on one half of the
# documents and measured on the other. A control group has, for each member, a neuron that is like it in
# what a neuron does whatever it is for: the traits in the columns of the table, such as how much it varies
# and how strongly it writes ({ref}`method`). The paper's own controls are any neurons, most of which vary and fire less. The table says how
# far matching succeeds, in standard deviations over the layer; where the largest gap is too wide
# ({ref}`claims`), what is seen may be the trait and not the plateau, and the verdict is *not testable*.

# %% tags=["hide-input"]
style.told(lambda: page.balance_table({name: study.sample(name) for name in PROTOCOLS}))

# %% [markdown]
# ## Dimensions

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Dimensions per neuron of the control groups (grey) and of the plateau group (line), on rare and on common targets, corrected reading. Fewer dimensions lie to the left.", "name": "fig-dimension"}, "image": {"alt": "Two histograms of dimensions per neuron in control groups, grey, on rare targets left and on common targets right. A coloured vertical line in each marks the plateau group: left of the grey bars it uses fewer dimensions than its controls."}}
fig, axes = style.panels(2, share=True)
for ax, kind in zip(axes, ("rare", "common"), strict=True):
    with style.or_reason(ax):
        page.dimensions(ax, sample, kind)
    ax.set_title(f"{kind} targets")

# %% [markdown]
# {numref}`fig-coactivation` shows who goes with whom (in a gated MLP by the ranks of the activations). A pair of the group has a mean $|r|$ of
# {glue:text}`r_mean_rare:.2f` on rare targets and {glue:text}`r_mean_common:.2f` on common ones; the
# strongest pair reaches {glue:text}`r_max_rare:.2f` and {glue:text}`r_max_common:.2f`.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Correlations of activations on rare targets: the plateau group and the control group in the middle, neurons ordered by clustering. Red: active together; blue: one instead of the other.", "name": "fig-coactivation"}, "image": {"alt": "Two square heat maps of correlations between the activations of every pair of neurons, the plateau group left and a typical control group right, neurons named on both axes and ordered by clustering. Red squares are pairs active together, blue ones pairs of which one is active instead of the other; blocks of red off the diagonal would be neurons that act together."}}
fig, axes = style.panels(2, height=5.4)
with style.or_reason(axes[0]):
    image = page.correlation_matrices(axes, sample)
    _ = fig.colorbar(image, ax=axes, label="correlation", location="bottom", ticks=[-1, 0, 1])

# %% [markdown]
# ## Information
#
# Correlation sees straight lines only. Mutual information sees any relation but has to be estimated;
# as in the released code it is from nearest neighbours {cite}`kraskov2004`, written out here and checked
# against Gaussian pairs. Its value depends on the number of positions, so group and controls always have
# the same ones. In released form the estimate is clipped at 0, which makes a bias of every pair that
# shares nothing; here it is not.

# %% [markdown]
# ## A fixed number of neurons
#
# What a group of 1 % is compared by depends on how many neurons that is, which differs between models.
# The same estimands for the {glue:text}`fixed` neurons that matter most, beside the {glue:text}`size` of 1 %:

# %% tags=["hide-input"]
style.told(lambda: tables.sizes_table(findings, study.fixed("coordination")))

# %% [markdown]
# ## What this shows, and what it does not
#
# *Coordinated* means that neurons go with each other more than comparable neurons do. Whether there is
# also a boundary, more inside than across, is the question of {ref}`modularity`. Correlations over
# positions mix what happens within a text with what differs between texts, and information is that of
# pairs: what three neurons share only together does not show.

# %% [markdown]
# ## The three readings
#
# The same estimands under what the released code does (`code`), what the text says (`text`) and the
# corrected design ({ref}`method`). {ref}`claims` has the regions and gates, and when they were
# fixed.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "What was found for each estimand: marks with 95 % intervals over documents (round: the corrected reading; square and triangle: the text's and the code's; an arrow where an interval leaves the picture; hollow where the verdict is *not testable*), on the regions that support (blue) and contradict (orange) the claim. Grey bar under a mark: where 95 % of control groups lie. Purple bar below: published values.", "name": "fig-readings-coordination"}, "image": {"alt": "One row for each estimand of C1 and I1: up to three marks, one a reading (corrected, text, code), each with a horizontal 95 % interval, on a line shaded blue where values support the claim and orange where they contradict it. The verdict of each reading stands at the right. Compare which region an interval lies in whole."}}
fig = readings(entries)

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
tables.verdict_table(entries)

# %% tags=["hide-input"]
tables.verdict_box(entries)

# %% tags=["remove-cell"]
glue("findings", as_records(findings), display=False)
