"""`tandem eventstore`: what a ledger group's list says, and whether it is what it says."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coordinator.http.schemas import parse_time, time_text
from ledger.errors import Bug
from tandem.cli.terminal import CommandError, console, json_option, print_json, table
from tandem.local.progress import shown

if TYPE_CHECKING:
    from eventstore.look import ListView
    from eventstore.segments.frame import Frame

_REPORT_EVERY = 500


def _stamp(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    try:
        return parse_time(value) if value else None
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{value!r} is no time such as 2026-11-01T00:00:00Z") from error


folder_argument = click.argument(
    "folder", type=click.Path(exists=True, file_okay=False, path_type=Path)
)


@click.group()
def eventstore() -> None:
    """Look at the list of a ledger group, whether its node runs or not. It is not changed.

    A list holds every command that a group has decided, in one order, with what became of it. To
    feed the commands to a new machine must give the same outcomes again: that is what `verify`
    checks, from the first frame. A snapshot is what the machine had made of the list up to some
    frame: to begin with it is quicker, and gives the same.

    \b
    Examples:
      tandem eventstore verify data/g1
      tandem eventstore snapshot data/g1
      tandem eventstore show data/g1 42
      tandem eventstore state data/g1 --at 2026-11-30T12:00:00Z
      tandem eventstore history data/g1 --to history/g1
    """


@eventstore.command()
@folder_argument
@click.option(
    "--history",
    "kept",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Also compare the files that `history` has made there, row by row.",
)
@json_option
def verify(folder: Path, kept: Path | None, as_json: bool) -> None:
    """Replay the list in FOLDER from its first frame, and compare every outcome.

    Of each frame it checks the hashes, that it follows on the frame before, and that a new machine
    decides each of its commands as it was decided. Each snapshot has to be whole, and what that
    machine is after the same frame. What is written while it runs is not looked at. --history
    reads the list once more.

    \b
    Exit codes:
      0  all of it holds
      1  something does not: where, and both values, are told
      3  there is no list, or it cannot be read
    """
    files, wrong = 0, list[str]()
    with _told(), shown() as report:
        view = _view(folder)
        from eventstore.snapshots.audit import Audit
        from eventstore.verify import verify as run

        snapshots = Audit(view.snapshots, view.identity)

        def tell(seq: int) -> None:
            if seq % _REPORT_EVERY == 0:
                report(f"Replaying: frame {seq:,} of {view.until:,}")

        what = (folder, view.identity, view.new_machine, tell)
        found = run(*what, until=view.until, after=snapshots.after)
        if not view.is_held:
            snapshots.end(found.last)
        if kept:
            files, wrong = _history().check_history(view, folder, kept, tell)
    if violations := [*snapshots.violations, *wrong]:
        raise CommandError("\n".join(violations))
    if as_json:
        print_json(
            {
                "frames": found.frames,
                "commands": found.commands,
                "snapshots": snapshots.compared,
                "history_files": files,
                "last_hash": found.last.hash.hex(),
                "last_time": time_text(found.last.time_us),
                "state_digest": found.digest.hex(),
            }
        )
        return
    click.echo(
        f"The list holds: {found.frames:,} frames with {found.commands:,} commands, each decided "
        f"again as it was.\nSnapshots that hold: {snapshots.compared}\n"
        + (f"Files of history that hold: {files}\n" if kept else "")
        + f"Last frame: {time_text(found.last.time_us)}, hash {found.last.hash.hex()}\n"
        f"State after it: {found.digest.hex()}"
    )


@eventstore.command()
@folder_argument
@click.argument("seq", type=click.IntRange(min=1))
@json_option
def show(folder: Path, seq: int, as_json: bool) -> None:
    """Show frame SEQ of the list in FOLDER: its commands, and what became of each."""
    with _told():
        view = _view(folder)
        frame = view.reader.find(seq)
        told = list(_commands(frame))
    header = frame.header
    about = {
        "seq": header.seq,
        "time": time_text(header.time_us),
        "epoch": header.epoch,
        "node": header.node,
        "machine": header.machine,
        "flushed": header.flushed,
        "previous": header.previous.hex(),
        "hash": header.hash.hex(),
    }
    if as_json:
        print_json(about | {"commands": told})
        return
    for name, value in about.items():
        click.echo(f"{name:9} {value}")
    if told:
        columns = ("index", "command", "outcome", "details")
        made = table(*columns, right=("index",))
        for each in told:
            made.add_row(*(str(each[name]) for name in columns))
        console().print(made)


@eventstore.command()
@folder_argument
@click.option("--at", metavar="TIME", callback=_stamp, help="As of this moment, not of the last.")
@click.option("--account", "accounts", multiple=True, metavar="ID", help="Only these accounts.")
@json_option
def state(folder: Path, at: int | None, accounts: tuple[str, ...], as_json: bool) -> None:
    """Rebuild the accounts of FOLDER from the list, as they were at any moment.

    So are the transfers to and from other shards that were not finished then, unless only some
    accounts are asked for. A frame belongs to a moment if it is stamped with it, or before. What
    comes behind the newest snapshot of that time is replayed; without one, all of it is.
    """
    with _told(), shown() as report:
        view = _view(folder)
        report(f"Replaying up to frame {view.until:,}")
        machine, last = view.replayed(at_us=at)
        numbers = (
            [machine.number_of(each) for each in accounts] if accounts else range(len(machine))
        )
        missing = [id_ for id_, n in zip(accounts, numbers, strict=False) if n is None]
        if missing:
            when = f" at {time_text(at)}" if at is not None else ""
            raise CommandError(f"there is no account {', '.join(missing)} in {folder}{when}")
        found = [machine.account(number).account for number in numbers if number is not None]
        attempts = [] if accounts else [_attempt(each) for each in machine.unfinished()]
    if as_json:
        print_json(
            {
                "as_of": {"seq": machine.seq, "time": time_text(last.header.time_us)}
                if last
                else None,
                "accounts": [
                    {
                        "id": each.id,
                        "currency": each.currency,
                        "balance": each.balance,
                        "held": each.held,
                        "expected": each.expected,
                        "status": each.status,
                        "overdraft_limit": each.overdraft_limit,
                        "entry_count": each.entry_count,
                    }
                    for each in found
                ],
                "unfinished": attempts,
            }
        )
        return
    made = table("account", "balance", "currency", "held", "status", right=("balance", "held"))
    for each in found:
        made.add_row(each.id, f"{each.balance}", each.currency, f"{each.held}", each.status)
    console().print(made)
    if attempts:
        columns = tuple(attempts[0])
        made = table(*columns, title="Transfers to and from other shards that are not finished")
        for attempt in attempts:
            made.add_row(*(str(attempt[name]) for name in columns))
        console().print(made)
    if last:
        click.echo(f"After frame {machine.seq:,}, of {time_text(last.header.time_us)}.")


@eventstore.command()
@folder_argument
@json_option
def snapshot(folder: Path, as_json: bool) -> None:
    """Make a snapshot of the state after the last frame of FOLDER, in FOLDER/snapshots.

    It replays what comes behind the newest snapshot; the node may run meanwhile. The two newest are
    kept. A node that starts begins with the newest that is whole; one that is damaged, or not of
    this list, is passed over.

    \b
    Exit codes:
      0  it is there
      1  the list does not hold
      3  there is no list, or it cannot be read, or the snapshot not be written
    """
    with _told(), shown() as report:
        view = _view(folder)
        report(f"Replaying up to frame {view.until:,}")
        path = view.make_snapshot()
    if as_json:
        print_json({"file": str(path), "seq": view.until})
        return
    click.echo(f"{path}\nThe state after frame {view.until:,}.")


@eventstore.command()
@folder_argument
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The folder for the files; it is made if it is not there.",
)
@json_option
def history(folder: Path, to: Path, as_json: bool) -> None:
    """Write the transfers of FOLDER as Parquet files, for duckdb and the like.

    There is one file for each segment of the list that is sealed (64 MiB; the last one is still
    open): a row for each transfer, with its wish, its outcome, and the entry that it has made on
    either account, with the balance after it. A file is whole when it has its name, and final: it
    is left when this runs again. The node may run meanwhile. The list is replayed from its first
    frame, as by `verify`; `verify --history` compares every row of the files.

    \b
    Exit codes:
      0  the files are there
      1  a file is not what the list says, or the list does not hold
      3  there is no list, or it cannot be read
    """
    with _told(), shown() as report:
        view = _view(folder)
        make = _history().make_history

        def tell(seq: int) -> None:
            if seq % _REPORT_EVERY == 0:
                report(f"Replaying: frame {seq:,} of {view.until:,}")

        try:
            to.mkdir(parents=True, exist_ok=True)
            made = make(view, folder, to, tell)
        except OSError as error:
            raise CommandError(f"{error.filename or to}: {error.strerror or error}.") from error
    if as_json:
        print_json({"written": made.written, "left": made.left, "last_seq": made.last_seq})
        return
    click.echo(
        f"Files written to {to}: {made.written:,}; there before: {made.left:,}.\n"
        f"They go up to frame {made.last_seq:,} of {view.until:,}."
    )


def _history() -> Any:
    """What makes files, which takes an extra."""
    if not find_spec("pyarrow"):
        raise CommandError(
            "Parquet needs the package pyarrow, which is not installed: "
            "pip install 'tandem[parquet]'. Nothing was written."
        )
    from eventstore.history import files

    return files


def _view(folder: Path) -> "ListView":
    try:
        from eventstore.look import ListView
    except ModuleNotFoundError as error:
        raise CommandError(
            f"the event store is not installed ({error}): pip install 'tandem[eventstore]'"
        ) from None
    return ListView(folder)


class _CannotBeRead(CommandError):
    exit_code = 3


@contextmanager
def _told() -> Iterator[None]:
    """What is wrong with a list, as one paragraph."""
    try:
        yield
    except click.ClickException:
        raise
    except Exception as error:
        from eventstore.history.errors import HistoryDiffers
        from eventstore.segments.errors import Damaged, Differs, ListError

        # A Bug: a frame whose hashes are right holds what no machine can have decided.
        if not isinstance(error, ListError | HistoryDiffers | Bug):
            raise
        is_found = isinstance(error, Damaged | Differs | HistoryDiffers | Bug)
        raise (CommandError if is_found else _CannotBeRead)(str(error)) from error


def _commands(frame: "Frame") -> Iterator[dict[str, Any]]:
    """Each command of a frame in words."""
    from eventstore.rows import Code, each_text, unpack_texts

    body = frame.body
    details = {command: rest[1:] for command, *rest in body.outcomes.details.tolist()}
    all_texts = each_text(body.commands, body.texts)
    rows = zip(body.commands, body.outcomes.codes.tolist(), all_texts, strict=True)
    for index, (row, code, packed) in enumerate(rows):
        yield {
            "index": index,
            "command": _command(row, unpack_texts(packed)),
            "outcome": Code(code).name,
            "details": _details(Code(code), details.get(index, ())),
        }


def _details(code: Any, numbers: tuple[int, ...]) -> list[int | str]:
    """What a refusal is made of; the number of a currency as its letters."""
    from eventstore.rows import Code, currency_text

    if code in (Code.SOURCE_CURRENCY, Code.DESTINATION_CURRENCY):
        return [currency_text(numbers[0])]
    return list(numbers)


def _command(row: Any, texts: list[str]) -> str:
    """One command in words; an account that is not named in it by its number."""
    from eventstore.rows import NOBODY, Kind, StatusCode

    kind, amount = Kind(int(row["kind"])), int(row["amount"])
    currency = row["currency"].tobytes().rstrip(b"\0").decode("ascii")
    numbers = [f"#{int(row[side])}" for side in ("source", "destination")]
    match kind:
        case Kind.OPEN:
            limit = "no limit" if amount < 0 else f"an overdraft limit of {amount}"
            return f"open {texts[0]} in {currency} with {limit}"
        case Kind.STATUS:
            who = texts[0] if int(row["source"]) == NOBODY else numbers[0]
            return f"make {who} {StatusCode(amount).name.lower()}"
        case Kind.TRANSFER:
            key, metadata, *names = texts
            source, to = (name or number for name, number in zip(names, numbers, strict=True))
            told = f"transfer {amount} {currency} from {source} to {to}, key {key!r}"
            return told + (f", metadata {metadata}" if metadata else "")
        case Kind.BEGIN | Kind.CALL | Kind.ADVANCE:
            return _step(kind, row, texts)


def _attempt(each: Any) -> dict[str, Any]:
    """An attempt in words: what it is here, on the side of its source, of its destination."""
    return {
        "transfer": each.transfer.hex(),
        "protocol": each.protocol.name.lower(),
        "amount": each.amount,
        "phase": each.phase.name.lower(),
        "state": each.state.name.lower(),
        "since": time_text(each.since_us),
    }


def _step(kind: Any, row: Any, texts: list[str]) -> str:
    """A command of TC/C or Saga in words."""
    from eventstore.rows import CallCode, Kind, ProtocolCode, step_parts

    amount, currency = int(row["amount"]), row["currency"].tobytes().rstrip(b"\0").decode("ascii")
    whose = f"of {row['id'].tobytes().hex()} by {ProtocolCode(int(row['protocol'])).name.lower()}"
    if kind == Kind.ADVANCE:
        attempt, reason, detail = texts
        phase, event = step_parts(int(row["step"]))
        why = f" ({reason}: {detail})" if reason else ""
        return f"take {attempt} {whose} on from {phase.name.lower()}: {event.name.lower()}{why}"
    if kind == Kind.CALL:
        source, destination, attempt = texts
        what, to = CallCode(int(row["step"])).name.lower(), destination or f"#{row['destination']}"
        return f"{what} {attempt} {whose}: {amount} {currency} from {source} to {to}"
    key, metadata, source, destination, attempt = texts
    who = source or f"#{row['source']}"
    told = f"begin {attempt} {whose}: {amount} {currency} from {who} to {destination}, key {key!r}"
    return told + (f", metadata {metadata}" if metadata else "")
