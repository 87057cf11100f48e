# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (ledger)=
# # The ledger
#
# Every page of this book ends by recording what it found on its claims. This page only reads those
# records: {glue:text}`n_claims` of the paper {cite}`distributed2025` under three readings, from
# {glue:text}`n_pages` run on the model {glue:text}`model`, with one correction for all
# {glue:text}`n_tests` together. {glue:text}`missing` {glue:text}`unequal`
#
# Each line asks the same of a claim: what would there be without the effect (the *null*), how often
# would the design have seen an effect worth the name (the *power*), and does a network that learned
# nothing show it as well? The answer is a verdict that follows by rule.

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

from raretok.book import style as figures
from raretok.book.figcheck import digest
from raretok.ledger import ledger_page as page
from raretok.ledger.ledger_figures import verdict_matrix
from raretok.ledger.records import book_ledger, pages_folder
from raretok.ledger.verdicts import rule_table

entries = book_ledger(pages_folder())

# %% tags=["remove-cell"]
for name, text in page.told(entries, pages_folder()).items():
    glue(name, text, display=False)

# %% [markdown]
# {numref}`fig-matrix` is the whole of it: read a row to see whether a claim holds under every reading of
# the paper, a column to see what one reading makes of the claims.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Claims of the paper (rows) under three readings (columns): what the released code does, what the text says, a corrected design. Dark blue: the claim holds; light blue: in part; orange: it does not; pale orange: a world without the effect shows the same; grey: this design cannot tell.", "name": "fig-matrix"}, "image": {"alt": "Matrix of verdicts, one row a claim and one column a protocol, each cell with its verdict in words", "classes": "wide"}}
fig, axes = figures.panels(1, width=6.4, height=4.8)
verdict_matrix(axes[0], **page.matrix(entries))

# %% tags=["remove-cell"]
print(digest(fig))
glue("matrix", fig, display=False)

# %% [markdown]
# ## How to read a verdict
#
# An effect is *seen* where its p-value, adjusted for all tests of the book, is below 0.05. Seeing
# nothing is a finding only where something would have been seen. The cases are tried from the top,
# and the first that applies gives the verdict; the table is made from the rules in
# `raretok/ledger.py` that gave it.

# %% tags=["hide-input"]
page.shown(rule_table(), "sentences")

# %% [markdown]
# *Weaker* says that there is an effect, but not the published one: its size differs, upwards or
# downwards, or its interval over documents reaches no effect although its null is excluded. A claim
# that something is absent is refuted by any effect that is seen, however small; its interval says
# how small. The test in a null world (the untrained network, or labels exchanged) is a guard and is not adjusted, since that would make
# it more lenient. Power is the chance of p < 0.05, before any correction, for the effect that matters,
# which the next table names.

# %% tags=["hide-input"]
page.shown(page.claims_table(), "sentences")

# %% [markdown]
# ## Claim by claim
#
# Ours with a 95 % interval beside the published value, its p-value before and after the correction,
# the power for the effect that matters, and the smallest effect that 80 % of runs would have seen, in
# the unit of the claim. The links lead to the figure or the page that shows it. The same lines with the
# null of each test are in {download}`ledger.json`.

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
page.shown(page.ledger_table(entries))

# %% [markdown]
# What is not testable here, and why:

# %% tags=["hide-input"]
page.shown(page.untestable_table(entries), "sentences")

# %% [markdown]
# ## What the correction changes
#
# Of {glue:text}`n_tests` one in twenty would fall below 0.05 if there were nothing to see anywhere.
# {glue:text}`n_before` do before the correction {cite}`benjamini1995`, {glue:text}`n_after` after it; it
# changes {glue:text}`n_changed` of the pages. A test that is below the level only
# before it counts neither as seen nor as absent: a correction that guards against false effects must
# not prove that there are none.

# %% tags=["hide-input"]
page.shown(page.correction_table(entries))

# %% [markdown]
# ## What the reading changes
#
# The three protocols differ in which positions count as rare, in how influence is measured and in what the
# group is compared with ({ref}`method`). On {glue:text}`n_split` of {glue:text}`n_claims` the
# verdict hangs on the reading.

# %% tags=["hide-input"]
page.shown(page.protocol_table(entries))

# %% [markdown]
# Where they part, this is the case that decided under each:

# %% tags=["hide-input"]
page.shown(page.split_table(entries), "sentences")

# %% [markdown]
# ## Limits
#
# {glue:text}`n_powered` of {glue:text}`n_tests` have a power of at least 80 %; for the others a
# verdict can only be that an effect is seen. The three readings share a model, a text and many
# positions, so they are no independent repetitions of each other. The correction is proven for tests
# that are independent or depend on each other positively {cite}`benjamini2001`; so do the readings of
# one claim, while nobody knows it of different claims. Each claim has one test here and more than one
# look on its page: a reader who doubts a verdict should go there first.
