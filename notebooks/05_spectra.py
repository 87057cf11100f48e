# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (spectra)=
# # Heavy-tailed weights? Claim S1
#
# The paper reports that the weight correlations of rare-token neurons have heavy-tailed spectra: a Hill
# tail index below 2 {cite}`distributed2025`. For a group of ten neurons the index rests on a handful of
# eigenvalues, and unrelated rows have one as well. What a heavy tail means at this size is that the rows
# are not unrelated:
#
# $$\overline{\cos^2} = \frac{\sum_i \lambda_i^2 - n}{n (n - 1)} ,$$
#
# the mean squared cosine between the rows (what a neuron reads and what it writes, side by side),
# is what the squared eigenvalues hold beyond those of unrelated rows. S1 is that of the group less that
# of its controls, in units of chance (one over the length of a row). It needs no text, only the choice of the group does.

# %% tags=["parameters", "remove-cell"]
# Filled in from raretok/measure/parameters.py when the page is run.

# %% tags=["remove-cell"]
from myst_nb import glue

from raretok.claims import style
from raretok.claims.spectra import figures as page
from raretok.claims.study import FIXED, Study
from raretok.ledger import tables
from raretok.ledger.figures import readings
from raretok.ledger.records import as_records
from raretok.ledger.verdicts import judged

study = Study.of(globals())
findings = study.findings("spectra")
entries = judged(findings)
sample = study.shown("corrected")
glue("size", study.group_size, display=False)
glue("fixed", FIXED, display=False)

# %% [markdown]
# ## The spectrum and the cosines

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left: eigenvalues of the correlations of weight rows, plateau group over 95 % of its control groups; dotted: where pure noise ends (Marchenko and Pastur). Right: mean squared cosine of control groups and of the plateau group, in units of chance.", "name": "fig-spectrum"}, "image": {"alt": "Left: eigenvalues of the plateau group's weight correlations by rank, a line with dots on a logarithmic axis over a grey band of its control groups; a dotted line marks where pure noise ends. Right: histogram of the mean squared cosine of control groups, with a vertical line for the plateau group."}}
fig, axes = style.panels(2, height=3.6)
with style.or_reason(axes[0]):
    page.spectrum(axes[0], sample)
with style.or_reason(axes[1]):
    page.cosines(axes[1], sample)
style.legend(fig, 3)

# %% [markdown]
# The table has each matrix alone (of a gated MLP `W_gate` beside `W_in`, its ungated branch), and the
# distance of the members' indices: the last thing that could be called spatial.

# %% tags=["hide-input"]
style.told(lambda: page.matrices_table(sample))

# %% [markdown]
# ## A fixed number of neurons
#
# What a group of 1 % is compared by depends on how many neurons that is, which differs between models.
# The same estimands for the {glue:text}`fixed` neurons that matter most, beside the {glue:text}`size` of 1 %:

# %% tags=["hide-input"]
style.told(lambda: tables.sizes_table(findings, study.fixed("spectra")))

# %% [markdown]
# ## What this shows, and what it does not
#
# The Hill index is reported under every reading and not judged: the bound of 2 belongs to other sizes,
# and the released code takes the rows of one matrix for GPT-2 and of the other for Pythia, so that its
# comparison between families compares two things. Its second statistic, the distance to the noise law,
# is 0/0 in the released code for every input. Controls are matched in how strongly a neuron writes
# and how it is active; where they cannot be matched, what is seen may be the price of being active.

# %% [markdown]
# ## The three readings
#
# The same estimands under what the released code does (`code`), what the text says (`text`) and the
# corrected design ({ref}`method`). {ref}`claims` has the regions and gates, and when they were
# fixed.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "What was found for each estimand: marks with 95 % intervals over documents (round: the corrected reading; square and triangle: the text's and the code's; an arrow where an interval leaves the picture; hollow where the verdict is *not testable*), on the regions that support (blue) and contradict (orange) the claim. Grey bar under a mark: where 95 % of control groups lie. Purple bar below: published values.", "name": "fig-readings-spectra"}, "image": {"alt": "One row for each estimand of S1: up to three marks, one a reading (corrected, text, code), each with a horizontal 95 % interval, on a line shaded blue where values support the claim and orange where they contradict it. The verdict of each reading stands at the right. Compare which region an interval lies in whole."}}
fig = readings(entries)

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
tables.verdict_table(entries)

# %% tags=["hide-input"]
tables.verdict_box(entries)

# %% tags=["remove-cell"]
glue("findings", as_records(findings), display=False)
