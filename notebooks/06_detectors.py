# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (detectors)=
# # Can the tests see what they look for?
#
# The other pages say "seen" or "not seen" of the plateau group. Either is worth as much as the test
# behind it: a test that always fires sees everything, one that never does sees nothing. So each
# test is run here as a *detector* in worlds whose answer is known. Reviewers also asked where the line
# runs between neurons that are *coordinated* and neurons that form a *module*; the last figure
# places the model on it. {ref}`method` explains the model and the text; this page tests no claim of
# the paper.
#
# A **planted** world is the shipped model with a random 1 % of its last MLP's neurons edited: their
# rows of $W_{out}$ *scaled* to a plateau of influence; their rows of $W_{in}$ mixed with one direction
# (*correlated*), with two or three (*clustered*) or with what *one head* writes; their weights given
# a *heavy-tailed* correlation spectrum. What comes before the last MLP is untouched by such edits, so
# activations and losses of the edited model are exact, not simulated. Only the plateau is planted in
# the untrained twin: a trained model does not gain from more of a neuron than it has, so scaling
# rarely raises influence there.
#
# **Null** worlds hold nothing to be found: an *untrained* last MLP with fresh weights in each run,
# *random groups* of the trained model, and *permuted labels*, rare and common exchanged within
# documents.

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

from raretok import worlds_figures
from raretok.book import style as figures
from raretok.book.figcheck import digest
from raretok.claims.study import Study
from raretok.sections import worlds_page as page
from raretok.sections.detection import STRENGTHS, Graded, strength_cells, table_cells

study = Study.of(globals())
measured = study.detectors

# %% tags=["remove-cell"]
cells, graded = table_cells(measured), Graded.of(measured)
for name, text in page.told(cells, graded).items():
    glue(name, text, display=False)

# %% [markdown]
# ## Detector by world
#
# Each run draws another group and another half of the documents and refers its statistic to 199
# control groups; a cell of {numref}`fig-detectors` is the share of runs with p < 0.05. Along the
# framed diagonal the planted effect (strength {glue:text}`strength` of 1) is found in at least
# {glue:text}`planted_least` % of runs. In the null worlds no detector fires in more than
# {glue:text}`null_most` % ({glue:text}`null_worst`), where 5 % are expected. Off the diagonal an effect is seen by
# more than one test, as it must be: neurons that read one direction have similar weights, and neurons
# fed by one head act together. What tells a module from mere coordination is modularity: it stays
# silent in the correlated world.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Share of runs in which a detector (column) fires in a world (row), and the number of runs. Framed: the effect it is meant to find. Top: planted worlds; middle: null worlds, where 5 % are expected; bottom: the shipped model, and its most influential neurons under permuted labels. Empty: the head of a rank curve does not depend on the group.", "name": "fig-detectors"}, "image": {"alt": "Heat map of five detectors in eleven worlds with percentages; the framed diagonal is dark, the null rows are pale"}}
fig, axes = figures.panels(1, width=7.6, height=6.4)
worlds_figures.detector_map(axes[0], **page.map_figure(cells))

# %% tags=["remove-cell"]
print(digest(fig))

# %% tags=["hide-input"]
page.promise_table(cells)

# %% tags=["hide-input"]
page.cell_table(cells)

# %% [markdown]
# ## What permuted labels show
#
# The bottom rows are a warning. Choose the most influential 1 % as the protocol does, but with the
# labels *rare* and *common* permuted: against matched neurons coordination still fires in
# {glue:text}`coordination_permuted_matched` % of runs and the spectrum in
# {glue:text}`spectra_permuted_matched` %, about as often as for the plateau group of rare targets
# ({glue:text}`coordination_own_matched` % and {glue:text}`spectra_own_matched` %). Neurons that matter at all act together
# and have similar weights; controls matched on what a neuron does, but not on how much it matters,
# do not share this. Compared with groups *chosen alike* under permuted labels, the plateau
# group fires in {glue:text}`coordination_own_alike` % and {glue:text}`spectra_own_alike` % of runs. So what
# matched controls show of the group is about influence; only the second comparison is about rarity.
#
# ## How strong must an effect be?

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Share of runs in which each detector finds the world it is meant for, as the planted effect grows from nothing to neurons that read nothing else. Dotted: 80 %.", "name": "fig-strength"}, "image": {"alt": "Five rising curves of detection against strength"}}
found = strength_cells(measured)
fig, axes = figures.panels(1, width=6.4)
worlds_figures.strength_curves(axes[0], **page.strength_figure(found, STRENGTHS))
figures.legend_below(fig, axes[0], 5)

# %% tags=["remove-cell"]
print(digest(fig))

# %% [markdown]
# ## Between one module and fully distributed
#
# In {numref}`fig-graded` every line is a graded world: random neurons dealt into one, two, three, five or
# as many modules as there are neurons, reading more and more of their module's direction. One module
# moves left only: it is coordination without modularity, since a single module has nothing to be set
# apart from. Two to five modules move left *and* up. Neurons with a direction each stay where
# unrelated neurons are. The model's group has {glue:text}`dimension` dimensions per neuron
# ({glue:text}`dimension_low` to {glue:text}`dimension_high` over halves of the documents), its
# controls {glue:text}`control_dimension`. The graded world nearest to it is {glue:text}`nearest`
# (in {glue:text}`nearest_share` % of halves).

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Dimensions per neuron against modularity. Lines: graded worlds, strength 0.25 to 1 along each line, starting near random neurons. Crosses: the plateau group of the shipped model on 30 halves of the documents; grey: its matched controls.", "name": "fig-graded"}, "image": {"alt": "Scatter of controls and the plateau group near one dimension per neuron, with lines of graded worlds fanning out to the left"}}
fig, axes = figures.panels(1, width=6.8, height=4.4)
worlds_figures.graded_map(axes[0], **page.graded_figure(graded))
figures.legend_below(fig, axes[0], 3)

# %% tags=["remove-cell"]
print(digest(fig))

# %% tags=["hide-input"]
page.graded_table(graded)

# %% [markdown]
# ## Limits
#
# The planted effects are of one make each: a test that finds them may miss others, such as modules
# that overlap. Groups have 1 % of the neurons, and runs in one model share its neurons and its text,
# so they are less independent than the intervals assume. Attention is that of the heads of the
# last two layers, each held at its mean. The plateau is planted in the twin, on a smooth curve; in
# a trained model, whose influence is noisier, it is harder to see.
