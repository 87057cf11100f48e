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
# How often would a verdict be wrong? To find out, data were simulated in which the truth is known. A *world*
# is one simulated data set; an effect is *planted* when we put it in. Each claim is planted true and false, at
# the level of neurons, in worlds that keep the documents' noise of `docs-gpt2`, and the very functions of
# the pages, rule included, are run on them ({glue:text}`fewest` to {glue:text}`runs` worlds a size). Size 0
# plants nothing, 1 what was declared beforehand, and half and twice that stand beside it.
#
# The goal: a false claim is *supported* in at most 5 % of worlds, as far as {glue:text}`runs` of them can
# show, and a true one, at the declared size, in at least 80 %. Where the second fails, this design *cannot
# support* the claim: it finds it too rarely, and that it is not found says little. If it is supported all the
# same, that counts. All of this was measured on `docs-gpt2`; intervals of another model may be narrower
# or wider.

# %% tags=["remove-cell"]
from myst_nb import glue

from raretok.ledger import figures, promise
from raretok.ledger.tables import shown

rows = promise.calibrated("docs-gpt2")
glue("runs", max(row["runs"] for row in rows), display=False)
glue("fewest", min(row["runs"] for row in rows), display=False)
glue("worst", 100 * promise.worst(rows), display=False)

# %% [markdown]
# {numref}`fig-calibration` has every estimand. The largest share of worlds in which a false claim is
# supported is {glue:text}`worst:.1f` %; the table says which claims this design can support.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Verdicts by planted size, % of worlds. A tick marks sizes at which the claim is true, a cross those at which it is false, where blue should be rare; what lies between is neither.", "name": "fig-calibration"}, "image": {"alt": "One panel an estimand, each with a bar for every planted size. A bar is divided into the share of worlds in which the verdict was supported (blue), contradicted (orange), inconclusive (grey) and not testable (pale). A tick marks sizes at which the claim is true, where blue should fill the bar, a cross those at which it is false, where blue should be rare."}}
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
# - *Groups* (C1, I1, M1, A3, A4, S1): every neuron gets the effects of a random one; the activations of
#   those with the largest then follow a shared factor in part on rare positions (two for modules), their
#   weights a shared direction, or their reaction to a head or layer is scaled.
# - *Queries* (A1, A2): rare and common are exchanged within documents; then a share of the attention of
#   the rare ones goes to far keys as it went to near ones, or their Gini is raised.
#
# For groups and queries the documents of each world are drawn with replacement, a copy counting as a
# document of its own; under modularity a copy may stand on both sides of a split, which blurs.
# `data/calibration/docs-gpt2.json` has the counts of every size, with reasons; `raretok calibrate` repeats
# all of it.

# %% [markdown]
# ## Limits
#
# Planted effects are of one make each: a test that finds them may miss others. Intervals are checked
# against the typical estimate of the same design: they say how far a repetition would lie. How far that is
# from what was planted is in the table (*typical estimate*): a group that is chosen from noisy effects is
# not quite the one that was planted, which pulls estimates towards nothing. Worlds share the model's
# neurons and its text.
