# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# (domains)=
# # The same neurons in every domain? Claim G5
#
# Reviewers asked whether rare-token neurons serve rare tokens in general, or the rare words of one kind of
# text. The packages of the corpus `docs` are such kinds: domains with a vocabulary of their own. Two domains
# rank the neurons alike, by influence on rare targets, if the rank correlation between them is as high as
# between two halves of one domain. The first as a share of the second, averaged over the pairs of domains,
# is {glue:text}`between`. Near 1 the order is the same in all of them, near 0 each has its own.
#
# Two texts from further away are compared with the whole corpus in the same way. For licences the share is
# {glue:text}`licences`, for presidents' addresses {glue:text}`addresses`.

# %% tags=["parameters", "remove-cell"]
# Filled in from raretok/measure/parameters.py when the page is run.

# %% tags=["remove-cell"]
from operator import itemgetter

from myst_nb import glue

from raretok.claims import style
from raretok.claims.domains import figures as page
from raretok.claims.study import SEEN, Study
from raretok.ledger import tables
from raretok.ledger.figures import model_rows, readings
from raretok.ledger.over_models import NAMES
from raretok.ledger.records import as_records
from raretok.ledger.verdicts import judged

study = Study.of(globals())
places, size = study.places(), study.group_size
studies = style.by_name(study, NAMES)
models = {name: judged(one.findings("domains")) for name, one in studies.items()}
own, *others = studies
findings, entries = study.findings("domains"), models[own]
glue("size", size, display=False)
for name, one in zip(("between", "licences", "addresses"), findings, strict=False):
    glue(name, style.cell(one.estimate, "not testable here"), display=False)

# %% tags=["hide-input"]
tables.verdict_box(entries)

# %% [markdown]
# ## What there is to compare
#
# A domain is used if it has enough rare targets in enough documents; the others appear in this table only.
# *Rare targets* is the share of all targets that are rare. *Reliability* is the rank correlation of the
# neurons' influence between two halves of the documents. With few rare targets it is low, and then even the
# same order would look like two different ones.

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
style.told(lambda: page.sides_table(places))

# %% [markdown]
# ## The order of the neurons
#
# Each entry of {numref}`fig-domain-order` is the rank correlation between one half of the documents of one
# domain and one half of another's, divided by the root of the product of both reliabilities. The division
# makes up for what noise takes from the correlation; where it makes up for too much, the result exceeds 1.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Rank correlation of the influence on rare targets over its ceiling, for every pair of domains that have enough and the two other texts. Hatched: a text with itself.", "name": "fig-domain-order"}, "image": {"alt": "Square matrix of domains and texts against themselves. Each cell holds, as a number and as a shade of blue, the rank correlation of the neurons' influence in the two over its ceiling; the diagonal is hatched. Darker cells are texts for which neurons matter in the same order."}}
fig, axes = style.panels(height=5.0)
with style.or_reason(axes[0]):
    sides = page.compared(places)
    page.heat(axes[0], sides, page.order_matrix(sides), title="rank correlation over its ceiling")

# %% [markdown]
# ## Does the group of one domain serve another?
#
# The order counts every neuron; the paper is about the top 1 %. For {numref}`fig-domain-groups` a group of
# {glue:text}`size` neurons is chosen on one half of the documents of a domain. Its influence is measured on
# the other half of every domain, as a share of the influence of the group that was chosen there.
#
# Neurons in the group of at least one domain: {glue:text}`in_any` (of {glue:text}`n_domains` domains); in the groups
# of all of them: {glue:text}`in_all`; in one group only: {glue:text}`in_one`. Part of the difference is noise: groups
# chosen on two halves of one domain have {glue:text}`within` in common, on halves of two domains
# {glue:text}`across`.

# %% tags=["remove-cell"]
common = style.told(lambda: page.in_common(places, size))
names = ("in_any", "n_domains", "in_all", "in_one", "within", "across")
for name, text in style.numbers(common, **{name: itemgetter(name) for name in names}).items():
    glue(name, text, display=False)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Top: mean influence on rare targets of the group chosen on one domain or text (row) in each of them (column), as a share of that of the group chosen there, on documents that neither was chosen on. Above 1 the group from outside serves better, which a group chosen on few targets makes possible. Bottom: share of the neurons that two groups have in common, each chosen on one half of the documents; on the diagonal two halves of one domain.", "name": "fig-domain-groups"}, "image": {"alt": "Two matrices of domains and texts, numbers in cells shaded blue. Top: influence that the group chosen on the row's text reaches on the column's, as a share of what that one's own group reaches. Bottom: share of neurons that the groups of both texts have in common. Compare the diagonal with the cells beside it."}}
fig, axes = style.panels(2, 1, height=5.0)
chosen = {"ylabel": "group chosen on"}
with style.or_reason(axes[0]):
    reached = page.transfer(page.compared(places), size)
    page.heat(axes[0], sides, reached, title="influence", xlabel="measured on", **chosen)
with style.or_reason(axes[1]):
    common = page.overlap(page.compared(places), size)
    page.heat(axes[1], sides, common, title="neurons in common", xlabel="group chosen on", **chosen)

# %% [markdown]
# ## A domain that was never seen
#
# Domains may share their neurons because the model was trained on each of them. `docs-gpt2` was therefore
# trained once more without mathematics (seed, size and number of steps as before). If neurons for rare
# tokens are general, mathematics should share its neurons with the other domains in this model as it does in
# the first. The last panel of {numref}`fig-domain-models` has the difference: the correlation of mathematics
# with the other domains, over its ceiling, in the model that never saw mathematics, less the same in the
# model that did. It is a number of `docs-gpt2` alone. Which types are rare is counted in what each model was
# trained on: of the targets in mathematics {glue:text}`never` are rare for the model that never saw it,
# {glue:text}`seen` for the other.

# %% tags=["remove-cell"]
rates = style.told(lambda: [side.base_rate for side in Study.shipped(SEEN).places().models[::2]])
numbers = style.numbers(
    rates, never=lambda one: f"{100 * one[0]:.1f} %", seen=lambda one: f"{100 * one[1]:.1f} %"
)
for name, text in numbers.items():
    glue(name, text, display=False)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The estimands of G5 in every model, with 95 % intervals over documents (an arrow where an interval leaves the picture): black the model of this page, blue the others; hollow where the verdict is *not testable*. Shaded: the regions that support (blue) and contradict (orange) the claim. First three panels: rank correlation over its ceiling, between domains and from the whole corpus to the two other texts. Last panel: that of mathematics with the other domains in a model trained without mathematics, less that in the model trained with it.", "name": "fig-domain-models"}, "image": {"alt": "Four panels, one an estimand, with a row for each model: marks with horizontal 95 % intervals. The first three have the rank correlation over its ceiling between domains, to licences and to addresses; the last one a domain that the model never saw. Regions that support the claim are shaded blue, those that contradict it orange."}}
fig, axes = style.panels(len(entries), height=2.8)
for ax, of in zip(axes, zip(*models.values(), strict=True), strict=True):
    model_rows(ax, of[0].spec, dict(zip(models, of, strict=True)), [own])
    ax.set_title(of[0].finding.estimand, loc="left")

# %% [markdown]
# ## What this shows, and what it does not
#
# A high correlation means that neurons matter for rare targets in the same order, not that they do the same
# thing there; neurons that matter for any target are counted too. A low one may mean that neurons serve one
# domain, or that domains differ in their rare tokens, whatever neurons serve them; it does not tell which.
# All domains of `docs` are documentation of Python packages; licences and addresses are other kinds of English.
# The intervals count documents, and some domains have few. The gate of the claim asks for more rare targets
# than are needed to compute the number; where the gate fails, the number is given without a verdict.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "What was found for each estimand: marks with 95 % intervals over documents (an arrow where an interval leaves the picture; hollow where the verdict is *not testable*), on the regions that support (blue) and contradict (orange) the claim.", "name": "fig-readings-domains"}, "image": {"alt": "One row for each estimand of G5: a mark with a horizontal 95 % interval on a line shaded blue where values support the claim and orange where they contradict it, with the verdict in words at the right. Compare which region an interval lies in whole."}}
fig = readings(entries)

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
tables.verdict_table(entries)

# %% tags=["remove-cell"]
glue("findings", as_records(findings), display=False)
replicates = [one for other in others for one in studies[other].findings("domains")]
glue("replicates", as_records(replicates), display=False)
