# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (claims)=
# # What is claimed, and what would decide it
#
# Each claim of the paper {cite}`distributed2025` is read as a number, with a region of values that
# support it and one that contradicts it. Both were written down, with a reason for each bound, before
# these numbers were computed: `data/claims.yaml`, whose history and list of changes is the
# pre-registration. It is one for other models; of `docs-gpt2` an earlier analysis had been seen when the
# bounds were chosen, and of SmolLM2 a summary when the changes below were made. The verdict follows from the 95 % interval alone:
#
# - **supported**: the whole interval lies in the region that supports the claim;
# - **contradicted**: all of it lies in the region that contradicts it;
# - **not testable**: a gate failed; a gate is a number, such as how well the order of the neurons repeats;
# - **inconclusive**: anything else. An interval that is too wide says so by itself.
#
# Presence and absence obey the same rule: to say that there is nothing, the interval must be narrow and
# close to nothing. No p-value decides. *Reproduced* is a word for many models ({ref}`replication`): it is
# read off where the next training run is expected, by the same regions.

# %% tags=["remove-cell"]
from raretok.ledger import tables

# %% [markdown]
# ## The paper's sentences

# %% tags=["hide-input"]
tables.sentences_table()

# %% [markdown]
# ## The numbers and their regions

# %% tags=["hide-input"]
tables.claims_table()

# %% [markdown]
# *Reported only*: the published quantity where it does not transfer to another model, or a number that
# reviewers asked for. Intervals are over documents: blocks of documents are left out in turn, and the
# choice of neurons is repeated without them. Where a group of neurons is compared with control groups,
# the interval also counts how much control groups scatter. The coverage of intervals is measured for the
# reading `corrected` of models with a calibration of their own; elsewhere that gate is left out. For D1 and
# G1 to G5, which joined later, no worlds were planted, so the coverage of their intervals is not known.

# %% [markdown]
# ## What was changed since

# %% tags=["hide-input"]
tables.changes_table()
