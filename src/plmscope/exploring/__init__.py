"""A page on which a run is explored: its neurons searched, a protein explained, residues and neurons changed.

::

    requests.py      what a page may ask, checked and bounded; sequences are data
    catalogue.py     the neurons of a run by module, layer, class, concept and motif
    changes.py       a decision while neurons are at zero, at their means, or doubled
    session.py       a run that is loaded once, and the answers about it
    line.py          one answer at a time, a few waiting, the quick ones first
    server.py        who may ask: this machine, its own page, with the token; and how it stops

``plmscope explore RUN`` starts it. Nothing is written, and no request leaves the machine.
"""
