"""Write the dashboards as the files that Grafana is given."""

from __future__ import annotations

from pathlib import Path

from deploy.dashboards import ALL
from deploy.dashboards.board import file_name, to_json

FOLDER = Path("deploy/grafana/dashboards")

if __name__ == "__main__":
    for board in ALL:
        (FOLDER / file_name(board)).write_text(to_json(board), encoding="utf-8")
