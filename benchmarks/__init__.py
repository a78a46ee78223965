"""One file per claim: ``make bench NAME=x`` runs ``benchmarks/x.py``; its last line is JSON."""
