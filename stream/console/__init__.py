"""SHELL: what a worker shows over HTTP: metrics, probes, and a status page.

``probes`` says whether the worker is alive and ready, ``status`` sums the metrics up,
``server`` serves both, and ``page.html``, which renews itself from ``/status.json``.
"""
