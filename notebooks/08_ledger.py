# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (ledger)=
# # The ledger
#
# Every page records what it found; this page only reads those records: {glue:text}`n_claims` claims, those of
# the paper {cite}`distributed2025` and what its readers asked (G1 to G5), in {glue:text}`n_lines` lines, on
# the model {glue:text}`model`. Claims from G1 on, and D1, are read in the corrected way alone.
# {glue:text}`missing` A verdict is read off an interval and two regions that were fixed beforehand
# ({ref}`claims`). Under the corrected reading {glue:text}`n_supported` are supported,
# {glue:text}`n_contradicted` contradicted, {glue:text}`n_inconclusive` inconclusive and
# {glue:text}`n_not_testable` not testable; reported without a verdict: {glue:text}`reported`.

# %% tags=["remove-cell"]
from myst_nb import glue

from raretok.ledger import figures, over_models
from raretok.ledger import tables as page
from raretok.ledger.claims import claims
from raretok.ledger.records import book_ledger, pages_folder

folder = pages_folder()
entries = book_ledger(folder)
found, left_out = over_models.beside(folder)
glue("left_out", left_out, display=False)
for name, text in page.said(entries).items():
    glue(name, text, display=False)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "One row a claim: marks with 95 % intervals over documents (round: the corrected reading; square and triangle: the text's and the code's; an arrow where an interval leaves the picture; hollow where the verdict is *not testable*), on the regions that support (blue) and contradict (orange) the claim. Grey bar under a mark: where 95 % of control groups lie. Purple bar below: published values.", "name": "fig-ledger"}, "image": {"alt": "One row for each claim: up to three marks, one a reading (corrected, text, code), each with a horizontal 95 % interval, on a line shaded blue where values support the claim and orange where they contradict it. The verdict of each reading stands at the right. Compare which region an interval lies in whole."}}
labels = {(n, c.primary): f"{n}, {c.short}" for n, c in claims().items()}
fig = figures.readings(figures.primary(entries), labels=labels)

# %% [markdown]
# ## Every model
#
# The same claims under the corrected reading, model by model, and on how many that were trained each is
# supported or contradicted ({ref}`replication`). {glue:text}`left_out`

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Each claim's primary number under the corrected reading, with 95 % intervals over documents (an arrow where one leaves the picture). Blue: models that are not one of the runs, the model of this page first; the others are training runs, whose verdict stands above each panel; hollow: a gate failed, so the number does not count. Below the line: mean of the runs whose gates hold, and where one more run is expected.", "name": "fig-beside"}, "image": {"alt": "One panel a claim, each with a row a model: the model of this page first, then the other models and training runs, each a mark with a horizontal 95 % interval, hollow where a gate failed; below a line the mean of the runs as a diamond, and the interval of the next run. Regions that support the claim are shaded blue, those that contradict it orange; the verdict over the runs heads each panel."}}
over = [one for one in found if one.runs]
fig = figures.forest(over, over_models.names(over))

# %% tags=["hide-input"]
over_models.replication_table(found)

# %% [markdown]
# ## Line by line
#
# Below each claim's own estimand stand its second lines: *specificity* asks whether what is there on rare
# targets is stronger than on common ones, others leave out what could explain a finding. The regions are
# on {ref}`claims`. {download}`ledger.json` has the same lines, with regions and all gates.

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
page.ledger_table(entries, folder)

# %% [markdown]
# ## Limits
#
# The three readings are those of one model; what other models say is in {ref}`replication`. Claims that
# this design would support in less than four of five worlds where they are true, in worlds made from
# `docs-gpt2`: {glue:text}`weak` ({ref}`calibration`). That such a claim is not supported says little. The three readings share a model and many positions; they are no repetitions of each other.
# Coverage of the intervals is measured for `corrected` alone; `code` scores ten sequences, as released,
# and an interval over ten documents is likely too narrow. Lines are many: some intervals miss.
