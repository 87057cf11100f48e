# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (cost)=
# # Cost of ablation
#
# Every chapter asks what happens to the loss when one neuron of the last MLP is held at its mean.
# Done the usual way that is a rerun of the model's end, or of all of it, for each of thousands of
# neurons. This page sets the ways side by side on the same positions: what each costs in units of
# *one forward pass with its loss*, how far off its answers are, and where the time of the fast path
# goes.
#
# Nothing is timed when this page runs: it reads what the commands below wrote, so that it is the
# same everywhere. On your machine they write your numbers.
#
# ```bash
# .venv/bin/raretok bench --json data/bench.json
# .venv/bin/raretok bench --scaling --json data/bench_scaling.json
# ```

# %% tags=["remove-cell"]
from myst_nb import glue

from raretok.bench import cost as page
from raretok.bench import scale
from raretok.claims import style as figures

rows, fits = page.read(), page.fits()
for name, text in page.told(rows, fits).items():
    glue(name, text, display=False)

# %% [markdown]
# ## The ways
#
# - **One forward pass with its loss**, the unit: through TransformerLens or by the Hugging Face model
#   underneath, whichever is faster.
# - **The fast path** with all it needs: constants of the model, the pass that captures residuals and
#   activations, and the ablation of all neurons ({ref}`method`).
# - **AtP**, attribution patching {cite}`kramar2024`: gradient times change of activation, one forward
#   and one backward pass. It is the first order of the same effect and serves every layer at once; a
#   variant stops the backward pass at the last MLP.
# - **The closed form with every pair in full**: the sum over the whole vocabulary for each position
#   and neuron.
# - **Norm and unembedding again**, as the released code does it: the residual rebuilt for 20 neurons at
#   a time. Its entropies, divergences and frozen projection are left out, so its real cost is higher.
# - **The whole model again**, one forward pass a neuron with a TransformerLens hook.
#
# All score whole contexts, every position but the last. The last three are too slow to be run whole:
# they ran on a random subset of neurons, on some of the contexts, and their times are extrapolated;
# what does not grow with the neurons is timed apart and counted once. Every time is the best of
# interleaved repeats, so that a busy moment hits all alike. Random weights give the same shapes of
# work as trained ones; their *errors* say little, and the ones to read are those of the shipped
# model.

# %% tags=["hide-input"]
page.summary_table(rows)

# %% [markdown]
# {numref}`fig-cost` is the first ratio of this table and the rest of its kind. On the shape of
# GPT-2 small all neurons cost {glue:text}`gpt2_small_ratio_to_forward` forward passes; the released code's way
# takes {glue:text}`gpt2_small_speedup_vs_released` times as long, the hook loop {glue:text}`gpt2_small_speedup_vs_hooks`
# times.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Time to ablate every neuron of the last MLP alone, in units of one forward pass with its loss on the same positions (grey line), for trained and random weights. The lower three ways are extrapolated from a random subset of neurons.", "name": "fig-cost"}, "image": {"alt": "Dot plot on a logarithmic axis: time in forward passes of each way to ablate every neuron, one row a way, one colour and mark a model. A vertical line stands at one forward pass."}}
fig, axes = figures.panels(height=4.4)
figures.relative_times(axes[0], list(page.WAYS.values()), page.relative(rows))
figures.legend(fig, 3)

# %% tags=["hide-input"]
page.times_table(rows)

# %% [markdown]
# ## What AtP gives up
#
# AtP is what people use where exact effects are too dear. Here the fast path takes
# {glue:text}`gpt2_small_ratio_to_atp` times as long as AtP on the shape of GPT-2 small and
# {glue:text}`docs_gpt2_ratio_to_atp` times on the shipped model; against the variant that stops at the last
# MLP, {glue:text}`gpt2_small_ratio_to_atp_last_layer` and {glue:text}`docs_gpt2_ratio_to_atp_last_layer` times. The errors are of
# another order. On the shipped model, where the largest mean effect of a neuron is
# {glue:text}`docs_gpt2_largest_effect_nats` nats, AtP is off by up to {glue:text}`docs_gpt2_atp_max_error_nats` nats, the
# fast path by up to {glue:text}`docs_gpt2_max_error_nats` (float64 over the whole vocabulary;
# {glue:text}`docs_gpt2_reference`). The error of a first order is largest for the neurons that matter
# most, those that move the logits far: the head of the rank curves that {ref}`regimes` is about. What
# AtP has and the fast path has not is every other layer, for the same price.
#
# ## Where the time goes
#
# Operations at one position, from the sizes alone; what is done once for a model is spread over the
# positions. The blocks of the model and the logits are a forward pass; any exact way needs them,
# because the effect depends on the whole prediction.
# It also needs the first order: the mean direction of the prediction, as wide a product as the logits,
# and its product with the neurons' output weights. What remains is the sum of the higher orders.

# %% tags=["hide-input"]
page.work_table(rows)

# %% [markdown]
# By operations alone the floor is {glue:text}`gpt2_small_floor` forward passes on the shape of GPT-2
# small, {glue:text}`pythia_1b_floor` on that of Pythia-1b and {glue:text}`docs_gpt2_floor` on the shipped
# model: the larger the share of the unembedding in a forward pass, the higher the floor, since it is
# needed twice. Measured are {glue:text}`gpt2_small_ratio_to_forward`, {glue:text}`pythia_1b_ratio_to_forward` and
# {glue:text}`docs_gpt2_ratio_to_forward`. Capturing alone, which leaves out the logits, takes
# {glue:text}`gpt2_small_capture` of a forward pass on the shape of GPT-2 small. The distance between
# floor and measurement there, and more so on the shape of Pythia-1b, is for the larger part the
# directions of all tokens, made once and spread over few positions. On the shipped model it is the
# higher orders: a tiny model has as many neurons for a vocabulary as a large one, but next to no
# blocks, and its effects are large, so that many pairs need many tokens. That is the price for a model
# whose neurons do something; random weights, of which no neuron does much, show the least it can be.
#
# ## Scaling
#
# {numref}`fig-scaling` times the fast path, without the capture, on heads of random weights
# ({glue:text}`base`; one size changes at a time). Fitted exponents: {glue:text}`exponent_positions` in
# the positions, {glue:text}`exponent_neurons` in the neurons, {glue:text}`exponent_vocabulary` in the
# vocabulary (± standard error, from the scatter about the line). An exponent below 1 says that part of
# the work does not depend on that size.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Time of the fast path against one size at a time, the others held, with power laws fitted by least squares in log-log.", "name": "fig-scaling"}, "image": {"alt": "Three log-log panels: seconds of the fast path against the number of positions, of neurons and of tokens in the vocabulary, measured dots along a fitted straight line. The slope, the exponent, heads each panel."}}
fig, axes = figures.panels(3, 3, height=3.6)
for ax, fit in zip(axes, fits, strict=True):
    drawn = (fit.size, fit.seconds, fit.line)
    title = f"exponent {fit.exponent:.2f}"
    figures.power_law(ax, *drawn, xlabel=page.AXES[fit.axis], title=title)
figures.legend(fig, 2)

# %% [markdown]
# ## At scale, on paper
#
# What would the whole study cost for a model that matters? Nothing was run for this: operations are
# counted from the sizes of public models and priced at what one H100 can do. Scored are
# {glue:text}`scale_positions` positions, in contexts of {glue:text}`scale_context` tokens. The study has
# three parts:
#
# - *last MLP*: a forward pass over all contexts, for activations and their means, and the exact effect
#   of every neuron of the last MLP by the fast path;
# - *screen*: the first-order effect of the neurons of all layers at once, by another forward pass and
#   one backward pass for each class of tokens, rare and common;
# - *exact ablation* of {glue:text}`scale_neurons` neurons of each earlier layer, on
#   {glue:text}`scale_exact` % of the contexts, the share of the shipped measurements: for each neuron the
#   blocks after its layer run again.
#
# The hours (h) are those of one card. *Cards* is the least number of {glue:text}`scale_gpu` GB cards that
# holds the weights (bfloat16), the activations that a backward pass needs, and what the last MLP needs:
# the unembedding, the directions of all tokens and a block of logits. *Store* is the exact effects and
# activations on disk, in as many bytes a pair of position and neuron as the files of SmolLM2 take.
#
# As on SmolLM2, a context holds {glue:text}`scale_per_context` scored positions, and a pair of position
# and neuron takes as many tokens. The passes run in bfloat16 at {glue:text}`scale_use` % of the card's
# peak, about what training of the largest of these models reached
# [on this card](https://arxiv.org/abs/2407.21783). The fast path is counted in float32 and taken to reach
# the same share.

# %% tags=["remove-cell"]
measured = scale.measured()
study, checked = scale.table(measured), scale.checks()
parts = study.filter(like="(h)").drop(columns="in all (h)")
hours = parts.set_index((1e9 * study["parameters (1e9)"]).rename("parameters"))
for name, text in scale.told(measured, study, checked).items():
    glue(name, text, display=False)

# %% tags=["hide-input"]
study.map(scale.few).rename_axis("model")

# %% [markdown]
# For the largest model all parts together take {glue:text}`scale_hours` hours of one card, and
# {glue:text}`scale_cards` cards to hold it. These hours are of {glue:text}`scale_positions` positions and
# every layer; the table of {ref}`rerun` is of the book's own {glue:text}`scale_book` positions, of the last
# MLP alone and of all that the chapters read. {numref}`fig-scale` shows how each part grows: the exact
# ablation with the square of the number of layers, and in proportion to the neurons and contexts that it is
# asked for, which are a choice: it tells how well the screen ranks. The last MLP grows with the vocabulary,
# too.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Hours of one H100 for each part of the study, counted, not timed: one mark a model.", "name": "fig-scale"}, "image": {"alt": "Log-log: hours of one H100 against the parameters of a model, one line for each of three parts of the study."}}
fig, axes = figures.panels(height=4.0)
hours.plot(ax=axes[0], loglog=True, style=["o-", "s-", "^-"], color=figures.PALETTE)
_ = axes[0].set(ylabel="hours of one H100")

# %% [markdown]
# How far to trust it: the same counts, priced at the rates at which the CPU ran the tiny shipped
# model, predict {glue:text}`scale_low` to {glue:text}`scale_high` times what other models took. AtP stands
# for the screen and "whole model again" for the exact ablation, itself extrapolated from a subset; the
# parts of SmolLM2's measurement were timed whole, with all that they write.

# %% tags=["hide-input"]
checked.map(scale.few).rename_axis(["model", "run"])

# %% [markdown]
# That checks the counting. It does not check the card: how much of its peak a run with hooks reaches, the
# time that cards wait for each other, or whether effects of single neurons survive a pass in bfloat16. In
# float32 without tensor cores the passes would take {glue:text}`scale_slower` times as long. Nor does it
# check that a large model needs no more tokens a pair than SmolLM2. Read the hours as orders of magnitude.

# %% [markdown]
# ## Limits
#
# Times belong to the machine, the number of threads and the versions that the table names; ratios
# carry over better than seconds. The memory is the most that the process held above the loaded model while
# the fast path ran on all positions at once; `raretok ablate` cuts them into blocks to fit a budget.
# The last MLP alone has this shortcut: nothing but the final norm and the unembedding follows it. In
# earlier layers every neuron's push travels through the blocks that come after.
