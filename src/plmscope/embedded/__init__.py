"""Data that plmscope carries: read it with ``read_proteins("plmscope:enzymes")`` or ``("plmscope:families")``."""
