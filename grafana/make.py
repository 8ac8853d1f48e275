"""Makes Grafana's dashboards, grafana/dashboards/*.json. Each panel's title is a question.

    scripts/make-dashboards [FOLDER]

The files are committed; run it again when something here has changed.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    LineInterpolation,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER = Path(__file__).with_name("dashboards")
# grafana/provisioning/datasources/prometheus.yml
SOURCE = DataSourceRef(type_val="prometheus", uid="tandem-prometheus")
TAG = "tandem"
# Rows of Grafana's grid, which is 24 wide.
HEIGHT = 8

Panel = timeseries.Panel | stat.Panel | heatmap.Panel
# What to ask Prometheus, and what the legend says.
Query = tuple[str, str]


def lines(
    title: str, why: str, unit: str, *queries: Query, width: int = 12, stairs: bool = False
) -> Panel:
    """Values over time. `stairs`: they jump, such as 0 and 1."""
    panel = timeseries.Panel().unit(unit).min(0)
    panel.draw_style(GraphDrawStyle.LINE).show_points(VisibilityMode.NEVER)
    panel.fill_opacity(10)
    if stairs:
        panel.line_interpolation(LineInterpolation.STEP_AFTER)
    panel.legend(
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    return _asking(panel, title, why, width, queries)


def now(
    title: str,
    why: str,
    unit: str,
    *queries: Query,
    width: int = 6,
    bad_from: float | None = None,
    bad_below: float | None = None,
) -> Panel:
    """The last values, in large; red from, or below, a bound."""
    panel = stat.Panel().unit(unit).no_value("nothing")
    panel.graph_mode(BigValueGraphMode.NONE).text_mode(BigValueTextMode.VALUE_AND_NAME)
    panel.color_mode(BigValueColorMode.VALUE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    steps = [Threshold(value=None, color="green")]
    if bad_from is not None:
        steps.append(Threshold(value=bad_from, color="red"))
    if bad_below is not None:
        steps = [Threshold(value=None, color="red"), Threshold(value=bad_below, color="green")]
    panel.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    return _asking(panel, title, why, width, queries)


def heat(title: str, why: str, unit: str, metric: str, match: str = "") -> Panel:
    """How the values of a histogram are spread, over time."""
    panel = heatmap.Panel().calculate(False).unit("short")
    panel.y_axis(heatmap.YAxisConfig().unit(unit))
    panel.color(
        heatmap.HeatmapColorOptions()
        .mode(HeatmapColorMode.SCHEME)
        .scheme("Oranges")
        .exponent(0.5)
        .steps(64)
    )
    query = f"sum by (le) (increase(coordinator_{metric}_bucket{match}[1m]))"
    return _asking(panel, title, why, 12, [(query, "{{le}}")], PromQueryFormat.HEATMAP)


def _asking(
    panel: Panel,
    title: str,
    why: str,
    width: int,
    queries: Iterable[Query],
    form: PromQueryFormat = PromQueryFormat.TIME_SERIES,
) -> Panel:
    panel.title(title).description(why).datasource(SOURCE).height(HEIGHT).span(width)
    for number, (expression, legend) in enumerate(queries):
        panel.with_target(
            prometheus.Dataquery()
            .ref_id("ABCDEFGH"[number])
            .datasource(SOURCE)
            .expr(expression)
            .legend_format(legend)
            .format(form)
            .range()
        )
    return panel


def rate(metric: str, by: str) -> str:
    """Events per second of a counter, by labels."""
    return f"sum by ({by}) (rate(coordinator_{metric}[1m]))"


def quantile(share: float, metric: str, by: str = "", match: str = "") -> str:
    """The value of a histogram that this share of the observations does not exceed."""
    labels = f"le, {by}" if by else "le"
    buckets = f"coordinator_{metric}_bucket{match}"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({buckets}[1m])))"


def quantiles(metric: str, match: str = "") -> list[Query]:
    """Median, 95th and 99th percentile."""
    return [(quantile(q, metric, match=match), f"{q:.0%} within") for q in (0.5, 0.95, 0.99)]


OWN_LOCKS = '{role=~"home|remote"}'

OVERVIEW = [
    now(
        "How many alerts fire?",
        "Prometheus's page /alerts has them, with what happens to money and what to do.",
        "short",
        ('count by (severity) (ALERTS{alertstate="firing"}) or vector(0)', "{{severity}}"),
        bad_from=1,
    ),
    now(
        "Who leads?",
        "The coordinator that finishes what processes that are gone have left in doubt. "
        "Transfers go on without one.",
        "none",
        ("max by (instance) (coordinator_is_leader) == 1", "{{instance}}"),
    ),
    now(
        "Which shards can be used by all?",
        "1: every coordinator can use the shard. 0: transfers on it are answered 503.",
        "bool_yes_no",
        ("min by (shard) (coordinator_shard_up)", "{{shard}}"),
        bad_below=1,
    ),
    now(
        "How many workers are ready?",
        "Worker processes of each coordinator.",
        "short",
        ("sum by (instance) (coordinator_workers)", "{{instance}}"),
        bad_below=1,
    ),
    lines(
        "Is money moving?",
        "Transfers per second, by how they were answered. withdrawn: nothing has happened, because "
        "of load or a shard. pending: answered 202.",
        "ops",
        ("tandem:transfers:rate1m", "{{outcome}}"),
    ),
    lines(
        "What is stuck, and since when?",
        "Age of the oldest branch in doubt on each shard, whose accounts are locked: an alert "
        "beyond 30 s. And of the oldest transfer by TC/C or Saga that is unfinished: beyond 60 s.",
        "s",
        ("max by (shard) (coordinator_in_doubt_oldest_seconds)", "{{shard}}"),
        ("max by (shard) (coordinator_unfinished_oldest_seconds)", "{{shard}} unfinished"),
    ),
    lines(
        "How long does a transfer take?",
        "From being taken to being answered, with the time in the queue.",
        "s",
        *quantiles("transfer_seconds"),
    ),
    lines(
        "Why are transfers refused?",
        "Per second, by reason. account-busy, overloaded and shard-unavailable are the service's "
        "doing, all others are the money rules'.",
        "ops",
        (rate("refusals_total", "reason"), "{{reason}}"),
    ),
    lines(
        "What share comes to nothing?",
        "withdrawn and errors are alerts beyond 5 %, rejected beyond 50 %.",
        "percentunit",
        ("tandem:transfers_withdrawn:ratio_rate5m", "transfers withdrawn"),
        ("tandem:transfers_rejected:ratio_rate5m", "transfers rejected"),
        ("tandem:http_errors:ratio_rate5m", "requests answered 500 or above"),
    ),
    lines(
        "How full are the queues?",
        "Waiting transfers in each coordinator's fullest worker, against its bound. Full: 429.",
        "percentunit",
        (
            "sum by (instance) (coordinator_queue_length)"
            " / sum by (instance) (coordinator_queue_limit)",
            "{{instance}}",
        ),
    ),
    lines(
        "What is asked of the service?",
        "Requests per second, by route.",
        "reqps",
        (rate("http_requests_total", "method, route"), "{{method}} {{route}}"),
    ),
    lines(
        "Which routes are slow?",
        "99 % of the requests are answered within.",
        "s",
        (quantile(0.99, "http_request_seconds", "method, route"), "{{method}} {{route}}"),
    ),
]

TWO_PHASE_COMMIT = [
    heat(
        "How long are accounts locked?",
        "From sending the packet that takes the locks of a branch to the answer that releases "
        "them. Without those that recovery has finished.",
        "s",
        "lock_hold_seconds",
        OWN_LOCKS,
    ),
    lines(
        "Is the objective for locks kept?",
        "Share of branches that hold their locks for more than 0.5 s. The objective allows 1 % "
        "over 30 days; 14.4 % in an hour is an alert, and 6 % in six hours.",
        "percentunit",
        *((f"tandem:lock_hold_slow:ratio_rate{w}", f"last {w}") for w in ("5m", "30m", "1h", "6h")),
    ),
    lines(
        "Which role holds locks longest?",
        "99 % within. home: the shard of the decision; remote: the others; visit: a step of TC/C "
        "or Saga; recovered: finished by recovery, from the group's birth.",
        "s",
        (quantile(0.99, "lock_hold_seconds", "role"), "{{role}}"),
    ),
    lines(
        "On which shard are accounts locked longest?",
        "99 % and half of the branches within, without those that recovery has finished.",
        "s",
        (quantile(0.99, "lock_hold_seconds", "shard", OWN_LOCKS), "{{shard}} 99 %"),
        (quantile(0.5, "lock_hold_seconds", "shard", OWN_LOCKS), "{{shard}} half"),
    ),
    lines(
        "Where does a group's time go?",
        "Seconds that groups spend in each phase, per second. writing: a group on one shard alone.",
        "none",
        (rate("phase_seconds_sum", "phase"), "{{phase}}"),
    ),
    lines(
        "How long does each phase take?",
        "99 % of the groups within.",
        "s",
        (quantile(0.99, "phase_seconds", "phase"), "{{phase}}"),
    ),
    heat(
        "How many transfers share a group?",
        "One when the coordinator is idle; under load up to engine.group_max at each shard.",
        "short",
        "group_size",
    ),
    lines(
        "How many groups are run?",
        "Per second, by coordinator.",
        "ops",
        (rate("group_size_count", "instance"), "{{instance}}"),
    ),
    lines(
        "How often does a transfer find its accounts taken?",
        "Times per second that a transfer goes back to the queue.",
        "ops",
        (rate("deferred_transfers_total", "instance"), "{{instance}}"),
    ),
    lines(
        "Which errors do shards give?",
        "Per second, by the server's number and phase. 0: the connection or the time ran out.",
        "ops",
        (rate("xa_errors_total", "code, phase"), "{{code}} while {{phase}}"),
    ),
]

RECOVERY = [
    lines(
        "Who leads, and since when?",
        "1 on the coordinator that leads.",
        "none",
        ("coordinator_is_leader", "{{instance}}"),
        stairs=True,
    ),
    lines(
        "Which term is it?",
        "It grows with every election. Coordinators that see different ones have lost contact.",
        "none",
        ("coordinator_leader_epoch", "{{instance}}"),
        stairs=True,
    ),
    lines(
        "How often is a leader elected?",
        "Terms begun in the last five minutes.",
        "short",
        ("sum by (instance) (increase(coordinator_elections_total[5m]))", "{{instance}}"),
    ),
    lines(
        "How long did nobody lead?",
        "Mean of the last five minutes, from the leader's seat being empty to the next one.",
        "s",
        (
            "sum by (instance) (rate(coordinator_failover_seconds_sum[5m]))"
            " / sum by (instance) (rate(coordinator_failover_seconds_count[5m]))",
            "{{instance}}",
        ),
    ),
    lines(
        "How much is in doubt?",
        "Prepared branches older than a second, as the last sweep has seen them.",
        "short",
        ("max by (shard) (coordinator_in_doubt_branches)", "{{shard}}"),
    ),
    lines(
        "What has recovery finished?",
        "Branches per second, by outcome.",
        "ops",
        (rate("recovered_branches_total", "outcome"), "{{outcome}}"),
    ),
    lines(
        "How long does it take to finish a group in doubt?",
        "From being found to being finished.",
        "s",
        *quantiles("recovery_seconds"),
    ),
    lines(
        "When was last looked for branches in doubt?",
        "Seconds since the last complete sweep. Beyond 30 s it is an alert.",
        "s",
        (
            "time() - min by (instance) (coordinator_sweep_last_success_timestamp_seconds)",
            "{{instance}}",
        ),
    ),
    now(
        "Is a branch missing?",
        "Branches of committed groups that cannot be found: atomicity is at risk.",
        "short",
        ("max by (instance) (coordinator_missing_branches)", "{{instance}}"),
        bad_from=1,
    ),
    now(
        "Does ZooKeeper answer everybody?",
        "1 if it answers every worker of the coordinator.",
        "bool_yes_no",
        ("min by (instance) (coordinator_zookeeper_connected)", "{{instance}}"),
        bad_below=1,
    ),
    lines(
        "Did somebody else decide?",
        "Groups per second that recovery had aborted when their own coordinator came to its commit "
        "point: it was slow or frozen.",
        "ops",
        (rate("decision_conflicts_total", "instance"), "{{instance}}"),
    ),
    lines(
        "Are decisions and markers collected?",
        "Rows per second.",
        "ops",
        (rate("collected_total", "kind"), "{{kind}}"),
    ),
]

PHASES = [
    lines(
        "Through which phases do transfers go?",
        "Transfers per second that come to a phase of TC/C or Saga. beginning: refused before it "
        "has begun.",
        "ops",
        (rate("phase_changes_total", "protocol, phase"), "{{protocol}} {{phase}}"),
    ),
    lines(
        "How many are cancelled or given back?",
        "Per second. compensating: a Saga whose credit was refused after its debit; cancelling: a "
        "TC/C that was given up before anything was moved.",
        "ops",
        (
            "sum by (protocol, phase)"
            ' (rate(coordinator_phase_changes_total{phase=~"cancelling|compensating"}[1m]))',
            "{{protocol}} {{phase}}",
        ),
    ),
    lines(
        "How long does it take from the first phase to the last?",
        "Half and 99 % of the transfers within. It goes on after a client has its answer.",
        "s",
        (quantile(0.5, "course_seconds", "protocol"), "{{protocol}} half"),
        (quantile(0.99, "course_seconds", "protocol"), "{{protocol}} 99 %"),
    ),
    lines(
        "How many end?",
        "Transfers per second that come to the end of their phases, with or without money moved.",
        "ops",
        (rate("course_seconds_count", "protocol"), "{{protocol}}"),
    ),
    lines(
        "How much is unfinished?",
        "Transfers that have been on their way for more than a second, as the last sweep has seen "
        "them, by phase.",
        "short",
        (
            "sum by (protocol, phase)"
            " (max by (shard, protocol, phase) (coordinator_unfinished_transfers))",
            "{{protocol}} {{phase}}",
        ),
    ),
    lines(
        "Since when is it unfinished?",
        "Age of the oldest on each shard, its source's. Beyond 60 s it is an alert.",
        "s",
        ("max by (shard) (coordinator_unfinished_oldest_seconds)", "{{shard}}"),
    ),
    lines(
        "How long does one step lock accounts?",
        "99 % and half of the local transactions within.",
        "s",
        (quantile(0.99, "lock_hold_seconds", "shard", '{role="visit"}'), "{{shard}} 99 %"),
        (quantile(0.5, "lock_hold_seconds", "shard", '{role="visit"}'), "{{shard}} half"),
    ),
]

SHARDS = [
    lines(
        "Which shards can be used?",
        "1 if every worker of the coordinator can use the shard.",
        "none",
        ("coordinator_shard_up", "{{shard}} at {{instance}}"),
        stairs=True,
    ),
    lines(
        "Is a shard less durable than required?",
        "1 if it is used all the same, which mysql.weak_durability allows.",
        "none",
        ("max by (shard) (coordinator_shard_weak_durability)", "{{shard}}"),
        stairs=True,
    ),
    lines(
        "How quickly does each shard answer?",
        "One packet and its answer: half and 99 % of them within.",
        "s",
        (quantile(0.5, "shard_call_seconds", "shard"), "{{shard}} half"),
        (quantile(0.99, "shard_call_seconds", "shard"), "{{shard}} 99 %"),
    ),
    lines(
        "Which call is slow?",
        "99 % of the packets within.",
        "s",
        (quantile(0.99, "shard_call_seconds", "call"), "{{call}}"),
    ),
    lines(
        "How much is asked of each shard?",
        "Packets per second.",
        "ops",
        (rate("shard_call_seconds_count", "shard"), "{{shard}}"),
    ),
    lines(
        "Are there connections left?",
        "Busy connections against the bound, by shard and pool.",
        "percentunit",
        (
            'sum by (shard, pool) (coordinator_pool_connections{state="busy"})'
            " / sum by (shard, pool) (coordinator_pool_limit)",
            "{{shard}} {{pool}}",
        ),
    ),
    lines(
        "Do all coordinators have the same shard map?",
        "Version of the map in force.",
        "none",
        ("coordinator_shard_map_version", "{{instance}}"),
        stairs=True,
    ),
    lines(
        "How many connections are open?",
        "By shard and state, of all coordinators.",
        "short",
        ("sum by (shard, state) (coordinator_pool_connections)", "{{shard}} {{state}}"),
    ),
]


def of_group(expression: str) -> list[Query]:
    """What all coordinators that see a ledger group say of it, in one line for each group."""
    return [(f"max by (shard) ({expression})", "{{shard}}")]


def group_rate(count: str) -> str:
    """Per second, of what a node counts from its start on."""
    return f"rate(coordinator_ledger_{count}[1m])"


LEDGER_GROUPS = [
    lines(
        "How much does each group decide?",
        "Commands per second: transfers, openings of accounts, changes of status.",
        "ops",
        *of_group(group_rate("commands")),
    ),
    lines(
        "How long does a flush take?",
        "Mean. Every answer waits for one, and all that waits shares it.",
        "s",
        *of_group(f"{group_rate('flush_seconds')} / {group_rate('flushes')}"),
    ),
    lines(
        "How many frames are made?",
        "Per second. An idle group makes some, too: coordinators look whether it can.",
        "ops",
        *of_group(group_rate("frames")),
    ),
    lines(
        "How many commands share a frame?",
        "Mean. One when little comes in; some thousands under load.",
        "short",
        *of_group(f"{group_rate('commands')} / {group_rate('frames')}"),
    ),
    lines(
        "How far is the read side behind?",
        "Seconds by the times of frames. Reads wait for it. Beyond 5 s for a minute it is an "
        "alert.",
        "s",
        *of_group("coordinator_ledger_reads_lag_seconds"),
    ),
    lines(
        "How many frames has the read side not seen?",
        "Frames that are answerable.",
        "short",
        *of_group("coordinator_ledger_reads_lag_frames"),
    ),
    lines(
        "Does each read side answer?",
        "1 if it answers every worker of every coordinator. 0: reads are answered 503, and "
        "transfers go on.",
        "none",
        ("min by (shard) (coordinator_ledger_reads_up)", "{{shard}}"),
        stairs=True,
    ),
    lines(
        "How much room is left on the node's disk?",
        "Below the least no command is taken. Below twice the least it is an alert.",
        "bytes",
        ("min by (shard) (coordinator_ledger_room_bytes)", "{{shard}}"),
        ("max by (shard) (coordinator_ledger_room_bytes_min)", "{{shard}} least"),
    ),
    lines(
        "How old is the last snapshot?",
        "Seconds by the times of frames, up to the list's last one; nothing if there is none yet.",
        "s",
        *of_group("coordinator_ledger_snapshot_age_seconds >= 0"),
    ),
    lines(
        "How much would a start replay?",
        "Transfers behind the last snapshot, about. Beyond 20 million, and half of all accounts "
        "and transfers, it is an alert.",
        "short",
        *of_group("coordinator_ledger_replay_transfers"),
    ),
    lines(
        "How large is the list?",
        "Bytes of its files.",
        "bytes",
        *of_group("coordinator_ledger_list_bytes"),
    ),
    lines(
        "How much is in it?",
        "Accounts, transfers with an outcome, and the entries that the read side keeps.",
        "short",
        ("max by (shard) (coordinator_ledger_accounts)", "{{shard}} accounts"),
        ("max by (shard) (coordinator_ledger_transfers)", "{{shard}} transfers"),
        ("max by (shard) (coordinator_ledger_reads_entries)", "{{shard}} entries"),
    ),
]

DASHBOARDS: dict[str, tuple[str, list[Panel]]] = {
    "overview": ("Tandem: is money moving?", OVERVIEW),
    "two-phase-commit": ("Tandem: how do groups commit?", TWO_PHASE_COMMIT),
    "phases": ("Tandem: how do TC/C and Saga go?", PHASES),
    "recovery": ("Tandem: who leads, and what is recovered?", RECOVERY),
    "shards": ("Tandem: how are the shards?", SHARDS),
    "ledger-groups": ("Tandem: how are ledger groups?", LEDGER_GROUPS),
}


def made(name: str) -> str:
    """A dashboard as the text of its file."""
    title, panels = DASHBOARDS[name]
    board = (
        dashboard.Dashboard(title)
        .uid(f"tandem-{name}")
        .tags([TAG])
        .refresh("5s")
        .time("now-30m", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Tandem")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .keep_time(True)
        )
    )
    for number, panel in enumerate(panels, start=1):
        board.with_panel(panel.id(number))
    return json.dumps(board.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name in DASHBOARDS:
        (folder / f"{name}.json").write_text(made(name))


if __name__ == "__main__":
    main()
