"""Grafana's JSON from `saker.deploy.grafana.panels`: `make generated` writes deploy/grafana/dashboards/*.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as words
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import prometheus as prometheus_words

from saker.deploy.grafana.panels import DASHBOARDS, Dashboard, Panel

FOLDER = Path(__file__).parent / "dashboards"
_SOURCE = model.DataSourceRef(type_val="prometheus", uid="prometheus")


def write(shown: Dashboard) -> str:
    """The JSON of one dashboard, with a line for each change of the model."""
    built = (
        dashboard.Dashboard(shown.title)
        .uid(shown.uid)
        .description(shown.description)
        .tags(["saker"])
        .time("now-1h", "now")
        .refresh("10s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .annotations([_changes()])
        .link(dashboard.DashboardLink("saker").type(model.DashboardLinkType.DASHBOARDS).tags(["saker"]).keep_time(True))
    )
    for panel in shown.panels:
        built = built.with_panel(_panel(panel))
    return f"{JSONEncoder(sort_keys=True, indent=2).encode(built.build())}\n"


def _changes() -> dashboard.AnnotationQuery:
    changed = "max by (name, version) (model_info) unless max by (name, version) (model_info offset 1m)"
    return dashboard.AnnotationQuery().name("Model").datasource(_SOURCE).enable(True).icon_color("purple").expr(changed)


def _panel(panel: Panel) -> Any:
    built = _of_kind(panel)
    built = built.title(panel.title).description(panel.description).datasource(_SOURCE).span(panel.width).height(7)
    for place, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend or "__auto").ref_id(chr(ord("A") + place))
        if panel.kind == "heatmap":
            target = target.format(prometheus_words.PromQueryFormat.HEATMAP)
        built = built.with_target(target.instant() if panel.kind == "stat" else target.range())
    return built


def _of_kind(panel: Panel) -> Any:
    if panel.kind == "stat":
        name_or_number = words.BigValueTextMode.NAME if panel.title == "Model" else words.BigValueTextMode.VALUE
        return (
            stat.Panel()
            .unit(panel.unit)
            .graph_mode(words.BigValueGraphMode.NONE)
            .color_mode(words.BigValueColorMode.NONE)
            .text_mode(name_or_number)
        )
    if panel.kind == "heatmap":
        return heatmap.Panel().y_axis(heatmap.YAxisConfig().unit(panel.unit)).calculate(False)
    legend = common.VizLegendOptions().display_mode(words.LegendDisplayMode.LIST).placement(words.LegendPlacement.BOTTOM)
    tooltip = common.VizTooltipOptions().mode(words.TooltipDisplayMode.MULTI)
    lines = timeseries.Panel().unit(panel.unit).min(0).fill_opacity(10).legend(legend.show_legend(True)).tooltip(tooltip)
    return lines.draw_style(words.GraphDrawStyle.BARS) if panel.kind == "bars" else lines


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for shown in DASHBOARDS:
        (FOLDER / f"{shown.uid}.json").write_text(write(shown))


if __name__ == "__main__":
    main()
