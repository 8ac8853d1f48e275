"""`tandem cluster`, `tandem in-doubt`, `tandem leader`: what an operator looks at and does."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from rich.console import Console

from tandem.cli.client import (
    REACH_HINT,
    Client,
    GaveUp,
    NoAnswer,
    ask,
    refused,
    service_options,
    urls_of,
)
from tandem.cli.terminal import (
    CommandError,
    UnknownOutcome,
    console,
    json_option,
    print_json,
    table,
)

# --- cluster --------------------------------------------------------------------------------


@click.command()
@json_option
@service_options
def cluster(as_json: bool, url: tuple[str, ...], data_dir: Path) -> None:
    """Show who is there, who leads, how the shards are, and which shard map is in force.

    A coordinator is listed while it is in touch with ZooKeeper. All of them take transfers.
    The leader also finishes what other coordinators have left behind.
    """
    with Client(urls_of(url, data_dir)) as client:
        state = ask(client, "GET", "/v1/admin/cluster")
    if as_json:
        print_json(state)
        return
    screen = console()
    _print_coordinators(screen, state)
    _print_shards(screen, state)
    screen.print(f"Shard map version {state['shard_map_version']} is in force.")


def _print_coordinators(screen: Console, state: dict[str, Any]) -> None:
    if state["zookeeper"] == "away":
        screen.print(
            "ZooKeeper does not answer: this is how it was last seen. Transfers go on; no leader "
            "is elected."
        )
    rows = table("coordinator", "address", "processes", "leads", right=("processes",))
    for item in state["coordinators"]:
        leads = f"yes, term {item['epoch']}" if item["leader"] else ""
        rows.add_row(item["id"], item["address"], str(item["processes"]), leads)
    screen.print(rows)
    if not any(item["leader"] for item in state["coordinators"]):
        screen.print("No coordinator leads now.")


def _print_shards(screen: Console, state: dict[str, Any]) -> None:
    counts = ("slots", "in doubt", "unfinished")
    rows = table("shard", "state", "runs on", *counts, right=counts)
    for item in state["shards"]:
        found = (item["in_doubt"], item["unfinished"])
        how = "good" if item["reachable"] else f"NOT USED: {item['trouble']}"
        version = item["server_version"] or "?"
        shown = ("?" if count is None else str(count) for count in found)
        rows.add_row(item["id"], how, version, str(item["slots"]), *shown)
    screen.print(rows)


# --- in doubt -------------------------------------------------------------------------------


@click.group("in-doubt")
def in_doubt() -> None:
    """Show what is in doubt or unfinished and what happens next; finish it now.

    A branch is in doubt while it is prepared on its shard and has not heard its group's decision.
    That is normal for some milliseconds of every transfer across shards; its accounts are locked
    meanwhile. A transfer by TC/C or Saga is unfinished while it is between two of its steps; its
    accounts are free meanwhile. What a dead coordinator has left is finished by itself.
    """


@in_doubt.command("list")
@json_option
@service_options
def list_(as_json: bool, url: tuple[str, ...], data_dir: Path) -> None:
    """Show every prepared branch and every unfinished transfer on every shard, oldest first.

    Exits with 3 if a shard cannot be asked: there may be more on it.
    """
    with Client(urls_of(url, data_dir)) as client:
        told = ask(client, "GET", "/v1/admin/in-doubt")
    if as_json:
        print_json(told)
    else:
        _print_in_doubt(told)
    if told["unreachable"]:
        shards = ", ".join(f"{item['shard']} ({item['reason']})" for item in told["unreachable"])
        raise UnknownOutcome(f"These shards cannot be asked, there may be more on them: {shards}.")


def _print_in_doubt(told: dict[str, Any]) -> None:
    screen = console()
    if told["branches"]:
        _print_branches(screen, told["branches"])
    if told["unfinished"]:
        _print_unfinished(screen, told["unfinished"])
    if not told["branches"] and not told["unfinished"]:
        screen.print("Nothing is in doubt, and nothing is unfinished.")
    else:
        screen.print("To finish a group now: resolve GTRID.")


def _print_branches(screen: Console, branches: list[dict[str, Any]]) -> None:
    rows = table("gtrid", "shard", "home", "age", "decision", "what happens next", right=("age",))
    for item in branches:
        age = f"{item['age_seconds']:,.1f} s"
        decision = item["decision"] or "none yet"
        rows.add_row(item["gtrid"], item["shard"], item["home"], age, decision, item["next"])
    screen.print(rows)
    screen.print(f"{len(branches):,} branches are in doubt.")


def _print_unfinished(screen: Console, groups: list[dict[str, Any]]) -> None:
    rows = table("gtrid", "shard", "age", "phase", "transfers", "what happens next")
    for item in groups:
        refusal = f" Refused: {item['detail']}" if item["reason"] else ""
        rows.add_row(
            item["gtrid"],
            item["shard"],
            f"{item['age_seconds']:,.1f} s",
            f"{item['protocol']}, {item['phase']}",
            f"{item['transfers']:,}",
            f"{item['transfer']}: {item['next']}.{refusal}",
        )
    screen.print(rows)
    count = sum(item["transfers"] for item in groups)
    screen.print(f"{count:,} transfers by TC/C or Saga are unfinished.")


@in_doubt.command()
@click.argument("gtrid")
@json_option
@service_options
def resolve(gtrid: str, as_json: bool, url: tuple[str, ...], data_dir: Path) -> None:
    """Finish the group GTRID now, instead of when its turn comes.

    It asks the group's home and obeys: committed if the decision is there, else aborted for good.
    A group by TC/C or Saga has no home: each of its transfers goes on from its phase, forward or
    backward, and one that is still trying is cancelled. It cannot override a decision, and it is
    safe to repeat.

    \b
    Example:
      tandem in-doubt list
      tandem in-doubt resolve local-9907.s1.c9.18bcfe56800.b01f28ebd62045b2
    """
    path = f"/v1/admin/in-doubt/{quote(gtrid, safe='')}/resolve"
    with Client(urls_of(url, data_dir)) as client:
        try:
            answer = client.persist("POST", path)
        except GaveUp as error:
            raise UnknownOutcome(f"{error}. The same can be said again. {REACH_HINT}") from error
    if answer.status != 200 or answer.body is None:
        raise refused(answer)
    if as_json:
        print_json(answer.body)
    elif answer.body["transfers"]:
        _print_transfers(answer.body)
    else:
        outcome = answer.body["outcome"] or "not decided as far as can be seen now"
        finished = ", ".join(answer.body["finished"]) or "none was left"
        click.echo(f"The group is {outcome}. Branches finished: {finished}.")
    if answer.body["unfinished"]:
        left = ", ".join(f"{i['shard']} ({i['reason']})" for i in answer.body["unfinished"])
        raise UnknownOutcome(f"Not finished, or cannot be looked for: {left}.")


def _print_transfers(resolution: dict[str, Any]) -> None:
    """What became of each transfer of a group by TC/C or Saga."""
    for item in resolution["transfers"]:
        state = f"still {item['phase']}: {item['reason']}" if item["phase"] else "finished"
        click.echo(f"Transfer {item['id']}: {_STATUS[item['status']]}, {state}.")


_STATUS = {
    "committed": "committed",
    "rejected": "refused, for good",
    "pending": "no outcome yet",
    "lapsed": "nothing has happened",
    "unknown": "its shard cannot be asked",
}


# --- leader ---------------------------------------------------------------------------------


@click.group()
def leader() -> None:
    """Hand leadership over, for maintenance, say."""


@leader.command("step-down")
@json_option
@service_options
def step_down(as_json: bool, url: tuple[str, ...], data_dir: Path) -> None:
    """Ask the leader to hand over to another coordinator, and wait for the next one.

    No transfer notices. A coordinator that is stopped in good order hands over by itself.
    """
    with Client(urls_of(url, data_dir)) as client:
        try:
            answer = client.send("POST", "/v1/admin/leader/step-down")
        except NoAnswer as error:
            hint = "`tandem cluster` shows who leads."
            raise UnknownOutcome(f"{error}. {hint} {REACH_HINT}") from error
    if answer.status != 200 or answer.body is None:
        raise refused(answer)
    if as_json:
        print_json(answer.body)
        return
    old, new = answer.body["old"], answer.body["new"]
    if new is None:
        hint = "`tandem cluster` shows the new leader"
        raise CommandError(f"{old['coordinator']} was asked; no new leader is known yet. {hint}.")
    if new["epoch"] == old["epoch"]:
        raise CommandError(f"{old['coordinator']} was asked, and has not stepped down in time.")
    click.echo(
        f"{old['coordinator']} has handed over (term {old['epoch']}); "
        f"{new['coordinator']} leads in term {new['epoch']}."
    )
