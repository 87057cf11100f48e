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
# text. The packages of the corpus `docs` are domains with vocabularies and base rates of their own. Between two of them
# the order of the neurons by influence on rare targets has this share of the rank correlation that
# noise allows (1: the same order): {glue:text}`between_domains`. The claim, fixed before it was
# computed, is **{glue:text}`verdict`**.
#
# From further away come licences, {glue:text}`licences`, and presidents' addresses,
# {glue:text}`addresses`, each against the whole corpus.

# %% tags=["parameters", "remove-cell"]
# Filled in from raretok/measure/parameters.py when the page is run.

# %% tags=["remove-cell"]
# %config InlineBackend.print_figure_kwargs = {"bbox_inches": None}
from myst_nb import glue

from raretok.claims import style
from raretok.claims.domains import figures as page
from raretok.claims.study import Study
from raretok.ledger import tables
from raretok.ledger.claims import claims
from raretok.ledger.figures import readings
from raretok.ledger.over_models import NAMES
from raretok.ledger.records import as_records
from raretok.ledger.verdicts import judge, judged

study = Study.of(globals())
places, size = study.places(), study.group_size
findings = study.findings("domains")
entries = judged(findings)
beside = {name: other.findings("domains") for name, other in study.beside().items()}
glue("verdict", ": ".join(filter(None, (entries[0].verdict, entries[0].why))), display=False)
for name, text in page.said(places, findings, size).items():
    glue(name, text, display=False)

# %% [markdown]
# ## What there is to compare
#
# A domain counts if it has enough rare targets in enough documents; the others are in the table, and
# nowhere else. *Rare targets* is the base rate, the share of all targets that are rare. *Reliability* is
# the rank correlation of the influences between two halves of the documents: with few rare
# targets it is low, and then even one and the same order would look like two.

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
style.told(lambda: page.sides_table(places))

# %% [markdown]
# ## The order of the neurons
#
# Each entry of {numref}`fig-domain-order` is the rank correlation between one half of the documents of one
# domain and one half of another's, divided by the root of both reliabilities. What noise takes from the correlation is so
# put back; the quotient may exceed 1 where it puts back too much.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Rank correlation of the influence on rare targets over its ceiling, for every pair of domains that have enough and the two other texts. Hatched: a text with itself.", "name": "fig-domain-order"}, "image": {"alt": "Matrix of rank correlations between domains and texts, the values written in the cells"}}
fig, axes = style.panels(1, width=6.4, height=4.2)
with style.or_reason(axes[0]):
    sides = page.compared(places)
    page.heat(axes[0], sides, page.order_matrix(sides), title="rank correlation over its ceiling")

# %% [markdown]
# ## Does the group of one domain serve another?
#
# The order counts every neuron; the paper is about the first 1 %. In {numref}`fig-domain-groups` the group of
# {glue:text}`size` neurons is chosen on one half of the documents of a domain and measured on the other half of every domain, as a
# share of what the group chosen there reaches. {glue:text}`groups`

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left: mean influence on rare targets of the group chosen on one domain or text (row) in each of them (column), as a share of that of the group chosen there, on documents that neither was chosen on. Above 1 the group from outside serves better, which a group chosen on few targets makes possible. Right: share of the neurons that two groups have in common, each chosen on one half of the documents; on the diagonal two halves of one domain.", "name": "fig-domain-groups"}, "image": {"alt": "Two matrices: influence that groups reach on other domains, and neurons that groups have in common", "classes": "wide"}}
fig, axes = style.panels(2, width=5.0, height=4.2)
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
# Domains share their neurons perhaps because each was trained on. `docs-gpt2` was therefore trained once more, without mathematics
# (seed, size and number of steps as before). If neurons for rare tokens are general, mathematics
# uses those of the other domains in this model as it does in the first. The difference of the two correlations, each over its
# ceiling, between the model that never saw mathematics and the one that did, stands in {numref}`fig-domain-models` on the right.
# It is a number of `docs-gpt2` alone. Which types are rare is counted in what a model was trained on. {glue:text}`rates`

# %% tags=["hide-input"] mystnb={"figure": {"caption": "G5 in every model, with 95 % intervals over documents: black the model of this page, blue those beside it; hollow where the verdict is *not testable*, *none* where there is no number. Shaded: the regions that support (blue) and contradict (orange) the claim. Left: rank correlation over its ceiling; right: that of mathematics with the other domains in a model trained without mathematics, less that in the model trained with it.", "name": "fig-domain-models"}, "image": {"alt": "Rows of estimates with intervals over shaded regions: pairs of domains, licences, addresses for each model, and a domain never seen", "classes": "wide"}}
fig, axes = style.panels(2, width=5.4, height=4.4)
specs, own = claims()["G5"].estimands, findings[0].model
models = {NAMES.get(name, name): some for name, some in {own: findings, **beside}.items()}
for ax, shown in zip(axes, (list(specs)[:3], list(specs)[3:]), strict=True):
    spec = specs[shown[0]]
    regions = {"supports": spec.supports, "contradicts": spec.contradicts}
    page.forest(ax, models, shown, regions, lambda one: judge(one).verdict != "not testable")
    ax.set(xlabel=spec.unit)

# %% [markdown]
# ## What this shows, and what it does not
#
# A high correlation means that neurons matter for rare targets in the same order, not that they do the same there. It
# includes neurons that matter for any target. A low one has two possible reasons that it does not tell apart: that neurons serve
# one domain, and that every domain has rare tokens of its own, whatever serves them. All domains here are documentation of Python
# packages; licences and addresses are other registers of English. The intervals count documents, of which some domains have few: the gate of the claim asks for
# more rare targets than are needed to compute the number, and where it fails the number stands without a verdict.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "What was found for each estimand: marks with 95 % intervals over documents (an arrow where an interval leaves the picture; hollow where the verdict is *not testable*), on the regions that support (blue) and contradict (orange) the claim.", "name": "fig-readings-domains"}, "image": {"alt": "For each estimand of G5 a mark with its interval over shaded regions", "classes": "wide"}}
fig = readings(entries)

# %% tags=["hide-input"]
# NBVAL_CHECK_OUTPUT
tables.verdict_table(entries)

# %% tags=["hide-input"]
tables.verdict_box(entries)

# %% tags=["remove-cell"]
glue("findings", as_records(findings), display=False)
replicates = [one for some in beside.values() for one in some]
glue("replicates", as_records(replicates), display=False)
