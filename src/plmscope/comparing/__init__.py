"""Several run folders side by side: what they agree on, and what an estimate over them may say.

One fine-tuned model on one split is a sample of one. Here a *run* is one observation: every number of a run's tables
becomes a sample over runs, with its spread and a t interval that says how many runs it rests on. Only tables are read,
never a model.

``members`` opens runs, refuses what cannot stand side by side and finds which settings differ; runs that differ in
more than the seed are told apart as *groups* and are never averaged. ``estimates`` has the interval, ``alike`` the
neurons that two runs share, ``tables`` every table, ``sections`` and ``figures`` the page, ``text`` the same as
Markdown, ``comparison`` the object that :func:`plmscope.compare_runs` returns.
"""
