# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (reviews)=
# # What its readers asked
#
# Four expert readers reviewed the paper in public. Here are their questions, {glue:text}`n_questions` in all,
# each with an answer of one sentence and the page that gives the long one. The numbers are filled in
# from what the pages recorded when they ran, and a sentence whose number is missing is not shown:
# {glue:text}`n_answered` are answered, {glue:text}`n_waiting` wait for pages that are not written, or
# for numbers this model cannot give.

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
from myst_nb import glue

from raretok.ledger import reviews
from raretok.ledger.ledger_page import shown
from raretok.ledger.records import pages_folder

found = reviews.answers(pages_folder())

# %% tags=["remove-cell"]
for name, text in reviews.counts(found).items():
    glue(name, text, display=False)

# %% [markdown]
# ## Questions and answers

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
shown(reviews.answers_table(found), "sentences")

# %% [markdown]
# Numbers are those of the protocol `corrected` unless a sentence says otherwise, with 95 % intervals in
# parentheses; what a p-value was tested against, its correction and the power stand in the
# {ref}`ledger <ledger>`. The questions are in our words, not in those of the reviewers.
