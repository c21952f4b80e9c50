"""Probes: which neurons a classifier beside the model would read a class from (linguistic correlation analysis).

What a protein looks like to a probe is the mean activation of every neuron over its residues. A probe may find in it
what the network never uses: its ranking says what is *encoded*, and only keeping and ablating the neurons in the model
says what is *used*. So each ranking is a scorer beside the others (``scorers.py``):

* ``probe``: weights of a linear classifier with an elastic net (``linear_probe.py``)
* ``probeless``, ``probeless_standardised``: distances between class means (``class_means.py``)
* ``gaussian``: mutual information of a Gaussian classifier, neuron by neuron (``gaussian.py``)
* ``iou``: overlap of the proteins in which a neuron is highest with a class (``iou.py``)

``curves.py`` asks what the best, the worst and random neurons decide in a probe, beside control tasks.

Source: Dalvi et al. 2019 and NeuroX; Antverg and Belinkov 2022; Torroba Hennigen et al. 2020.
"""
