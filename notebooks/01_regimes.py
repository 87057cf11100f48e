# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (regimes)=
# # Three regimes? Claims R1, R2, R3 and O1
#
# Ablate each neuron of the final MLP alone, average the change of the loss over rare targets, and
# sort. In this rank curve the paper sees three regimes: a *plateau* of about 1 % of the neurons, a
# power-law decay and a rapid decay. For common targets it sees no plateau {cite}`distributed2025`.
# Its reviewers asked how the boundaries were set, and whether common targets have a plateau too. (In
# the released code the sizes of the plateau, 0.47 to 0.68 % of the neurons, were entered by hand.)
#
# Here nothing is set by hand. This page asks whether a group of neurons stands apart from *one
# smooth curve*, for rare and for common targets alike, and whether a network that learned nothing
# shows the same. {ref}`method` explains the ablation, the three protocols, the model and the text.

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

from raretok import overlap_figures
from raretok.book import style as figures
from raretok.book.figcheck import digest
from raretok.claims.study import Study
from raretok.ledger.verdicts import as_records, verdict_table
from raretok.sections import interventions, overlap_page
from raretok.sections import regimes_page as page
from raretok.sections.together import together_table

study = Study.of(globals())
lead = study.protocol.name  # the protocol of the first figures

# %% [markdown]
# ## What was run
#
# One row a protocol: how many positions were scored, from how many documents, and the audit. The
# audit recomputes random pairs of position and neuron in double precision through the model's real
# modules; its largest error shows the size of what rounding does to the curves below.

# %% tags=["hide-input"]
found = {name: study.regimes(name) for name in ("code", "text", "corrected")}
untrained = {name: study.regimes(name, trained=False) for name in found}
study.run_table()

# %% tags=["remove-cell"]
for name, text in page.told(found[lead], untrained[lead], study.parameters.n_null).items():
    glue(name, text, display=False)

# %% [markdown]
# ## The curves
#
# {numref}`fig-curves` shows influence by rank for {glue:text}`n_rare` rare and {glue:text}`n_common`
# common targets. In the corrected protocol each neuron is ranked on one half of the documents and
# measured on the other, so that the head is not lifted by the noise it was selected for. The positive
# single-neuron effects add up to
# {glue:text}`more` times as many nats on rare targets as on common ones. The first neuron alone is
# worth {glue:text}`first_rare` nats of rare loss, the second {glue:text}`second_rare`; on common
# targets {glue:text}`first_common` and {glue:text}`second_common`. The two classes share
# {glue:text}`overlap` % of their top 1 % of neurons, where chance gives {glue:text}`chance` %. What
# the paper claims, though, is about the *shape*.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Influence by rank, trained (left) and untrained (right) model, equal axes. Dots: means in bins of ranks, each neuron ranked on some documents and measured on others (protocol corrected; the other two sort what they measured); bands: 95 % intervals over documents. Where a mean is not positive, no dot is drawn: there the order of the neurons does not carry over to other documents.", "name": "fig-curves"}, "image": {"alt": "Log-log rank curves of rare and common targets, for the trained and the untrained model"}}
fig, axes = figures.panels(2, share=True)
for ax, shown, title in zip(axes, (found, untrained), ("trained", "untrained"), strict=True):
    for kind, one in shown[lead]:
        figures.rank_curve(ax, one.curve.rank, one.curve.value, label=f"{kind} targets", kind=kind)
        figures.band(ax, one.curve.rank, one.curve.low, one.curve.high, kind=kind)
    ax.set_title(f"{title}, protocol {lead}")
axes[0].set_ylim(bottom=max(axes[0].get_ylim()[0], 1e-6))
figures.legend_below(fig, axes[0], 2)

# %% tags=["remove-cell"]
print(digest(fig))
glue("front", fig, display=False)

# %% [markdown]
# ## One, two or three regimes
#
# Three straight pieces always fit a rank curve better than two: sorted values are dependent, and any
# smooth law bends in log-log. Fit criteria that ignore this find "three regimes" in nearly every
# sample of a pure power law. So each added piece is tested against samples of the simpler curve,
# refitted in the same way, and three pieces also against one *smooth* curve. {numref}`fig-fits`
# shows both; the table says what each step gains and how often the simpler curve gains as much by
# chance.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Sorted influence (positive part, protocol as above) with the best three straight pieces (solid) and the best smooth curve (dotted). Vertical lines: the breaks between the pieces.", "name": "fig-fits"}, "image": {"alt": "Rank curves of rare and common targets with the three-piece and the smooth fit"}}
fig, axes = figures.panels(2, share=True)
for ax, (kind, one) in zip(axes, found[lead], strict=True):
    figures.fitted_regimes(ax, **vars(page.drawn_fits(one)), kind=kind)
figures.legend_below(fig, axes[0], 3)

# %% tags=["remove-cell"]
print(digest(fig))

# %% tags=["hide-input"]
page.pieces_table(found[lead])

# %% [markdown]
# ## Is the head set apart?
#
# "Plateau" can mean two things, and both are tested: a *flat* head, whose values level off below the
# curve that is continued from the rest, and an *excess* head, parted from the rest by a gap. The
# statistic scans groups of 0.3 to 3 % of the neurons with a positive effect for either, on normalised spacings of the
# sorted values {cite}`renyi1953`; its null is a smooth curve fitted to the rest of this one.
# {numref}`fig-heads` shows that null and where the observed curves fall: {glue:text}`rare_head`;
# {glue:text}`common_head`; in the untrained network, {glue:text}`untrained_head`. A group smaller
# than 0.3 % is below the scan: single neurons that stand out are named above, and are no plateau.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "How far the head stands apart from a smooth curve: the null distribution (grey) and the observed values, protocol as above. A smooth curve falls right of the dotted line in 5 % of cases.", "name": "fig-heads"}, "image": {"alt": "Histogram of the head statistic under smooth curves with the observed values of rare, common and untrained"}}
fig, axes = figures.panels(1, width=6.4)
figures.null_histogram(axes[0], **page.head_figure(found[lead], untrained[lead]))
figures.legend_below(fig, axes[0], 3)

# %% tags=["remove-cell"]
print(digest(fig))

# %% tags=["hide-input"]
page.heads_table({**found, f"{lead}, untrained": untrained[lead]})

# %% [markdown]
# Does the head test keep its promise? On samples of smooth laws (1,024 values each) it should fire
# in 5 % of cases, and find heads planted in the top 1 %: set to a common value, tripled, or blurred.
# The second column gives the detector of the released code on the same laws. Below the first six rows
# stand laws outside the family the test assumes: a bounded law *is* flat at its head, and mixtures of
# two scales are found more often than 5 %, so a head that is found may also be a mixture.

# %% tags=["hide-input"]
page.calibration(study.rng("calibration"))

# %% [markdown]
# ## Rare against common
#
# If rarity did not matter, the labels *rare* and *common* could be exchanged among the positions of
# a document. {numref}`fig-labels` does this {glue:text}`n_null` times and compares how much of all
# positive influence the top 1 % of neurons hold: {glue:text}`share_rare` % for rare and
# {glue:text}`share_common` % for common targets under the protocol {glue:text}`lead` (p
# {glue:text}`share_p`).

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Share of the top 1 % of neurons in all positive influence, rare less common, under permuted labels (grey) and observed, in each protocol.", "name": "fig-labels"}, "image": {"alt": "Permutation null of the difference in top share with the observed difference, three panels", "classes": "wide"}}
fig, axes = figures.panels(3, width=3.2, height=3.0)
for ax, (name, one) in zip(axes, found.items(), strict=True):
    figures.null_histogram(ax, **page.share_figure(one))
    ax.set_title(name)
figures.legend_below(fig, axes[0], 2)

# %% tags=["remove-cell"]
print(digest(fig))

# %% [markdown]
# ## Do rare and common targets share their top neurons?
#
# If plateau neurons are *rare-token* neurons, they are not simply the neurons that matter for
# everything. Reviewers asked how far the two classes share their top neurons, and what the top rare
# neuron does to common targets. {numref}`fig-ranks` sets each neuron's two ranks side by side: neurons
# that matter to both lie in the lower left corner.

# %% tags=["remove-cell"]
shared = {name: study.overlap(name) for name in found}
shared_untrained = {name: study.overlap(name, trained=False) for name in found}
for name, text in overlap_page.told(shared[lead]).items():
    glue(name, text, display=False)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Rank of each neuron's influence on rare and on common targets, protocol as above, trained and untrained. Squares: among the first for both.", "name": "fig-ranks"}, "image": {"alt": "Log-log scatter of rank on rare against rank on common targets, trained and untrained, with the top neurons marked"}}
fig, axes = figures.panels(2, share=True)
for ax, of, title in zip(axes, (shared, shared_untrained), ("trained", "untrained"), strict=True):
    overlap_figures.rank_scatter(ax, **overlap_page.scatter_figure(of[lead]))
    ax.set_title(f"{title}, protocol {lead}")
figures.legend_below(fig, axes[0], 4)

# %% tags=["remove-cell"]
print(digest(fig))

# %% [markdown]
# The share has two sides. Rankings that have nothing to do with each other would share
# {glue:text}`o_chance` % of their first {glue:text}`o_k`. If labels did not matter (exchanged within
# documents, as above), the two classes would share {glue:text}`o_labels` %. They do share
# {glue:text}`o_share` % ({glue:text}`o_low` to {glue:text}`o_high`): {glue:text}`o_more` chance (p
# {glue:text}`o_chance_p`) and {glue:text}`o_fewer` exchanged labels (p {glue:text}`o_labels_p`).
# On all documents together the two lists of {glue:text}`o_k` have {glue:text}`o_both` in common.
#
# A ranking can share with another only what it keeps itself. Between two halves of the documents rare
# targets keep {glue:text}`o_within_rare` % of their first {glue:text}`o_k` neurons, common ones
# {glue:text}`o_within_common` %. The dashed line in {numref}`fig-overlap` is the geometric mean of the two,
# here {glue:text}`o_ceiling` %: across halves no two classes can be expected to share more. (`code` and `text`
# rank both classes on the same documents, whose peculiarities are then shared as well; there the line is a
# guide, not a bound.) Protocols that rank by $|\Delta\ell|$ count a neuron that
# merely varies as influential on either class; compare the panels.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Share of the first k neurons that rare and common targets have in common (red), with exchanged labels (grey, 95 %), what each class shares with itself between two halves of the documents (dashed, geometric mean), and chance (dotted). Protocol corrected compares rare targets of one half of the documents with common targets of the other.", "name": "fig-overlap"}, "image": {"alt": "Share of the first k neurons against k in three panels, one a protocol, with permutation band, ceiling and chance", "classes": "wide"}}
fig, axes = figures.panels(3, width=3.2, height=3.4, share=True)
for ax, (name, one) in zip(axes, shared.items(), strict=True):
    overlap_figures.shared_tops(ax, **overlap_page.tops_figure(one))
    ax.set_title(name)
figures.legend_below(fig, axes[0], 3)

# %% tags=["remove-cell"]
print(digest(fig))

# %% tags=["hide-input"]
overlap_page.overlap_table(shared, shared_untrained)

# %% [markdown]
# The top rare neuron (number {glue:text}`o_neuron`) is worth {glue:text}`o_first_rare` nats of rare loss
# and {glue:text}`o_first_common` nats of common loss ({glue:text}`o_first_low` to
# {glue:text}`o_first_high`), where its rank is {glue:text}`o_first_rank` of {glue:text}`o_n`. Of the
# first {glue:text}`o_k`, {glue:text}`o_hurt` do harm to common targets: ablating them lowers the common
# loss. Together the plateau neurons carry {glue:text}`o_carried` % of all positive influence on common
# targets, their controls {glue:text}`o_carried_controls` % (p {glue:text}`o_carried_p`). Over all
# neurons the two influences have a rank correlation of {glue:text}`o_spearman`.

# %% tags=["hide-input"]
overlap_page.top_table(shared[lead])

# %% [markdown]
# ## Does it matter what is put in the neuron's place?
#
# Reviewers asked why a neuron is set to its mean. {numref}`fig-modes` repeats the curves with zero and
# with the activation of another position of the same class in its place, and for mean ablation with
# the scale of the final norm held (`direct`: entropy neurons act through that scale and drop out). A
# head is set apart in {glue:text}`i_heads` of these curves; the ranking on rare targets agrees with
# that of mean ablation to a rank correlation of at least {glue:text}`i_least`.

# %% tags=["remove-cell"]
replaced = study.interventions("corrected")
for name, text in interventions.intervention_words(replaced).items():
    glue(name, text, display=False)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Influence by rank under four interventions (positive part, sorted, protocol corrected): rare targets left, common targets right, equal axes.", "name": "fig-modes"}, "image": {"alt": "Log-log rank curves under mean, zero, resample and direct ablation for rare and common targets"}}
fig, axes = figures.panels(2, share=True)
for ax, kind in zip(axes, ("rare", "common"), strict=True):
    figures.overlaid_curves(ax, {name: kinds[kind].curve for name, kinds in replaced.items()})
    ax.set_title(f"{kind} targets")
axes[0].set_ylim(bottom=1e-6)
figures.legend_below(fig, axes[0], 4)

# %% tags=["remove-cell"]
print(digest(fig))

# %% tags=["hide-input"]
interventions.intervention_table(replaced)

# %% [markdown]
# ## All at once
#
# One neuron at a time hides redundancy: neurons that back each other up matter little alone and much
# together. {numref}`fig-together` ablates the whole group of the top 1 % at once, and control groups
# matched to it. Above the dotted line a group does more than its neurons one by one; on rare targets
# the group does {glue:text}`j_ratio` times their sum, the controls {glue:text}`j_controls` times.

# %% tags=["remove-cell"]
at_once = {"rare targets": study.together(lead), "common targets": study.together(lead, kind=2)}
glue("j_ratio", f"{at_once['rare targets'].ratio:.2f}", display=False)
glue("j_controls", f"{at_once['rare targets'].ratio_of_controls:.2f}", display=False)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The top 1 % of neurons ablated at once against the sum of their single effects, on rare and on common targets; grey: control groups on rare targets. Above the dotted line neurons back each other up, below it they saturate.", "name": "fig-together"}, "image": {"alt": "Scatter of joint against summed effects of groups with the line of equality"}}
fig, axes = figures.panels(1, width=6.4)
figures.joint_scatter(
    axes[0],
    at_once["rare targets"].summed_null,
    at_once["rare targets"].joint_null,
    {name: (one.summed, one.joint) for name, one in at_once.items()},
)
figures.legend_below(fig, axes[0], 4)

# %% tags=["remove-cell"]
print(digest(fig))

# %% tags=["hide-input"]
together_table(at_once)

# %% [markdown]
# ## The same under three protocols
#
# {numref}`fig-protocols` puts the three readings side by side. Means of $|\Delta\ell|$, which the
# released code and the text rank by, are bounded below by noise: a neuron that only jitters still
# has a large one.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Influence by rank under the three protocols: mean of $|\\Delta\\ell|$ (`code`: helping neurons only; `text`: all), and signed, cross-fitted means (`corrected`). Bands: 95 % intervals over documents.", "name": "fig-protocols"}, "image": {"alt": "Rank curves of rare and common targets in three panels, one a protocol", "classes": "wide"}}
fig, axes = figures.panels(3, width=3.2, height=3.2, share=True)
for ax, (name, both) in zip(axes, found.items(), strict=True):
    for kind, one in both:
        figures.rank_curve(ax, one.curve.rank, one.curve.value, label=f"{kind} targets", kind=kind)
        figures.band(ax, one.curve.rank, one.curve.low, one.curve.high, kind=kind)
    ax.set_title(name)
axes[0].set_ylim(bottom=max(axes[0].get_ylim()[0], 1e-6))
figures.legend_below(fig, axes[0], 2)

# %% tags=["remove-cell"]
print(digest(fig))

# %% [markdown]
# ## Verdicts
#
# A verdict follows by rule. A claimed effect must beat its null, must be absent from the untrained
# network (else it is an artefact of the method) and must have the published size (else it is
# weaker). An effect that is not seen counts as absent only if the design would have seen a clean one,
# the top 1 % tripled or set to their mean, in 80 % of cases (the column *power*); else the claim is
# not testable here.

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
evidence = study.verdicts(found, untrained)
verdict_table(evidence)

# %% [markdown]
# *ours* is how high the top 1 % of the neurons lie over the curve continued from the rest (R1; 1 is
# no plateau of either kind) and the size of the group that stands out most at the head (R2, R3), with
# 95 % intervals over documents; *p* tests the head against one smooth curve. For R1 all parts must
# show: a head set apart, three pieces better than any smooth curve, and a last piece steeper than the
# middle one. For O1 *ours* is the share of the top neurons that both classes have, and *p* tests it
# against chance: the claim is that they share none beyond it, so one shared neuron can be enough to
# contradict it, and *ours* says how much is shared. The power counts how far the rankings can be
# repeated.
#
# ## Limits
#
# One neuron is ablated at a time, so what redundant neurons do together does not show. The test asks
# for a group that is *set apart*; a head that is merely steeper than the rest, as heavy-tailed laws
# have, is not counted as a plateau ("top 1 % over the smooth curve" shows how much higher it lies).
# Blurred heads are found less often, as the table of planted heads says. Intervals of a curve's shape
# come from resampled documents, which carry the sampling noise twice: they blur what they measure. And the verdicts are about this model and this text: {ref}`rerun` has the command for others.

# %% tags=["remove-cell"]
glue("verdicts", verdict_table(evidence), display=False)
glue("claims", as_records(evidence), display=False)
