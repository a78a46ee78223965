"""Random effects: the posterior of every member and job, refitted at every label.

Shapes, in all of this package: an entity has n kept examples and d features. ``Z`` (n, d) float32,
``y``, ``w``, ``o`` (n,) float64 (targets in [0, 1], weights ≥ 0, offsets in log-odds), ``theta``
(d,) float64.
"""
