# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (thresholds)=
# # Does it depend on what counts as rare? Claim G2
#
# The paper calls the rarest 15 % of the token types rare. It names 10 and 20 % too but reports nothing for
# them, and reviewers asked how much depends on the choice, and on leaving out the types below the elbow of
# the frequency curve. R1 asks how far the most influential 1 % of the neurons stand above one smooth curve: their
# *lift*. In {glue:text}`model` the lift with 10 % of the types rare, over the lift with 20 %, is
# {glue:text}`ratio`; near 1 the finding would not hang on the threshold.
#
# A threshold cuts a range of frequencies in two. The influence of these 1 %, the *group*, on rare targets, over
# what a straight line through the more frequent targets predicts for them, is {glue:text}`step`. Clearly above 1,
# rare tokens are a class of their own; near 1 or below, they are the end of a gradient. But the group was chosen
# for that influence. For a group chosen without it, the number is {glue:text}`by_line`.

# %% tags=["parameters", "remove-cell"]
# Filled in from raretok/measure/parameters.py when the page is run.

# %% tags=["remove-cell"]
from myst_nb import glue

from raretok.claims import style
from raretok.claims.study import Study
from raretok.claims.thresholds import estimate, gradient
from raretok.claims.thresholds import figures as page
from raretok.ledger import tables
from raretok.ledger.claims import claims
from raretok.ledger.figures import readings
from raretok.ledger.over_models import NAMES
from raretok.ledger.records import as_records
from raretok.ledger.verdicts import judged

study = Study.of(globals())
studies = style.by_name(study, NAMES)
own = next(iter(studies))
findings = study.findings("thresholds")
entries = judged(findings)
glue("model", own, display=False)
for name, one in zip(("ratio", "step", "elbow"), findings, strict=True):
    glue(name, style.cell(one.estimate, "not testable here"), display=False)

# %% tags=["hide-input"]
tables.verdict_box(entries)

# %% [markdown]
# ## Other percentages
#
# Nothing is measured anew: the same positions, in the same blocks of documents, are classed again.
# {numref}`fig-sweep` shows four numbers of the section pages for seven percentages. Positions were drawn
# with 15 % in mind: as many rare ones as common ones, and few between. Where more types are called rare,
# each of those few stands for many positions of the text, and the mean hangs on them. The column *worth*
# says how many equally weighted positions would give a mean as precise. A mark is missing where a number cannot
# be had: with few types rare, a part of the documents may have no rare position.

# %% tags=["remove-cell"]
sweeps = {name: estimate.sweep(one) for name, one in studies.items()}

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Lift on rare and on common targets, concentration, and influence of the top 1 % on documents it was not chosen on, by the percentage of types that are rare, with 95 % intervals over documents. Thick: the page's model; thin: others. Hollow: rare positions worth fewer than 200 equally weighted ones. Shaded: the regions of the named claim, supporting blue, contradicting orange.", "name": "fig-sweep"}, "image": {"alt": "Four panels against the percentage of types that count as rare: lift on rare targets, lift on common targets, concentration, and influence of the group. The model of this page is a thick line with round marks and 95 % intervals, the others are thin, each with its own mark; hollow marks rest on few positions. Regions that support a claim are blue, those that contradict it orange."}}
fig, axes = style.panels(4, height=3.6)
for ax, (name, (key, *_)) in zip(axes, page.SHOWN.items(), strict=True):
    spec = claims()[key[0]].estimands[key[1]] if key else None
    page.sweep(ax, sweeps, name, spec)
style.legend(fig, 4)

# %% [markdown]
# In numbers, for {glue:text}`model`:

# %% tags=["hide-input"]
page.cases_table(sweeps[own])

# %% [markdown]
# ## Other rules
#
# The paper's text leaves out the rare types at or below the elbow and calls all others common (`percentile
# above elbow`). Its code calls rare whatever lies above the elbow and outside the most frequent types
# (`released`), and looks at the input token instead of the target. The table has each rule with either:

# %% tags=["hide-input"]
page.cases_table(estimate.rules(study))

# %% [markdown]
# The paper leaves out the types at or below the elbow. The influence of the group on these, over that on the
# other rare targets, is {glue:text}`elbow`.
#
# ## A class of their own, or the end of a gradient?
#
# Influence may simply fall as targets get more frequent, without anything happening at a threshold. In
# {numref}`fig-frequency` the group of each model is chosen on one half of the documents, by its influence on
# rare targets, and measured on the other half at targets of every frequency. The line is fitted, by weighted
# least squares, to the targets that are *not* rare, and continued to the rare ones. If rare tokens are a
# class of their own, the influence on them lies above the line. From the bin just above the threshold to the
# one just below, it changes by {glue:text}`across` nats in {glue:text}`model`; part of that is the gradient,
# as the two bins differ in frequency.
#
# A group chosen for its influence on rare targets lies above the line even if neurons scatter about their
# lines by chance alone. A fairer group is chosen by what its lines predict for rare targets, without using
# the effects on them: its influence there is {glue:text}`by_line` times the prediction.

# %% tags=["remove-cell"]
read = style.told(lambda: gradient.read(study))
numbers = style.numbers(
    read,
    across=lambda one: gradient.gradient(*one).across,
    by_line=lambda one: gradient.unbiased_step(*one),
)
for name, text in numbers.items():
    glue(name, text, display=False)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Mean influence of the top 1 % by relative frequency of the target (bins of as many positions), with 95 % intervals over documents. Red: rare targets, left of the dashed threshold; blue: all others. Line: the one fitted to the others, with its interval; left of the threshold it is continued.", "name": "fig-frequency"}, "image": {"alt": "A panel a model: influence of the group against the relative frequency of the target on a logarithmic axis. Round marks are rare targets, left of a dashed threshold, square ones all others, with 95 % intervals; a line with a grey band is fitted to the others and continued to the left. Compare the round marks with that line."}}
fig, axes = style.panels(len(studies), height=3.5)
for ax, (name, one) in zip(axes, studies.items(), strict=True):
    with style.or_reason(ax):
        page.frequency(ax, gradient.gradient(*gradient.read(one)), name)
style.legend(fig, 2)

# %% [markdown]
# ## Neuron by neuron
#
# For {numref}`fig-slopes` a line is fitted to every neuron, over all targets. Its slope says how much the
# neuron's effect changes when the target is ten times as frequent. Of all neurons, {glue:text}`same_sign`
# have a slope of the same sign as the group has on average. The group's mean slope differs from the mean of
# all neurons by {glue:text}`distance` of their standard deviations. Are the steepest neurons a group apart,
# or the end of a continuum? That is R1's question, asked of slopes: the 1 % that fall most with frequency
# have {glue:text}`fall` times the slope that one smooth curve through the other neurons predicts (1: a
# continuum).

# %% tags=["remove-cell"]
numbers = style.numbers(
    style.told(lambda: gradient.slopes(*style.there(read))),
    same_sign=lambda one: f"{100 * one.same_sign:.0f} %",
    distance=lambda one: one.distance,
    fall=lambda one: one.lift,
)
for name, text in numbers.items():
    glue(name, text, display=False)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Every neuron: slope of its effect against the frequency of the target, and its influence on rare targets. Red: chosen into the group on most halves of the documents.", "name": "fig-slopes"}, "image": {"alt": "A panel a model: each neuron is a dot, its influence on rare targets against its slope with the frequency of the target; larger red dots are the group. Lines mark 0 on both axes. Neurons high and to the left matter more the rarer the target is."}}
fig, axes = style.panels(len(studies), height=3.5)
for ax, (name, one) in zip(axes, studies.items(), strict=True):
    with style.or_reason(ax):
        page.slopes(ax, gradient.slopes(*gradient.read(one)), name)
style.legend(fig, 2)

# %% [markdown]
# ## What this shows, and what it does not
#
# Both lifts of the first estimand come from the same documents and neurons. The interval treats the scatter
# of a sample of neurons as if the two shared none, so that it is too wide rather than too narrow. Few
# positions lie between the percentages; that is a limit of how positions were drawn, not of the text.
#
# A straight line is a weak rival. Where the influence on frequent targets is nearly 0 and begins to rise
# before the threshold, the group lies far above the line without any step at the threshold: look at
# {numref}`fig-frequency` before the ratio. Positions count as often as the text has them, so that lines and
# slopes follow the frequent targets most. In {numref}`fig-slopes` slope and influence are both computed with
# the effects on rare targets, and are related for that reason alone.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "What was found for each estimand of G2: marks with 95 % intervals over documents (an arrow where an interval leaves the picture; hollow where the verdict is *not testable*), on the regions that support (blue) and contradict (orange) the claim.", "name": "fig-readings-thresholds"}, "image": {"alt": "One row for each estimand of G2: a mark with a horizontal 95 % interval on a line shaded blue where values support the claim and orange where they contradict it, with the verdict in words at the right. Compare which region an interval lies in whole."}}
fig = readings(entries)

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
tables.verdict_table(entries)

# %% tags=["remove-cell"]
glue("findings", as_records(findings), display=False)
others = list(studies.values())[1:]
replicates = [one for other in others for one in other.findings("thresholds")]
glue("replicates", as_records(replicates), display=False)
