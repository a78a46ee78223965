"""Boards as Grafana's JSON, through Grafana's own builders."""

from __future__ import annotations

from itertools import count

from grafana_foundation_sdk.builders import common as look
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as queries

from deploy.dashboards.panels import Board, Panel, Query

SOURCE = models.DataSourceRef(type_val="prometheus", uid="hearback-prometheus")
"""The data source of ``grafana/provisioning/datasources``."""

TAG = "hearback"

_STAT_HEIGHT, _GRAPH_HEIGHT = 4, 8


def file_name(board: Board) -> str:
    """Name of a board's file."""
    return f"{board.key}.json"


def to_json(board: Board) -> str:
    """Return the file that Grafana is given."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(f"hearback-{board.key}")
        .description(board.text)
        .tags([TAG])
        .readonly()
        .refresh("10s")
        .time("now-30m", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("hearback")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .keep_time(True)
        )
    )
    ids = count(1)
    for row in board.rows:
        made = made.with_row(dashboard.Row(row.title).id(next(ids)))
        for panel in row.panels:
            made = made.with_panel(_panel(panel).id(next(ids)))
    return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(made.build()) + "\n"


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel:
    made: stat.Panel | timeseries.Panel
    if panel.kind == "stat":
        made = (
            stat.Panel()
            .height(_STAT_HEIGHT)
            .graph_mode(looks.BigValueGraphMode.AREA)
            .color_mode(looks.BigValueColorMode.VALUE)
            .reduce_options(look.ReduceDataOptions().calcs(["lastNotNull"]))
        )
    else:
        made = (
            timeseries.Panel()
            .height(_GRAPH_HEIGHT)
            .line_width(1)
            .fill_opacity(10)
            .show_points(looks.VisibilityMode.NEVER)
            .legend(
                look.VizLegendOptions()
                .display_mode(looks.LegendDisplayMode.LIST)
                .placement(looks.LegendPlacement.BOTTOM)
                .show_legend(True)
            )
            .tooltip(look.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI))
        )
    made.title(panel.title).description(panel.text).span(panel.span).unit(panel.unit)
    made.datasource(SOURCE).thresholds(_thresholds(panel))
    if panel.kind == "graph":
        made.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC))
    for number, query in enumerate(panel.queries):
        made.with_target(_target(query, chr(ord("A") + number), panel.kind == "stat"))
    return made


def _target(query: Query, ref_id: str, instant: bool) -> prometheus.Dataquery:
    made = (
        prometheus.Dataquery()
        .expr(query.expr)
        .ref_id(ref_id)
        .datasource(SOURCE)
        .editor_mode(queries.QueryEditorMode.CODE)
        .range()
    )
    return made.legend_format(query.legend) if query.legend or instant else made


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    """From which value on it is shown in which colour; the first holds from minus infinity."""
    if panel.low_is_bad:
        named = [(None, "red"), (panel.bad, "yellow"), (panel.warn, "green")]
    else:
        named = [(None, "green"), (panel.warn, "yellow"), (panel.bad, "red")]
    first, rest = named[0], [(value, colour) for value, colour in named[1:] if value is not None]
    steps = [models.Threshold(value=value, color=colour) for value, colour in (first, *rest)]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
