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
# model: {glue:text}`n_runs` training runs of {glue:text}`smallest:.0f` to {glue:text}`largest:.0f` million
# parameters on the same {glue:text}`tokens:.0f` million tokens ({glue:text}`seeds` seeds of `docs-gpt2`, and
# once each a GPT-NeoX style network with parallel blocks and rotary positions, and a Llama style one with
# RMSNorm, gates and grouped queries), and, from outside, {glue:text}`lead`.
#
# Runs are the units. Their numbers are combined by random effects, and the rule was written down before
# they were computed ({ref}`claims`): a claim is *reproduced* if the 95 % prediction interval of the **next**
# training run lies in the region that supports it, *contradicted* if it lies in the other one. With so
# few runs that interval is wide, as it should be.

# %% tags=["parameters", "remove-cell"]
# Filled in from raretok/measure/parameters.py when the page is run.

# %% tags=["remove-cell"]
import json

from myst_nb import glue

from raretok.claims.study import Study
from raretok.ledger import figures
from raretok.ledger import over_models as page
from raretok.ledger.records import as_records, book_ledger, pages_folder
from raretok.ledger.replication import BASE, between_families, replications
from raretok.measure.find import TRAINED, UNTRAINED
from raretok.models.files import SHIPPED

study, studies = Study.of(globals()), {name: Study.shipped(name) for name in TRAINED}
families = {name: one.architecture.family for name, one in studies.items()}
runs = {name: one.replicate() for name, one in studies.items()}
lead = [one.finding for one in book_ledger(pages_folder()) if one.claim.of_the_paper]
control = Study.shipped(UNTRAINED).replicate()
found = replications([one for some in runs.values() for one in some], [*lead, *control])
base = {name: some for name, some in runs.items() if families[name] == BASE}
across = {
    name: between_families(runs[name], families[name], base) for name in runs if name not in base
}
findings = between_families(lead, study.architecture.family, base)

# %% tags=["remove-cell"]
sizes = [one.architecture.n_parameters / 1e6 for one in studies.values()]
(tokens,) = {
    json.loads((SHIPPED / name / "training.json").read_text())["tokens_seen"] for name in TRAINED
}
said = {"smallest": min(sizes), "largest": max(sizes), "tokens": tokens / 1e6, "seeds": len(base)}
for name, value in (said | page.said(found, lead)).items():
    glue(name, value, display=False)

# %% [markdown]
# ## Every model, claim by claim
#
# The {glue:text}`n_claims` claims over the training runs: reproduced {glue:text}`n_reproduced`, contradicted
# {glue:text}`n_contradicted`, inconclusive {glue:text}`n_inconclusive`, and not testable, as too few runs pass
# the gates, {glue:text}`n_not_testable`. {numref}`fig-forest` has every model. The table below it counts the
# models that support a claim and those that contradict it, each by itself, out of all trained models, whether they
# pass the gates or not; the untrained one is not counted. Where the number of a model from outside lies beyond the *next
# run*, it differs from the runs by more than one more run would.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Each claim's primary number under the corrected reading, with 95 % intervals over documents (an arrow where one leaves the picture). Blue: models that are not one of the runs; the others are training runs, whose verdict stands above each panel; hollow: a gate failed, so the number does not count. Below the line: mean of the runs whose gates hold, and where one more run is expected.", "name": "fig-forest"}, "image": {"alt": "One panel a claim, each with a row a model: SmolLM2, the training runs and an untrained network, each a mark with a horizontal 95 % interval, hollow where a gate failed; below a line the mean of the runs as a diamond, and the interval of the next run. Regions that support the claim are shaded blue, those that contradict it orange; the verdict over the runs heads each panel."}}
fig = figures.forest(found, page.names(found))

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
page.replication_table(found)

# %% [markdown]
# ## Between families
#
# G1 and G4 ask whether what is found on GPT-2 style networks holds in other families. R1's lift of a model
# is set over that of the runs of GPT-2 style; the interval says where one more such run is expected, so a
# family differs only by more than these runs differ among themselves.

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
page.families_table([*findings, *(one for some in across.values() for one in some)])

# %% [markdown]
# ## What this shows, and what it does not
#
# Runs of one text and one size differ by seed and architecture only: the next run means the next of *these*.
# The outside model, which is not one of them, says whether a finding reaches further; it is a single model.
# The untrained network has the architecture and none of the training: what it shows too is no sign of learning. In a network with
# parallel blocks the heads of the last layer write after its MLP has read, so there A3 and A4 are about the
# layer before the last alone. An interval over documents does not see what another text would change.

# %% tags=["remove-cell"]
some = (*runs.values(), control, *across.values())
glue("replicates", as_records([one for each in some for one in each]), display=False)
glue("findings", as_records(findings), display=False)
