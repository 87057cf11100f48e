# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (attention)=
# # Ordinary attention? Claims A1 to A4
#
# Rare tokens, the paper says, use the attention that everything uses: attention for rare and common
# targets is highly correlated (A1) and as concentrated (A2); no single head moves the plateau neurons
# much (A3), a whole layer takes about half of their activation away (A4) {cite}`distributed2025`. In
# models with parallel blocks, every Pythia among them, the heads of the last layer cannot reach the last
# MLP at all; only layers that can are tested.
#
# $$A1 = \frac{r(\text{rare}, \text{common})}{\sqrt{r(\text{rare}, \text{rare}')\; r(\text{common}, \text{common}')}}$$
#
# is the correlation of mean attention by distance, over what two halves of the documents leave of either
# profile: with few queries even one class does not agree with itself.

# %% tags=["parameters", "remove-cell"]
# Filled in from raretok/measure/parameters.py when the page is run.

# %% tags=["remove-cell"]
from myst_nb import glue

from raretok.claims import style
from raretok.claims.attention import figures as page
from raretok.claims.study import HEAD_MODES, Study
from raretok.ledger import tables
from raretok.ledger.claims import claims
from raretok.ledger.figures import readings
from raretok.ledger.records import as_records
from raretok.ledger.verdicts import judged

study = Study.of(globals())
findings = study.findings("attention")
entries = judged(findings)
queries = style.told(lambda: len(study.rows("corrected").queries))
glue("n_queries", queries, display=False)
glue("layers", ", ".join(map(str, study.layers)) or "none", display=False)
glue("tested", len(study.layers), display=False)
glue("n_layers", study.architecture.n_layers, display=False)

# %% [markdown]
# ## Where rare and common queries look
#
# {numref}`fig-profiles` shows mean attention per key of {glue:text}`n_queries` queries, rare ones matched
# with common ones on position and document. The first token takes what is left over (an attention sink)
# and makes any two profiles alike, so A1 and A2 are given without it too.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Attention per key by distance, mean over the heads of each of the last two layers, position taken out. Diamonds: the first token of the context.", "name": "fig-profiles"}, "image": {"alt": "Two log-log panels, one for each of the last two layers: mean attention per key against how many tokens back the key is, a solid line for common targets and a dashed one for rare targets. Diamonds at the right edge show the first token. Compare whether the two lines run together."}}
fig, axes = style.panels(2, height=4.0, share=True)
with style.or_reason(axes[0]):
    of = study.rows("corrected"), study.queries("corrected")
    page.profiles(axes, *of, True)
style.legend(fig, 2)

# %% [markdown]
# The claim speaks of the last two layers. {numref}`fig-by-layer` has every layer, each with and without
# the first token.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "A1 (top) and A2 (bottom) in every layer, mean over its heads, with 95 % intervals; the shaded layers are those of the claim. Blue: supports; orange: contradicts.", "name": "fig-by-layer"}, "image": {"alt": "Two panels over all layers. Top: correlation of attention profiles of rare and common targets over its ceiling. Bottom: difference in Gini. Each layer has one mark with all attention and one with the first token removed, both with 95 % intervals, over regions shaded blue (supports) and orange (contradicts); the layers of the claim are shaded grey."}}
fig, axes = style.panels(2, 1, height=3.2)
for ax, key in zip(axes, (("A1", "correlation"), ("A2", "Gini")), strict=True):
    with style.or_reason(ax):
        of = study.rows("corrected"), study.queries("corrected")
        page.by_layer(ax, *of, True, key[0], claims()[key[0]].estimands[key[1]])
style.legend(fig, 2)

# %% [markdown]
# ## What a head does to the group
#
# A head is ablated by holding its output at its mean; its effect is the mean size of the change of the
# group's activations, in standard deviations ({numref}`fig-heads`). The head with the largest effect is
# chosen on the documents that the group was chosen on, and measured on the others, so that the largest of
# many is not large by selection. Layers tested: {glue:text}`layers`.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Change of the plateau group's activations by each head of the last two layers, over the range of its control groups. Band: published values for the largest.", "name": "fig-heads"}, "image": {"alt": "For every head of the last two layers, the change of the plateau group's activation when the head is ablated, as a dot, and a grey bar from the 2.5 % to the 97.5 % point of its control groups. A purple band shows the values published for the largest head. Compare the dots with the bars, and the highest dot with the band."}}
fig, axes = style.panels(height=4.0)
published = claims()["A3"].estimands["largest"].published
with style.or_reason(axes[0]):
    sample = study.sample("corrected", heads=True)
    page.heads(axes[0], sample, study.heads("corrected"), study.layers, published=published)
style.legend(fig, 3)

# %% [markdown]
# Mean ablation was fixed in advance as what the verdict reads. The table has the other ways: zero, the
# head's output at a random other position, and at the first position of the context (as released).

# %% tags=["hide-input"]
heads = {mode: lambda mode=mode: study.heads("corrected", mode) for mode in HEAD_MODES["stratified"]}
sample = study.shown("corrected")
style.told(lambda: page.modes_table(sample, {m: of() for m, of in heads.items()}, study.layers))

# %% [markdown]
# ## What this shows, and what it does not
#
# A2 is an equivalence: its interval must lie close to nothing on both sides. A3 is absolute, and
# beside it against the median head, since the largest of many heads grows with their number. A4 is the
# change of the mean size of the activations; a mean with its sign may lie near 0, where a percentage
# means nothing. It sets {glue:text}`tested` of {glue:text}`n_layers` attention layers to their mean: in a deep
# network one layer is a small part of what reaches the last MLP, and little change says so. Profiles over distance do not see *what* is attended to, only how far back.

# %% [markdown]
# ## The three readings
#
# The same estimands under what the released code does (`code`), what the text says (`text`) and the
# corrected design ({ref}`method`). {ref}`claims` has the regions and gates, and when they were
# fixed.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "What was found for each estimand: marks with 95 % intervals over documents (round: the corrected reading; square and triangle: the text's and the code's; an arrow where an interval leaves the picture; hollow where the verdict is *not testable*), on the regions that support (blue) and contradict (orange) the claim. Grey bar under a mark: where 95 % of control groups lie. Purple bar below: published values.", "name": "fig-readings-attention"}, "image": {"alt": "One row for each estimand of A1 to A4: up to three marks, one a reading (corrected, text, code), each with a horizontal 95 % interval, on a line shaded blue where values support the claim and orange where they contradict it. The verdict of each reading stands at the right. Compare which region an interval lies in whole."}}
fig = readings(entries)

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
tables.verdict_table(entries)

# %% tags=["hide-input"]
tables.verdict_box(entries)

# %% tags=["remove-cell"]
glue("findings", as_records(findings), display=False)
