"""From a log to a model, frames and a report: cells for a notebook, or a script.

First make a log, or take your own (docs/events.md) and other dates:

    hearback simulate --out log.jsonl.gz
    python examples/quickstart.py

Editors and Jupytext open the file as a notebook, where tables and pictures show themselves.
"""

# %%
import builtins

import polars as pl

import stream as hb

show = getattr(builtins, "display", print)  # of a notebook

# %% [markdown]
# ## The log
# Files, or frames of pandas, Polars or Arrow with a row for each event.

# %%
log = hb.read("log.jsonl.gz")
show(log)

# %% [markdown]
# ## The global model
# Fitted on the first weeks, then frozen. `kind="boosted"` fits trees, which need some thousand
# applications.

# %%
UNTIL = "2024-02-01"
model = hb.train(log, until=UNTIL)
show(model)

# %% [markdown]
# ## The replay
# Every application is scored before anything of it is learned; then members and jobs learn.
# `close=True` lets all label windows pass at the end.

# %%
run = hb.replay(log, model, score_from=UNTIL, close=True)
show(run.metrics)

# %% [markdown]
# ## Frames
# Labels say what was known when: an application may have several, the last of which is final.

# %%
show(
    run.labels.group_by("kind")
    .agg(
        pl.len().alias("labels"),
        pl.col("final").sum(),
        (pl.col("label_time") - pl.col("application_time")).median().alias("median age"),
    )
    .sort("kind")
)

# %% [markdown]
# Who is sooner to be answered than the global model says: the first coefficient of each member.

# %%
members = run.coefficients.filter(pl.col("effect") == "per_member").select(
    "entity_id",
    "examples",
    pl.col("mean").list.first().alias("coefficient"),
    pl.col("variance").list.first().sqrt().alias("standard error"),
)
show(members.sort("coefficient", descending=True).head(5))

# %% [markdown]
# ## The report
# One page, to look at or to send: is it better than the global model alone, and are the
# probabilities right?

# %%
report = run.report("report.html")
show(report)

# %% [markdown]
# ## Into production
# The folder is what `hearback worker --model model` takes.

# %%
show(model.save("model"))
