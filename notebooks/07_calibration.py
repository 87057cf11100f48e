# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (calibration)=
# # What the verdicts are worth
#
# A verdict is worth what it says where the truth is known. Here each claim is planted true and false, at
# the level of neurons, in worlds that keep the documents' noise of the shipped model, and the very
# functions of the pages, rule included, are run on them ({glue:text}`runs` worlds a size). Size 0 plants
# nothing, 1 what {ref}`claims` declares, and half and twice that stand beside it.
#
# The promise: a claim that is false is *supported* in at most 5 % of worlds (and what {glue:text}`runs`
# runs leave open), and one that is true at the declared size in at least 80 %; where the second fails,
# this design cannot support the claim, and its page says so.

# %% tags=["remove-cell"]
# %config InlineBackend.print_figure_kwargs = {"bbox_inches": None}
from myst_nb import glue

from raretok.ledger import figures, promise
from raretok.ledger.tables import shown

rows = promise.calibrated("docs-gpt2")
glue("runs", max(row["runs"] for row in rows), display=False)
for name, value in promise.worst(rows).items():
    glue(name, value, display=False)

# %% [markdown]
# {numref}`fig-calibration` has every estimand. The largest share of false support is
# {glue:text}`worst_false:.0f` % ({glue:text}`worst_claim`); this design cannot support
# {glue:text}`cannot`.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Verdicts by planted size, % of worlds. A tick marks the sizes at which the claim is true; where it is false, blue should be rare.", "name": "fig-calibration"}, "image": {"alt": "Stacked bars of verdicts for four planted sizes, one panel an estimand", "classes": "wide"}}
fig = figures.calibration_bars(rows)

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
shown(promise.promise_table(rows))

# %% [markdown]
# ## How worlds are planted
#
# - *Curves* (R0 to R3): the mean effect of each neuron is a draw from the smooth law that fits the rank
#   curve; the head is raised by a factor. Noise about the means keeps its documents and changes its sign
#   at random between them.
# - *Groups* (C1, I1, M1, A3, A4, S1): the effects of the most influential neurons go to random neurons,
#   whose activations on rare positions get a shared factor (two for modules), whose weights get a shared
#   direction, or whose reaction to a head or layer is scaled.
# - *Queries* (A1, A2): rare and common are exchanged within documents; then a share of the attention of
#   the rare ones is spread evenly, or their Gini raised.
#
# Documents are dealt anew in every world. `raretok calibrate` repeats all of it.

# %% tags=["hide-input"]
shown(promise.verdict_table(rows))

# %% [markdown]
# ## Limits
#
# Planted effects are of one make each: a test that finds them may miss others. Intervals are checked
# against the typical estimate of the same design, so they say how far a repetition would lie, not how far
# the design is from the truth. Worlds share the model's neurons and its text.
