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
# Take the weights of the plateau neurons, one row a neuron, correlate the rows, and look at the
# eigenvalues of the correlation matrix. The paper finds them heavy-tailed, with a Hill tail index
# {cite}`hill1975` below 2, and reads this as a sign of what training did to these neurons
# {cite}`distributed2025`. That reading comes from random-matrix studies of whole layers, with hundreds of
# eigenvalues {cite}`martin2021`. A plateau group has ten to fifty.
#
# Reviewers asked for uncertainty, for a second diagnostic beside each claim, and for similarity in
# weight space as a second look at coordination. This page asks: is the tail of the group heavier than that
# of *other neurons like them*, and than that of *pure noise*? What can be seen at all with so few neurons?
# Is the layer as a whole heavy-tailed, and is the group part of that?
#
# ## What is computed
#
# A row of $W_\text{in}$ is what a neuron reads, a row of $W_\text{out}$ what it writes, both in the raw
# basis of the residual stream (no norm folded in, nothing centred). Rows $x_i$ are centred and scaled
# over their $d$ entries; $C = X X^\top / d$ has the eigenvalues
# $\lambda_1 \ge \lambda_2 \ge \dots$ and
#
# ```{math}
# :label: eq-hill
# \hat\alpha_k = \Big(\frac1k \sum_{i=1}^{k} \ln\frac{\lambda_i}{\lambda_{k+1}}\Big)^{-1} .
# ```
#
# {eq}`eq-hill` is the exponent of the *survival* function, $P(\lambda > t) \sim t^{-\alpha}$. The exponent of the
# *density* is $\alpha + 1$; the usual rule for layers, "heavy-tailed below 2", is about that one, and about
# half of a whole layer's eigenvalues, so it does not carry over to {eq}`eq-hill`. Rows of pure noise end at
# $\lambda_\pm = (1 \pm \sqrt{n/d})^2$ for $n$ neurons with $d$ entries each {cite}`marchenko1967`.

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
import numpy as np
from myst_nb import glue

from raretok import spectra_figures
from raretok.book import style as figures
from raretok.book.figcheck import digest
from raretok.claims.study import Study
from raretok.ledger.verdicts import as_records, p_text, verdict_table
from raretok.sections import spectra_page as page
from raretok.sections import spectra_tables as tables
from raretok.sections.labels import label_controlled
from raretok.sections.spectra import evidence as spectra_evidence

study = Study.of(globals())
lead = study.protocol.name  # the protocol of the first figures

# %% tags=["remove-cell"]
found = {name: study.spectra(name) for name in ("code", "text", "corrected")}
untrained = {name: study.spectra(name, trained=False) for name in found}
rng = study.rng("spectra page")
trained_layers, twin_layers = (page.layer_spectra(x[lead], rng=rng) for x in (found, untrained))
parts = {name: page.contributions(one, trained_layers) for name, one in found.items()}
layers = page.Layers(trained_layers, twin_layers, parts)

# %% tags=["remove-cell"]
for name, text in page.told(found, untrained, lead, layers, rng=rng).items():
    glue(name, text, display=False)

# %% [markdown]
# ## The eigenvalues of the group
#
# {numref}`fig-group` shows the {glue:text}`size` eigenvalues of the plateau group in what its neurons
# read, in what they write, and in both side by side. The grey band holds 95 % of the
# {glue:text}`kind`, the hatched one 95 % of groups of Gaussian rows. Look at the left end: an eigenvalue over the
# dotted edge means that rows share a direction. All trained neurons do so to some degree; the question
# is whether the group leaves the grey band.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Eigenvalues of the correlation matrix of the plateau group's weights (mean over the two halves in protocol corrected), with 95 % bands of control groups and of Gaussian rows of the same shape. Dotted: upper edge of noise from the true aspect ratio n/d.", "name": "fig-group"}, "image": {"alt": "Eigenvalues by rank of the plateau group in three panels, W_in, W_out and both, over bands of control groups and Gaussian rows", "classes": "wide"}}
fig, axes = figures.panels(3, width=3.2, height=3.4, share=True)
for ax, matrix in zip(axes, ("W_in", "W_out", "both"), strict=True):
    spectra_figures.group_eigenvalues(ax, **page.eigenvalue_figure(found[lead], matrix))
    ax.set_title(matrix)
figures.legend_below(fig, axes[0], 4)

# %% tags=["remove-cell"]
print(digest(fig))

# %% [markdown]
# The table adds what is not a tail index: the second diagnostics. The mean squared cosine
# of two rows is what the squared eigenvalues hold beyond those of unrelated rows, so this is also the
# similarity in weight space that was asked for.

# %% tags=["hide-input"]
tables.statistics_table(found[lead])

# %% [markdown]
# ## The tail index, and how much of the spectrum it is taken from
#
# A tail index depends on where the tail begins. {numref}`fig-hill` shows it for every $k$. In the protocol
# {glue:text}`lead` ({glue:text}`matrix`, $k$ = {glue:text}`tail`) it is
# {glue:text}`index` ({glue:text}`low` to {glue:text}`high`, over neurons); the {glue:text}`kind` have a
# median of {glue:text}`controls` (p {glue:text}`p_controls`), Gaussian rows one of {glue:text}`noise` (p
# {glue:text}`p_noise`), the same group in the untrained network {glue:text}`untrained_index` (p
# {glue:text}`untrained_p`). The suppress part has {glue:text}`suppress_index` (p
# {glue:text}`suppress_p_controls` against its controls).
#
# A power law would make the curve run level, but no curve of nine points can show that it does. And a low
# index says that rows are correlated, not how. One direction shared by all {glue:text}`size` rows, with the
# group's largest eigenvalue and Gaussian noise otherwise, gives an index of {glue:text}`one_low` to
# {glue:text}`one_high` in 95 % of draws; the group lies {glue:text}`one_finding` that range.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Hill plot: tail index by the number of eigenvalues it is estimated from, under the three protocols, with 95 % bands of control groups and Gaussian rows. Square: the k each protocol uses. Dotted: the published bound of 2. Lower is heavier.", "name": "fig-hill"}, "image": {"alt": "Hill tail index against k in three panels, one a protocol, over bands of control groups and Gaussian rows", "classes": "wide"}}
fig, axes = figures.panels(3, width=3.2, height=3.6, share=True)
for ax, (name, one) in zip(axes, found.items(), strict=True):
    spectra_figures.hill_plot(ax, **page.hill_figure(one))
    ax.set_title(f"{name}: {one.matrix}")
figures.legend_below(fig, axes[0], 3)

# %% tags=["remove-cell"]
print(digest(fig))

# %% [markdown]
# ## What ten neurons can show
#
# The released code takes a tenth of the eigenvalues: of a group of {glue:text}`size` neurons that is
# {glue:text}`code_tail`, of its groups of 30 to 50 it is 3 to 5. The relative standard error of
# {eq}`eq-hill` is about $1/\sqrt k$ for independent values, here {glue:text}`code_error` %. The table measures
# it. Eigenvalues repel each other, so the estimate is steadier than the formula says. Still, with
# $k = 1$, the ratio of the first two eigenvalues, half the controls' index would be seen with a power of
# {glue:text}`power_first` only; with $k$ = {glue:text}`tail` it is {glue:text}`power_tail`. At the other end
# ($k = n - 1$) everything hangs on the smallest eigenvalue.

# %% tags=["hide-input"]
tables.tails_table(found[lead])

# %% [markdown]
# Does the answer hang on the size of the group?

# %% tags=["hide-input"]
others = {f"{x} %": study.folds(lead, size=study.percentage(x)) for x in (2, 5)}
tables.sizes_table(found[lead], others, rng=rng)

# %% [markdown]
# ## The same under three protocols
#
# `code` repeats the released computation: $W_\text{in}$ of a Pythia model but $W_\text{out}$ of a GPT-2
# one (here {glue:text}`code_matrix`), a tenth of the eigenvalues, groups chosen by mean
# $|\Delta\ell|$ on the positions it ranks. It reports ratios and no test. Its distance to the noise law puts
# $n/n$ in place of $d/n$; the lower edge is then 0, the density there 0/0, and the result
# {glue:text}`code_distance` for every input, which also decides the "phase" it prints. So its index is
# referred here to random groups and to Gaussian rows. `text` takes both matrices and half of the eigenvalues, as is
# usual for layers, with random controls; `corrected` chooses the group by signed means on half of the documents, and
# its controls are matched. Random controls have a median index of {glue:text}`controls_text` under
# `text`, matched ones of {glue:text}`controls_corrected` under `corrected`: what separates the two is the
# part of the effect that any neuron of such activation and norm would show. A second control, *equally
# influential*, are neurons that matter to common targets as much as the group does to rare ones; under
# {glue:text}`lead` they have a median of {glue:text}`equals` (p {glue:text}`p_equals`).

# %% tags=["hide-input"]
tables.protocols_table(found)

# %% [markdown]
# One more comparison of the released code is between the boost and suppress neurons *together* and a control
# group of the single size. A union has twice the eigenvalues and twice the $k$. In a fair comparison of
# neurons that have nothing in common, either would have the lower index in 50 % of draws:

# %% tags=["hide-input"]
tables.union_table(found["code"], rng=rng)

# %% [markdown]
# ## Is the layer heavy-tailed at all?
#
# With all neurons of the layer the question can be asked properly. There are more neurons than entries, so the spectrum
# is that of the squared singular values. {numref}`fig-layer` shows the trained and the untrained layer over the
# law of noise. Untrained, {glue:text}`untrained_beyond_W_in` ($W_\text{in}$) and
# {glue:text}`untrained_beyond_W_out` ($W_\text{out}$) eigenvalues lie beyond the edge; trained,
# {glue:text}`beyond_W_in` of {glue:text}`rank_W_in` (the first at {glue:text}`first_W_in`) and
# {glue:text}`beyond_W_out` of {glue:text}`rank_W_out` ({glue:text}`first_W_out`). The largest tenth has a tail
# index of {glue:text}`layer_index_W_in` and {glue:text}`layer_index_W_out`, untrained
# {glue:text}`untrained_layer_index_W_in` and {glue:text}`untrained_layer_index_W_out`. What training did to the
# spectrum, it did to the whole layer.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Density of the non-zero eigenvalues of the whole layer, log-log: trained (black), untrained (grey), and the Marchenko-Pastur law of noise (dashed).", "name": "fig-layer"}, "image": {"alt": "Log-log density of the eigenvalues of W_in and W_out of the whole layer, trained and untrained, with the law of noise"}}
fig, axes = figures.panels(2, share=True)
for ax, matrix in zip(axes, ("W_in", "W_out"), strict=True):
    one, twin = trained_layers[matrix], twin_layers[matrix]
    spectra_figures.layer_density(ax, **page.layer_figure(one, twin))
    ax.set_title(matrix)
figures.legend_below(fig, axes[0], 3)

# %% tags=["remove-cell"]
print(digest(fig))

# %% tags=["hide-input"]
tables.layers_table(trained_layers, twin_layers, rng=rng)

# %% [markdown]
# ## Does the group make the layer's tail?
#
# {numref}`fig-share` asks how much of the group's weights lies in the layer's leading directions. In those
# beyond noise lie {glue:text}`share_W_in` % of what the group reads (controls
# {glue:text}`share_controls_W_in` %, p {glue:text}`share_p_W_in`) and {glue:text}`share_W_out` % of what
# it writes (controls {glue:text}`share_controls_W_out` %, p {glue:text}`share_p_W_out`). Leaving the
# group out changes the layer's tail index by {glue:text}`left_out_W_in` % and
# {glue:text}`left_out_W_out` % (p {glue:text}`left_out_p_W_in` and {glue:text}`left_out_p_W_out`).

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Share of the plateau group's weight variance in the first directions of the layer, with the 95 % band of control groups, protocol as above. Right of the dotted line directions are within noise.", "name": "fig-share"}, "image": {"alt": "Cumulative share of the group's weight variance over the leading directions of the layer, W_in and W_out, with a band of control groups"}}
fig, axes = figures.panels(2, share=True)
for ax, (matrix, one) in zip(axes, parts[lead].items(), strict=True):
    shown = page.share_figure(found[lead], trained_layers[matrix], one)
    spectra_figures.direction_share(ax, **shown)
    ax.set_title(matrix)
figures.legend_below(fig, axes[0], 3)

# %% tags=["remove-cell"]
print(digest(fig))

# %% tags=["hide-input"]
tables.contributions_table(parts)

# %% [markdown]
# ## Similarity in weight space
#
# The sign of the similarity does not enter a spectrum. The mean cosine of centred rows, within the boost part
# and between boost and suppress part, says whether neurons point the same way.

# %% tags=["hide-input"]
tables.cosines_table(found)

# %% [markdown]
# ## Verdict
#
# The claim holds under a protocol if the group's tail index is below that of its control groups *and*
# below that of Gaussian rows (*p* is the larger of the two), if the untrained network does not pass
# the same test, and if the index is below the published 2 (else it is weaker). *power* is the chance of seeing half the
# controls' index; the interval is over neurons, each left out in turn.
#
# A second null world stands beside the untrained network: rare and common labels exchanged within documents, groups
# chosen again under them and tested in the same way. Their median p is {glue:text}`exchanged_p` under the protocol
# {glue:text}`lead`. Where it is below 0.05, any group of influential neurons passes, rare or not.

# %% tags=["remove-cell"]
exchanged = {name: study.tail_when_exchanged(name) for name in found}
glue("exchanged_p", p_text(float(np.median(exchanged[lead]))), display=False)

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
runs = {name: study.effects(name).attrs["measurement"] for name in found}
pairs = {name: (found[name], untrained[name], runs[name]) for name in found}
evidence = [
    one
    for name, pair in pairs.items()
    for one in label_controlled(spectra_evidence(*pair), {"S1": exchanged[name]})
]
verdict_table(evidence)

# %% [markdown]
# ## Limits
#
# Ten eigenvalues carry no power law, here or elsewhere: what is tested is whether the rows are correlated more than
# those of other neurons. Influential neurons are chosen *through* what they write, so that rows of $W_\text{out}$ which
# point in directions that matter to the loss may be alike for that reason; controls are matched on norm and activation, not on
# direction. A bootstrap over neurons is impossible (a neuron drawn twice correlates with itself), so intervals come from leaving
# neurons out, which is cautious {cite}`efron1981`. The two halves of the documents choose groups that overlap; each is compared
# with single control groups, so the second half adds no confidence.

# %% tags=["remove-cell"]
glue("verdicts", verdict_table(evidence), display=False)
glue("claims", as_records(evidence), display=False)
