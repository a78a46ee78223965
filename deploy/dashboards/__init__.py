"""Four dashboards for Grafana, of panels that ask the metrics of the catalogue.

*Is it healthy*, *Is it learning*, *Does it help*, *Is it used*: one module each, in the words of
``panels``.
``python -m deploy.dashboards`` (``make docs``) writes them; a test keeps the files equal.
"""

from __future__ import annotations

from deploy.dashboards.healthy import HEALTHY
from deploy.dashboards.helping import HELPING
from deploy.dashboards.learning import LEARNING
from deploy.dashboards.using import USING

ALL = (HEALTHY, LEARNING, HELPING, USING)
