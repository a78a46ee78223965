"""SHELL: what a worker tells Prometheus, and the page that says what it means.

``catalogue`` lists every metric once; ``worker`` fills them; ``document`` writes the page of the
docs from the list. Base units (seconds, bytes), and only labels with a bounded number of values:
stages, effects, partitions, reasons; never ids.
"""
