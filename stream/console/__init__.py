"""SHELL: what a worker shows over HTTP: metrics, probes, and a page for a person.

``probes`` says whether the worker is alive and ready, ``status`` reads the metrics as a person
would, ``server`` serves both, and ``page.html``, which renews itself from ``/status.json``.
"""
