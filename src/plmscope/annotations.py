"""EC numbers: what an enzyme does, as a path of up to four numbers.

The first number is one of seven classes, each further one narrows the reaction: ``1.1.1.1`` is alcohol dehydrogenase,
``1.1`` everything that oxidises CH-OH groups, ``1`` all oxidoreductases. ``-`` means "not known further". The class of
a protein at level 1 to 4 is that many leading numbers; a number that is not known so far has no class there.

>>> ec_classes("1.1.1.1; 1.2.3.-", level=2)
('1.1', '1.2')
"""

from __future__ import annotations

from collections.abc import Mapping

from plmscope.sequences import ec_classes

__all__ = ["EC_NAMES", "ec_classes"]

#: What the seven top classes are called (IUBMB Enzyme Nomenclature).
EC_NAMES: Mapping[str, str] = {
    "1": "oxidoreductases",
    "2": "transferases",
    "3": "hydrolases",
    "4": "lyases",
    "5": "isomerases",
    "6": "ligases",
    "7": "translocases",
}
