"""How knowledge is laid out in a model: how few neurons suffice, what is there twice, what is shared, what is apart.

::

    measure.py      what every part measures with: log-odds when chosen neurons are held
    attributions.py what every neuron adds to one protein's decision, and how active it is in it
    sufficient.py   the smallest set that gives back most of what the model does
    components.py   a class's neurons in groups that do one thing
    degenerate.py   pairs of groups of which either is enough
    substitutions.py  whether such a pair protects from exchanged residues
    recall.py       whether wrong decisions are failures to recall
    claims.py       whether a set's attributions tell true from false claims
    context.py      what annotated sites add to it
    shared.py       neurons that a class has in every group of proteins, or in one alone
    pruning.py      whether a class can be cut out
    experts.py      feed-forward neurons that read alike, and the classes that they hold

Every part is a function that is given arrays and a measure. ``study/laying_*.py`` run the parts that the setting
``[layout] parts`` names.
"""
