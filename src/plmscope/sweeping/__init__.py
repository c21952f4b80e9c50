"""One study in many variants: a folder of runs, one a combination of seed, model and settings.

``combinations`` makes and checks them before anything starts, ``sweep`` runs them as tasks
(:mod:`plmscope.tasks`) and compares what is finished (:mod:`plmscope.comparing`).
"""
