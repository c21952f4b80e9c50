"""How UniProt writes things: FASTA headers, flat-file entries, feature cells, names of features.

One table, :data:`FEATURES`, says what a kind of residue feature is called in a flat file (``ACT_SITE``), as a field of
the REST service (``ft_act_site``) and as a column of its TSV or a type of its GFF3 (``Active site``). Positions count
from 1 and include both ends, as in every file.

>>> [feature[:3] for feature in parse_feature_cell('ACT_SITE 52; /note="Proton acceptor"; DISULFID 3..9')]
[('ACT_SITE', 52, 52), ('DISULFID', 3, 3), ('DISULFID', 9, 9)]
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from Bio import SwissProt

from plmscope.errors import InputError, shown


class Feature(NamedTuple):
    """A stretch of residues with a meaning; ``reason`` says why its place cannot be used, if so."""

    type: str
    start: int
    end: int
    description: str = ""
    reason: str = ""


class Entry(NamedTuple):
    """What a flat file says about one protein."""

    accession: str
    sequence: str
    columns: dict[str, str]
    features: tuple[Feature, ...]


#: Key in flat files, field of the REST service, column of TSV and type of GFF3.
FEATURES: tuple[tuple[str, str, str], ...] = (
    ("ACT_SITE", "ft_act_site", "Active site"),
    ("BINDING", "ft_binding", "Binding site"),
    ("SITE", "ft_site", "Site"),
    ("MOD_RES", "ft_mod_res", "Modified residue"),
    ("DISULFID", "ft_disulfid", "Disulfide bond"),
    ("CROSSLNK", "ft_crosslnk", "Cross-link"),
    ("CARBOHYD", "ft_carbohyd", "Glycosylation"),
    ("LIPID", "ft_lipid", "Lipidation"),
    ("SIGNAL", "ft_signal", "Signal peptide"),
    ("TRANSIT", "ft_transit", "Transit peptide"),
    ("PROPEP", "ft_propep", "Propeptide"),
    ("CHAIN", "ft_chain", "Chain"),
    ("PEPTIDE", "ft_peptide", "Peptide"),
    ("INIT_MET", "ft_init_met", "Initiator methionine"),
    ("TRANSMEM", "ft_transmem", "Transmembrane"),
    ("INTRAMEM", "ft_intramem", "Intramembrane"),
    ("TOPO_DOM", "ft_topo_dom", "Topological domain"),
    ("DOMAIN", "ft_domain", "Domain [FT]"),
    ("REGION", "ft_region", "Region"),
    ("MOTIF", "ft_motif", "Motif"),
    ("REPEAT", "ft_repeat", "Repeat"),
    ("COILED", "ft_coiled", "Coiled coil"),
    ("COMPBIAS", "ft_compbias", "Compositional bias"),
    ("DNA_BIND", "ft_dna_bind", "DNA binding"),
    ("ZN_FING", "ft_zn_fing", "Zinc finger"),
    ("HELIX", "ft_helix", "Helix"),
    ("STRAND", "ft_strand", "Beta strand"),
    ("TURN", "ft_turn", "Turn"),
    ("NON_STD", "ft_non_std", "Non-standard residue"),
    ("MUTAGEN", "ft_mutagen", "Mutagenesis"),
    ("VARIANT", "ft_variant", "Natural variant"),
    ("CONFLICT", "ft_conflict", "Sequence conflict"),
    ("VAR_SEQ", "ft_var_seq", "Alternative sequence"),
    ("UNSURE", "ft_unsure", "Sequence uncertainty"),
    ("NON_CONS", "ft_non_cons", "Non-adjacent residues"),
    ("NON_TER", "ft_non_ter", "Non-terminal residue"),
)
#: Key of a column of TSV or a type of GFF3.
KEY_OF: Mapping[str, str] = {name: key for key, _, name in FEATURES} | {"Domain": "DOMAIN"}
#: Keys that UniProt gave up in 2022 in favour of BINDING; files from before have them.
OLD_KEYS: Mapping[str, str] = {
    "Metal binding": "METAL", "Calcium binding": "CA_BIND", "Nucleotide binding": "NP_BIND",
}  # fmt: skip
#: What else the keys are called: in the GFF3 of UniProt and of others, and in its proteins service.
_ALIASES = {
    "domain": "DOMAIN", "dna binding region": "DNA_BIND", "zinc finger region": "ZN_FING", "strand": "STRAND",
    "transmembrane region": "TRANSMEM", "intramembrane region": "INTRAMEM", "glycosylation site": "CARBOHYD",
    "lipidation site": "LIPID", "coiled coil region": "COILED", "mutagenesis site": "MUTAGEN",
    "sequence variant": "VARIANT", "variant": "VARIANT", "splice variant": "VAR_SEQ", "unsure residue": "UNSURE",
    "non consecutive residues": "NON_CONS", "non terminal residue": "NON_TER", "non standard amino acid": "NON_STD",
    "compositionally biased region": "COMPBIAS", "short sequence motif": "MOTIF", "region of interest": "REGION",
    "topological domain": "TOPO_DOM", "cross link": "CROSSLNK", "disulfide": "DISULFID", "signal": "SIGNAL",
    "metal ion binding site": "METAL", "calcium binding region": "CA_BIND",
    "nucleotide phosphate binding region": "NP_BIND",
}  # fmt: skip
_FOLDED: Mapping[str, str] = _ALIASES | {
    re.sub("[^a-z0-9]+", " ", called.lower()).strip(): key
    for name, key in (dict(KEY_OF) | dict(OLD_KEYS)).items()
    for called in (name, key)
}
#: Bonds: a pair of residues, not what lies between them.
BONDS = ("DISULFID", "CROSSLNK")
INEXACT = "its position is not known exactly"
ISOFORM = "its position counts on another isoform"

_HEADER = re.compile(r"(?:sp|tr)\|([^| \t]+)\|([^| \t]*)[ \t]*(.*)", re.DOTALL)
_HEADER_FIELD = re.compile(r"(?:^|(?<=[ \t]))(OS|OX|GN|PE|SV)=")
_OTHER_FIELD = re.compile(r"[ \t][A-Za-z][\w.-]*=")
_EC = re.compile(r"\bEC=([0-9][0-9.n-]*)")
_TOKEN = re.compile(r'\s*(?:([A-Z][A-Z_]+) ([^;"]+?)|/(\w+)(?:="((?:[^"]|"")*)")?)\s*(?:;|$)')
_OLD_TOKEN = re.compile(r"(?:^|;\s*)([A-Z][A-Z_]+) ([<>?]?[0-9]{1,9}|\?) ([<>?]?[0-9]{1,9}|\?)(?=[ .;]|$)")
_PLACE = re.compile(r"[<>]?([0-9]{1,9})(?:\.\.[<>]?([0-9]{1,9}))?")
_UNSURE_PLACE = re.compile(r"(?:[<>?]?[0-9]{1,9}|\?|\.)(?:\.\.(?:[<>?]?[0-9]{1,9}|\?))?")


def parse_header(title: str) -> tuple[str, dict[str, str], str] | None:
    """Accession, columns and description of a UniProtKB FASTA header; None if it is another kind.

    What follows a number (OX, PE, SV) counts as description, and so does another ``key=``: fields may be added.

    >>> parse_header("sp|P12345|AATM_RABIT Aspartate aminotransferase OS=Oryctolagus cuniculus OX=9986 GN=GOT2")
    ... # doctest: +NORMALIZE_WHITESPACE
    ('P12345', {'entry_name': 'AATM_RABIT', 'OS': 'Oryctolagus cuniculus', 'OX': '9986', 'GN': 'GOT2'},
     'Aspartate aminotransferase')
    """
    match = _HEADER.fullmatch(title)
    if match is None:
        return None
    accession, name, rest = match.groups()
    description, *fields = _HEADER_FIELD.split(rest)
    columns = {"entry_name": name}
    for key, value in zip(fields[::2], fields[1::2], strict=True):
        if key in ("OX", "PE", "SV"):  # numbers: what comes after is not UniProt's, but may be the user's
            value, _, more = value.strip().partition(" ")
            description += f" {more}" if more else ""
        else:  # and so is what looks like a field, unless it is in parentheses, as some strains of organisms are
            for match in _OTHER_FIELD.finditer(value):
                if value.count("(", 0, match.start()) == value.count(")", 0, match.start()):
                    description += value[match.start() :]
                    value = value[: match.start()]
                    break
        columns.setdefault(key, value.strip())
    return accession, columns, description.strip()


def parse_place(text: str) -> tuple[int, int, str]:
    """First and last residue of a location, and the reason why it cannot be used, or ``""``.

    Raises:
        InputError: it is none; ``?``, ``?7`` and GFF's ``.`` are places that UniProt does not know exactly.

    >>> parse_place("7"), parse_place("<1..20"), parse_place("?..20")[2]
    ((7, 7, ''), (1, 20, ''), 'its position is not known exactly')
    """
    if ":" in text:
        return 0, 0, ISOFORM
    match = _PLACE.fullmatch(text)
    if match is None and not _UNSURE_PLACE.fullmatch(text):
        raise InputError(f"{shown(text)} is not a position such as 52, 3..9 or ?; correct it")
    if match is None:
        return 0, 0, INEXACT
    return int(match[1]), int(match[2] or match[1]), ""


def split_bond(feature: Feature) -> Iterator[Feature]:
    """The two ends of a bond; any other feature as it is."""
    if feature.type in BONDS and feature.start != feature.end:
        yield feature._replace(end=feature.start)
        yield feature._replace(start=feature.end)
    else:
        yield feature


def parse_feature_cell(text: str) -> list[Feature]:
    """The features of one cell of a UniProt TSV, as the service writes them now or did before 2022.

    >>> parse_feature_cell("ACT_SITE 20 20 Proton acceptor. {ECO:0000255}.")[0][:4]
    ('ACT_SITE', 20, 20, 'Proton acceptor. {ECO:0000255}.')

    Raises:
        InputError: the text is not what UniProt writes.
    """
    raw: list[tuple[str, str, list[str]]] = []
    position = 0
    text = text.strip()
    if _OLD_TOKEN.match(text):
        return _old_feature_cell(text)
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or (match[1] is None and not raw):
            raise InputError(f"{shown(text[position:])} is not a UniProt feature such as 'ACT_SITE 52'; correct it")
        if match[1] is not None:
            raw.append((match[1], match[2], []))
        elif match[3] in ("note", "ligand", "evidence") and match[4]:
            raw[-1][2].append(match[4].replace('""', '"'))
        position = match.end()
    features: list[Feature] = []
    for key, place, notes in raw:
        start, end, reason = parse_place(place)
        features += split_bond(Feature(key, start, end, "; ".join(notes), reason))
    return features


def _old_feature_cell(text: str) -> list[Feature]:
    """The features of a cell of a time when places were two numbers and notes stood behind them."""
    matches = list(_OLD_TOKEN.finditer(text))
    ends = [*(one.start() for one in matches[1:]), len(text)]
    features: list[Feature] = []
    for one, end in zip(matches, ends, strict=True):
        start, last, reason = parse_place(f"{one[2]}..{one[3]}")
        features += split_bond(Feature(one[1], start, last, text[one.end() : end].strip(" ;"), reason))
    return features


def feature_key(name: str) -> str:
    """The key of a feature, whatever it is called: ``ACT_SITE``, ``Active site``, ``active_site`` are one.

    A name that UniProt does not have stays as it is.

    >>> feature_key("active_site"), feature_key("DNA-binding"), feature_key("act_site"), feature_key("Pfam")
    ('ACT_SITE', 'DNA_BIND', 'ACT_SITE', 'Pfam')
    """
    return _FOLDED.get(re.sub("[^a-z0-9]+", " ", name.lower()).strip(), name)


def parse_entry(lines: Iterable[str]) -> Entry:
    """One entry of a flat file, from its ID line to ``//``.

    Raises:
        ValueError: it is not such an entry; the text is one line.
    """
    try:
        record = SwissProt.read(io.StringIO("".join(lines)))  # type: ignore[no-untyped-call]
    except Exception as error:  # Biopython raises ValueError, AssertionError, IndexError and others
        raise ValueError(next(iter(str(error).splitlines()), type(error).__name__)) from None
    if not record.accessions:
        raise ValueError("it has no AC line")
    length = record.seqinfo[0] if record.seqinfo else len(record.sequence)
    if length != len(record.sequence):
        raise ValueError(f"{len(record.sequence)} residues where its SQ line says {length}")
    features: list[Feature] = []
    for feature in record.features:
        notes = [feature.qualifiers[name] for name in ("note", "ligand", "evidence") if name in feature.qualifiers]
        start, end, reason = 0, 0, ""
        if feature.location is None or any(
            type(p).__name__ in ("UnknownPosition", "UncertainPosition")
            for p in (feature.location.start, feature.location.end)
        ):
            reason = INEXACT
        elif feature.location.ref:
            reason = ISOFORM
        else:
            start, end = int(feature.location.start) + 1, int(feature.location.end)
        features += split_bond(Feature(feature.type, start, end, "; ".join(notes), reason))
    columns = {
        "entry_name": record.entry_name,
        "ec": ";".join(dict.fromkeys(number.rstrip(".") for number in _EC.findall(record.description))),
        "organism": record.organism.rstrip("."),
        "taxonomy_id": record.taxonomy_id[0] if record.taxonomy_id else "",
        "reviewed": "1" if record.data_class == "Reviewed" else "0",
    }
    return Entry(record.accessions[0], record.sequence, columns, tuple(features))
