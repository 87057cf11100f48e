# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (dynamics)=
# # When do they come to be? Claim D1
#
# The paper reads its neurons as the outcome of training: specialised bit by bit. Checkpoints of one
# run say when. {glue:text}`n_steps` checkpoints of {glue:text}`model` are measured at the same
# positions, and the group of the most influential neurons is chosen twice: *traced back*, the neurons that
# matter at the end wherever they came from, and *anew*, those that matter at the step itself. D1 is about the
# largest rise from one checkpoint to the next, as a share of the influence at the end: small if neurons
# specialise bit by bit, near 1 if they do so at once.

# %% tags=["parameters", "remove-cell"]
# Filled in from raretok/measure/parameters.py when the page is run.

# %% tags=["remove-cell"]
from myst_nb import glue

from raretok.claims import style
from raretok.claims.dynamics import estimate
from raretok.claims.dynamics import figures as page
from raretok.claims.study import Study
from raretok.ledger import tables
from raretok.ledger.records import as_records
from raretok.ledger.verdicts import judged

study = Study.of(globals())
samples, gaps = study.checkpoints()
found = estimate.history(samples, gaps)
findings, replicates = study.history(samples)
entries = judged(replicates or findings)  # of the model that has checkpoints
numbers = style.numbers(
    found,
    half=lambda one: f"{estimate.reached(one, 0.5):,}",
    most=lambda one: f"{estimate.reached(one, 0.9):,}",
    last=lambda one: f"{one.steps[-1]:,}",
    n_steps=lambda one: str(len(one.steps)),
    positions=lambda one: str(one.positions),
)
for name, text in (numbers | {"model": study.history_model}).items():
    glue(name, text, display=False)

# %% tags=["hide-input"]
tables.verdict_box(entries)

# %% [markdown]
# ## The course of the training
#
# The traced group has half of its final influence from step {glue:text}`half` on, and nine tenths from step
# {glue:text}`most`, of {glue:text}`last` in all. {numref}`fig-course` shows how that influence grows and beside
# it four numbers of other pages: the lift of {ref}`regimes`, the dimensions of {ref}`coordination`, the
# modularity of {ref}`modularity` and the squared cosine of {ref}`spectra`.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Five quantities over the steps of one training run (logarithmic beyond step 10), with 95 % intervals over documents. Solid, round: the group of the last step, traced back; dashed, square: the group chosen anew at each step. The lift needs no group.", "name": "fig-course"}, "image": {"alt": "Five panels over the steps of one training run, on a logarithmic axis: influence of the group, lift of the head, dimensions, modularity and squared cosine, each with 95 % intervals. Round marks and a solid line: the group of the last step, traced back. Square marks and a dashed line: the group chosen anew at each step. Compare when the lines begin to move and whether they meet."}}
fig, axes = style.panels(len(found.found), height=3.3)
for ax, name in zip(axes, found.found, strict=True):
    page.course(ax, found, name)
style.legend(fig, 2)

# %% [markdown]
# ## The numbers
#
# A cell stays empty where the number cannot be had. Traced back:

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
page.course_table(found, "traced back")

# %% [markdown]
# Chosen anew:

# %% tags=["hide-input"]
page.course_table(found, "anew")

# %% [markdown]
# ## Gradual, or at once?
#
# D1 asks how much of the final influence comes in the one step, from a checkpoint to the next, that brings
# most: neurons and step are chosen on one half of the documents, the rise is measured on the other. The second
# row says how much the weights of the same neurons have come to agree since the beginning (S1's number).

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
tables.verdict_table(entries)

# %% [markdown]
# ## What this shows, and what it does not
#
# A group that is traced back was chosen for what it is at the end, so that its influence rises is no news;
# *when* it rises is. A group chosen anew shows how strong the strongest neurons are at each step. Where
# both curves meet, the group has been found. This is one run of one small model, scored at
# {glue:text}`positions` rare positions, with fewer documents than the other pages. The same page runs on the
# checkpoints of a Pythia model: {ref}`rerun`.

# %% tags=["remove-cell"]
glue("findings", as_records(findings), display=False)
glue("replicates", as_records(replicates), display=False)
