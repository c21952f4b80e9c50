"""Work as a list of tasks, which this process, several processes or a Ray cluster can do.

A task has an id, and does not depend on the other tasks. It names a function by its module, so that any process can
find it, and plain arguments, a seed among them. What it makes is returned, or kept where the arguments say; doing it
twice gives the same. A list of tasks can therefore be stopped anywhere: what is done stays, and what was under way is
done again (:mod:`plmscope.store.resume` keeps results of tasks in a run folder).

``task`` is what a task is, ``shard`` a share of a list of them, ``engines`` does them in this process (``local``) or in
several (``processes``), ``on_ray`` on a Ray cluster; ``worker`` is the other end of a process. ``staff`` keeps workers
from one list of tasks to the next, ``sent`` is a folder that they read, and ``crew`` says who does the long parts of a
stage.
:func:`~plmscope.tasks.engines.run_tasks` is the one loop over all of them.
"""
