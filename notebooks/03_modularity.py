# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (modularity)=
# # Do they form modules? Claim M1
#
# The paper says they do not {cite}`distributed2025`. A reviewer pointed out that its own table shows a
# *higher* modularity for the plateau than for random groups. With links $|r_{ij}|$ between the neurons of
# a group and communities $c$, Newman's modularity is
#
# $$Q = \sum_{ij} \Big(\frac{w_{ij}}{2m} - \frac{k_i k_j}{(2m)^2}\Big) [c_i = c_j] .$$
#
# The largest $Q$ that any partition has is not modularity: it is about 0.1 for ten unrelated neurons and
# *falls* as they act together. So communities are found on some documents and their $Q$ is taken on
# others, less what communities of the same sizes have by chance. Two clear modules then give about 0.5,
# none gives 0, whether the neurons are unrelated or move as one. M1 is the group's $Q$ less that of its
# controls. "Spatial" clustering, as the paper calls it, cannot be meant literally: neurons of a layer may
# be renumbered, so the graph is functional. {ref}`spectra` tests distance of indices.

# %% tags=["parameters", "remove-cell"]
# Filled in from raretok/measure/parameters.py when the page is run.

# %% tags=["remove-cell"]
from myst_nb import glue

from raretok.claims import style
from raretok.claims.modularity import figures as page
from raretok.claims.modularity.communities import EXACT_NODES
from raretok.claims.study import FIXED, Study
from raretok.ledger import tables
from raretok.ledger.figures import readings
from raretok.ledger.records import as_records
from raretok.ledger.verdicts import judged

study = Study.of(globals())
findings = study.findings("modularity")
entries = judged(findings)
sample = study.shown("corrected")
glue("size", study.group_size, display=False)
glue("fixed", FIXED, display=False)
glue("exact", EXACT_NODES, display=False)
glue("searched", style.told(lambda: page.found_by_search(sample)), display=False)
glue("common", style.told(lambda: page.common_difference(sample)), display=False)

# %% [markdown]
# ## The graph, and where the group lies

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Co-activation on rare targets: the plateau group (left) and one control group (right). Thickness: size of the correlation; dashed: negative. Colours: the communities with the largest Q, which exist for any graph.", "name": "fig-networks"}, "image": {"alt": "Two networks on circles, the plateau group left and a control group right. Each neuron is a numbered ring, coloured by its community; lines between neurons are as thick as their correlation is strong, dashed where it is negative. Compare whether thick lines stay inside one colour."}}
fig, axes = style.panels(2, height=4.2)
with style.or_reason(axes[0]):
    page.networks(axes, sample)

# %% [markdown]
# {numref}`fig-plane` separates the two questions. A group that acts together without modules moves left;
# one with modules moves left and up.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Each group by its dimensions per neuron (coordination, fewer to the left) and its held-out modularity (modules, up).", "name": "fig-plane"}, "image": {"alt": "Scatter plot of held-out modularity against dimensions per neuron: grey dots are control groups, one diamond is the plateau group, a horizontal line marks modularity 0. Compare the height of the diamond with that of the dots."}}
fig, axes = style.panels(height=4.2)
with style.or_reason(axes[0]):
    page.plane(axes[0], sample)
style.legend(fig, 2)

# %% tags=["hide-input"]
style.told(lambda: page.diagnostics(sample))

# %% [markdown]
# ## A fixed number of neurons
#
# What a group of 1 % is compared by depends on how many neurons that is, which differs between models.
# The same estimands for the {glue:text}`fixed` neurons that matter most, beside the {glue:text}`size` of 1 %:

# %% tags=["hide-input"]
style.told(lambda: tables.sizes_table(findings, study.fixed("modularity")))

# %% [markdown]
# ## What this shows, and what it does not
#
# The best partition of up to {glue:text}`exact` neurons is found exactly, of more by a search, which on
# groups of that size reaches {glue:text}`searched:.1f` % of the exact $Q$; group and controls get the same
# search. On common targets the same difference is {glue:text}`common:.3f`. The table has other diagnostics: the
# largest $Q$, for comparison with the published numbers; the silhouette of its partition; the second
# eigenvalue, which a second module raises and one common factor does not. A group *less* modular than its
# controls forms no modules either, so only more modularity contradicts the claim. The statistic looks at
# modules within the group; whether the group itself is one module of the layer is another question.

# %% [markdown]
# ## The three readings
#
# The same estimands under what the released code does (`code`), what the text says (`text`) and the
# corrected design ({ref}`method`). {ref}`claims` has the regions and gates, and when they were
# fixed.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "What was found for each estimand: marks with 95 % intervals over documents (round: the corrected reading; square and triangle: the text's and the code's; an arrow where an interval leaves the picture; hollow where the verdict is *not testable*), on the regions that support (blue) and contradict (orange) the claim. Grey bar under a mark: where 95 % of control groups lie. Purple bar below: published values.", "name": "fig-readings-modularity"}, "image": {"alt": "One row for each estimand of M1: up to three marks, one a reading (corrected, text, code), each with a horizontal 95 % interval, on a line shaded blue where values support the claim and orange where they contradict it. The verdict of each reading stands at the right. Compare which region an interval lies in whole."}}
fig = readings(entries)

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
tables.verdict_table(entries)

# %% tags=["hide-input"]
tables.verdict_box(entries)

# %% tags=["remove-cell"]
glue("findings", as_records(findings), display=False)
