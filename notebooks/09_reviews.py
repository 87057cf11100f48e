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
# Four expert readers reviewed the paper in public. Here are their questions, {glue:text}`n_questions` in
# all, each with an answer of one sentence and the page that gives the long one. The numbers are filled in
# from what the pages recorded when they ran: {glue:text}`n_answered` are answered, {glue:text}`n_waiting`
# wait for numbers that this model cannot give.

# %% tags=["remove-cell"]
from myst_nb import glue

from raretok.ledger import reviews
from raretok.ledger.records import pages_folder
from raretok.ledger.tables import shown

found = reviews.answers(pages_folder())
for name, text in reviews.counts(found).items():
    glue(name, text, display=False)

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
shown(reviews.answers_table(found))

# %% [markdown]
# Numbers are those of the reading `corrected` unless a sentence says otherwise, with 95 % intervals in
# parentheses. The questions are in our words, not in those of the reviewers.
