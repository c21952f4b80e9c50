"""One study in many variants: a folder with one run for every combination of seed, model and settings.

``combinations`` makes the combinations and checks all of them before anything starts. ``sweep`` runs them as tasks
(:mod:`plmscope.tasks`), and compares those that are finished (:mod:`plmscope.comparing`).
"""
