# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (replication)=
# # Do the claims replicate?
#
# One model can support a claim by chance of its training. Here each claim's own number is taken from every
# model: {glue:text}`n_runs` training runs of {glue:text}`millions` million parameters on the same
# {glue:text}`tokens` million tokens ({glue:text}`seeds` seeds of `docs-gpt2`, and once each a GPT-NeoX style network with parallel blocks and rotary positions,
# and a Llama style one with RMSNorm, gates and grouped queries), and, from outside, {glue:text}`lead`, which
# is another size, another text and another training altogether.
#
# Runs are the units. Their numbers are combined by random effects, and the rule was written down before
# they were computed ({ref}`claims`): a claim is *reproduced* if the 95 % prediction interval of the **next**
# training run lies in the region that supports it, *contradicted* if it lies in the other one. With so
# few runs that interval is wide, as it should be.

# %% tags=["remove-cell"]
# %config InlineBackend.print_figure_kwargs = {"bbox_inches": None}
from myst_nb import glue

from raretok.claims.study import Study
from raretok.ledger import figures
from raretok.ledger import over_models as page
from raretok.ledger.records import as_records, book_ledger, pages_folder
from raretok.ledger.replication import replications
from raretok.measure.find import TRAINED, UNTRAINED

runs = {name: Study.shipped(name).replicate() for name in (*TRAINED, UNTRAINED)}
lead = [entry.finding for entry in book_ledger(pages_folder())]
control = {UNTRAINED: runs.pop(UNTRAINED)}
found = replications(runs, {**page.by_model(lead), **control})
for name, text in page.said(found, lead).items():
    glue(name, text, display=False)

# %% [markdown]
# ## Every model, claim by claim
#
# {glue:text}`summary`
#
# {glue:text}`agreement`

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Each claim's primary number under the corrected reading, with 95 % intervals over documents (an arrow where one leaves the picture). Black: training runs; blue: models that are no unit; hollow: a gate failed, so the number does not count. Red: mean of the runs whose gates hold, and below it where the next run is expected.", "name": "fig-forest"}, "image": {"alt": "Forest plots, one panel a claim: estimates of nine models with intervals over shaded regions, with the mean of the runs and the interval of the next run", "classes": "wide"}}
fig = figures.forest(found, page.names(found))
glue("forest", fig, display=False)

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
page.replication_table(found)

# %% [markdown]
# ## What an architecture makes impossible
#
# {glue:text}`impossible`
#
# ## What this shows, and what it does not
#
# Runs of one text and one size differ by seed and architecture only: the next run means the next of *these*.
# The outside model says whether a finding reaches further; it is one. The untrained network has the
# architecture and none of the training: what it shows too is no sign of learning. An interval over
# documents does not see what another text would change.

# %% tags=["remove-cell"]
everything = [one for some in (*runs.values(), *control.values()) for one in some]
glue("replicates", as_records(everything), display=False)
