# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (attention)=
# # Attention of their own? Claims A1 to A4
#
# How do rare targets reach the plateau neurons? The paper answers: through ordinary attention. In the
# last two layers, attention for rare and for common targets is highly correlated (A1) and equally
# concentrated (A2); no single head moves the plateau neurons much (A3), while ablating a whole
# attention layer takes about half of their activation away (A4) {cite}`distributed2025`. Reviewers
# asked for uncertainty and for more than one diagnostic a claim.
#
# Two of these claims say that something is *absent*. So each is tested against what chance alone
# would give, with the effect that the test would have seen; and each effect on the plateau neurons is
# set beside the same effect on neurons that are like them in everything but their influence.

# %% tags=["parameters", "remove-cell"]
model = "docs-gpt2"  # shipped name, local directory or Hub id
revision = ""  # revision of a Hub model, such as step1000
corpus = "docs"  # docs, or a .txt, .jsonl or .parquet file
unigram = ""  # .npy file of token counts; empty: the model's own, else the corpus's
protocol = "corrected"  # the reading shown first; every page compares all three
rare_percentile = 15.0  # percentage of types called rare (and common)
n_ctx = 256  # tokens a context
n_positions = 1600  # scored positions in each class
group_percent = 1.0  # neurons in the plateau group, % of the layer
n_controls = 1000  # control groups of the same size
n_bootstrap = 1000  # resamples of documents for an interval
n_null = 1000  # label permutations, and draws for the power
seed = 0  # seed of every random choice
device = "cpu"  # where the model runs

# %% tags=["remove-cell"]
# %config InlineBackend.print_figure_kwargs = {"bbox_inches": None}
from myst_nb import glue

from raretok import attention_figures as draw
from raretok.book import style as figures
from raretok.book.figcheck import digest
from raretok.claims.study import Study
from raretok.ledger.verdicts import as_records, verdict_table
from raretok.sections import attention_page as page
from raretok.sections import attention_tables as tables
from raretok.sections.attention import evidence

study = Study.of(globals())
lead = study.protocol.name  # the protocol of the first figures

# %% [markdown]
# ## What was compared
#
# The released code holds nothing on A1, A2 and A4, so their definitions had to be chosen. A *query* is
# the position that attends. A query early in a text has fewer keys to choose from than a late one, and
# a text on one topic is attended to in another way than one on another. The corrected protocol
# therefore pairs each rare query with a common one at the same position, and deals the common ones out
# over the documents as the rare ones are. The other two compare whatever queries there are.

# %% tags=["hide-input"]
found = {name: study.attention(name) for name in ("code", "text", "corrected")}
untrained = {name: study.attention(name, trained=False) for name in found}
tables.queries_table(found)

# %% tags=["remove-cell"]
for name, text in page.told(found[lead], study.parameters.n_null).items():
    glue(name, text, display=False)

# %% [markdown]
# ## Where rare and common queries look
#
# {numref}`fig-profiles` shows how much attention a key gets by how far back it is, in the last two
# layers: of each layer the head in which rare and common targets differ most, and the one in which
# they differ least. The first token is set apart on the right, because many heads rest there.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Mean attention per key by distance, for rare (dashed) and common targets (solid); diamonds: the first token. The least and the most alike head of the last two layers. Where the lines lie on each other, the head attends alike to both.", "name": "fig-profiles"}, "image": {"alt": "Attention by relative offset for rare and common targets in four heads, log-log", "classes": "wide"}}
panels = page.profile_panels(found[lead])
fig, axes = figures.panels(len(panels), width=2.7, height=3.0)
for ax, panel in zip(axes, panels, strict=True):
    draw.shown(ax, draw.profile, panel)
figures.legend_below(fig, axes[0], 2)

# %% tags=["remove-cell"]
print(digest(fig))

# %% [markdown]
# How alike are the two lines? Their correlation $r$ is {glue:text}`r` in the mean over the heads of the
# last two layers, {glue:text}`r_word`. But a high $r$ says little by itself: nearly every
# head looks at the last few tokens, and even *different* heads of a layer correlate with
# {glue:text}`r_other`. The question is whether $r$ is as high as it would be if rarity did not matter.
# {numref}`fig-r` compares it with $r$ after the labels *rare* and *common* are exchanged
# {glue:text}`n_null` times within documents (mean {glue:text}`r_null`), and with the split-half
# ceiling {cite}`spearman1910`, the $r$ that two samples of this size reach if they differ by chance alone. p that
# exchanged labels give an $r$ as low: {glue:text}`r_p`.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Correlation of the rare and the common profile in every head (dots, 95 % intervals over documents), what exchanged labels give (grey), and the split-half ceiling. The claim is about the last two layers. A dot below the grey bar: the head attends differently to rare targets. Resampled documents carry their noise twice, so intervals reach too low.", "name": "fig-r"}, "image": {"alt": "Correlation of rare and common attention profiles by layer and head with null band and ceiling"}}
fig, axes = figures.panels(1, width=7.4)
draw.shown(axes[0], draw.dots, page.r_dots(found[lead]))
figures.legend_below(fig, axes[0], 3)

# %% tags=["remove-cell"]
print(digest(fig))

# %% [markdown]
# ## Is attention more concentrated?
#
# The Gini coefficient of a query's attention is 0 if all keys get the same and near 1 if one key gets
# all. It grows with the number of keys, hence the matching on position. {numref}`fig-gini` shows the
# difference between rare and common targets, with and without the first token, head by head; a rare
# target's attention is the more concentrated where a dot lies above zero. Over the heads of the last
# two layers the difference is {glue:text}`gini` (p {glue:text}`gini_p`).

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Gini coefficient of attention rows, rare less common targets, in every head: over all keys (left) and over all but the first token (right). Dots with 95 % intervals over documents; grey: exchanged labels.", "name": "fig-gini"}, "image": {"alt": "Difference in Gini coefficient by layer and head, with null band, with and without the first token", "classes": "wide"}}
fig, axes = figures.panels(2, width=4.6, share=True)
for ax, rest, title in zip(axes, (False, True), ("all keys", "no first token"), strict=True):
    draw.shown(ax, draw.dots, page.gini_dots(found[lead], rest))
    ax.set_title(title)
figures.legend_below(fig, axes[0], 2)

# %% tags=["remove-cell"]
print(digest(fig))

# %% tags=["hide-input"]
tables.layer_gini_table(found[lead])

# %% [markdown]
# Below, the same under the three protocols, with a second and a third diagnostic: $r$ of the *log* of
# the attention, in which far keys weigh as much as near ones, and the Gini without the first token.

# %% tags=["hide-input"]
tables.alike_table(found)

# %% [markdown]
# ## What a head does to the plateau neurons
#
# Attention that looks different need not *do* anything different. So each head is taken out
# {cite}`michel2019`, and the
# activations of the last MLP are read again at rare positions. A head's effect on a neuron is the mean
# absolute change of its activation, in units of the neuron's standard deviation. Heads can only act
# where a path leads from them to the last MLP: {glue:text}`paths`.
#
# Four ways of ablating: a head's output becomes its *mean*, *zero*, or that of *another position*
# (resample), each at every position but the first, so that the head is out of the network; or, as
# released, it becomes what the head would hand on if it looked at the first token only (*redirect*),
# at the query position alone. In the last layer the two scopes are the same thing: no later attention
# reads the other positions.
#
# {numref}`fig-heat` shows the effect of every head, on the group and on its controls. The strongest of
# the last two layers is head {glue:text}`head`: it moves a neuron of the group by
# {glue:text}`effect` {glue:text}`unit` on average (published: about 0.28 to 0.34, in a unit not given).

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Effect of ablating one head on the plateau group (left) and on control groups (right, mean), on one colour scale; protocol as above. One bright cell on the left that is dark on the right would be a head that feeds the plateau.", "name": "fig-heat"}, "image": {"alt": "Heat maps of the effect of each head by layer and head, for the plateau group and for control groups"}}
fig, axes = figures.panels(2, width=3.6, height=3.0)
for ax, panel in zip(axes, page.heat_maps(found[lead]), strict=True):
    image = draw.shown(ax, draw.heat, panel)
if image is not None:
    fig.colorbar(image, ax=axes, label=f"mean |change| ({tables.unit_name(found[lead])})")

# %% tags=["remove-cell"]
print(digest(fig))

# %% [markdown]
# Is the strongest head stronger than the strongest head on other neurons? {numref}`fig-largest`
# compares the largest effect on the group with the largest effect on each control group: the maximum
# is taken in both, so looking at many heads costs nothing. Under the protocol {glue:text}`lead` it is
# {glue:text}`ratio` times that of the controls (p {glue:text}`head_p`).

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Largest effect of one head of the last two layers on the plateau group (line) and on each control group (grey), in units of the controls' mean, under the three protocols. Controls lie right of the dotted line in 5 % of cases.", "name": "fig-largest"}, "image": {"alt": "Histograms of the largest head effect on control groups with the observed value, one panel a protocol", "classes": "wide"}}
fig, axes = figures.panels(3, width=3.2, height=3.0)
for ax, (name, one) in zip(axes, found.items(), strict=True):
    draw.shown(ax, figures.null_histogram, page.largest_figure(one))
    ax.set_title(name)
figures.legend_below(fig, axes[-1], 3)

# %% tags=["remove-cell"]
print(digest(fig))

# %% [markdown]
# The table has the group under every mode, and how concentrated the effect is over the heads: the
# share of the strongest head in the effects of all. *Equals on common*: control groups that are as
# influential on common targets.

# %% tags=["hide-input"]
tables.modes_table(found[lead])

# %% [markdown]
# ## What a whole layer does
#
# "-45 % to -50 % of the activation" needs a definition, because the mean activation of a GELU neuron
# may lie near zero or below. Here it is the mean *size* of the activations, over the neurons of the
# group and the rare positions: 100 (ablated / clean - 1). {numref}`fig-layers` has it for every mode
# beside the same for control groups, and the published range. In the mean over the last two layers the
# group changes by {glue:text}`change` % and the controls by {glue:text}`lost` %.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Change in the size of the plateau neurons' activations when a whole attention layer is ablated (dots), what control groups change by (grey, 95 %), and the published range (blue). A dot inside the grey bar: the layer does to the plateau what it does to any such neurons.", "name": "fig-layers"}, "image": {"alt": "Change of plateau activations by ablation mode and layer, with the band of control groups and the published range", "classes": "wide"}}
fig, axes = figures.panels(1, width=8.6)
draw.shown(axes[0], draw.dots, page.layer_dots(found[lead]))
figures.legend_below(fig, axes[0], 3)

# %% tags=["remove-cell"]
print(digest(fig))

# %% [markdown]
# What the same ablations cost in loss, in nats a token, with 95 % intervals over documents (negative:
# the loss falls):

# %% tags=["hide-input"]
tables.loss_table(found[lead], study.parameters.n_bootstrap, study.rng("head loss"))

# %% [markdown]
# ## Other groups, other protocols
#
# Does the answer hang on the size of the group (1 % of the layer above, here also 2 and 5 %), or on
# taking the neurons that help rare targets (*boost*) and not those that harm them (*suppress*)? The
# strongest head stands out from the controls {glue:text}`groups` below.

# %% tags=["hide-input"]
tables.groups_table(found[lead])

# %% [markdown]
# Between the protocols three things change. Which positions are rare: by their input token (`code`) or
# their target. How heads are ablated: the released redirect, or the mean. And what the group is set
# beside: any neurons, or, under `corrected`, neurons that vary, fire and write as it does, with the
# group chosen on one half of the documents and measured on the other. Neurons chosen for a large effect
# vary more than others, so any head moves them more; without matching, that is taken for a finding.

# %% tags=["hide-input"]
tables.protocols_table(found)

# %% [markdown]
# The released statistic itself is below: the sum of absolute changes over the group, for rare and for
# other *input* tokens. It has no test and no interval, and it grows with the size of the group and with
# the scale of its activations; its author can only call a difference large or small.

# %% tags=["hide-input"]
tables.released_table(found["code"])

# %% [markdown]
# ## Verdicts
#
# A1, A2 and A3 claim that something is absent: they fail if the effect is seen, and hold only if the
# test would have seen it (column *power*, for the effect in the last column). A4 claims a size: more
# must be taken from the plateau than from its controls, not so in an untrained network, and by as much
# as published.

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
records = [one for name in found for one in evidence(found[name], untrained[name])]
verdict_table(records)

# %% [markdown]
# A1 needs a word. The *number* is one thing: $r$ = {glue:text}`r` is {glue:text}`r_word`. The
# *conclusion* drawn from it, that rare targets are attended from in no way of their own, is another, and
# the verdict is about it: where it says *not reproduced*, $r$ is lower than exchanged labels give, so
# the heads do tell rare targets from common ones, however high $r$ is. For A3, *p* and interval answer
# different questions: p whether other neurons show the same, the interval whether other documents
# would. Where the interval reaches below 1, the head that stands out may be one of these documents.
#
# ## Limits
#
# Position and document are matched, the input token is not: rare targets follow other words than common
# ones do, and part of the difference in attention may be theirs. Attention is averaged by distance; a
# head that looks for certain words at any distance may differ more than these profiles show. One head
# is ablated at a time, so heads that stand in for each other look weak. Effects are absolute changes:
# they say that a head matters to a neuron, not in which direction.

# %% tags=["remove-cell"]
glue("verdicts", verdict_table(records), display=False)
glue("claims", as_records(records), display=False)
