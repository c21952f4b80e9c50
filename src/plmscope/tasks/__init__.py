"""Work as a list of tasks: independent, seeded, idempotent, each with an id, done by whatever engine there is.

A task names a function by its module, so that any process can find it, and plain arguments. What it makes is returned,
or kept where the arguments say; doing it twice gives the same. So a list of tasks can be cut anywhere: what is done
stays, what was under way is done again.

``task`` is what a task is, ``engines`` does them in this process (``local``) or in several (``processes``),
``on_ray`` on a Ray cluster, ``worker`` is the other end of a process. :func:`~plmscope.tasks.engines.run_tasks` is the
one loop over all of them.
"""
