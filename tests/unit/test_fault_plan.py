"""What TANDEM_FAULTS may say, when a fault fires, and that no product contains any of it."""

import ast
import configparser
import fnmatch
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from faults import points
from faults.plan import FaultsError, Mode, Plan, Traits, parse

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "before-commit": Traits(True, set(Mode)),
    "after-decision": Traits(True, set(Mode)),
    "before-answer": Traits(False, {Mode.KILL, Mode.DELAY}),
}
AT = ("before-commit", "s1")
CHANCY = "before-commit=cut%0.5"


def fired(plan: Plan, point: str, shard: str | None, times: int) -> list[Mode | None]:
    faults = [plan.take(point, shard) for _ in range(times)]
    return [fault and fault.mode for fault in faults]


def test_every_part_of_an_item() -> None:
    plan = parse("seed=7; before-commit@s2=delay:0.5*3%0.25 ;after-decision=kill;", ALLOWED)
    one, other = plan.faults
    assert (one.point, one.shard, one.mode, one.seconds) == ("before-commit", "s2", "delay", 0.5)
    assert (one.left, one.probability) == (3, 0.25)
    assert (other.point, other.shard, other.mode) == ("after-decision", None, "kill")
    assert (other.left, other.probability) == (None, 1)
    assert plan.seed == 7
    assert plan.points == ["before-commit", "after-decision"]


def test_written_as_it_was_read() -> None:
    text = "before-commit@s2=delay:0.5*3%0.25; after-decision=cut"
    assert "; ".join(map(str, parse(text, ALLOWED).faults)) == text


def test_nothing_asked_for() -> None:
    plan = parse(" ; ", ALLOWED, seed=3)
    assert plan.faults == []
    assert plan.seed == 3
    assert plan.take("before-commit", "s1") is None


@pytest.mark.parametrize(
    ("item", "complaint"),
    [
        ("before-commit", "POINT"),
        ("before-commit=", "POINT"),
        ("before-commit=kill*", "POINT"),
        ("before-commit=kill%0.5*2", "POINT"),
        ("before-commit@S2=kill", "POINT"),
        ("before-commit=delay:-1", "POINT"),
        ("before-comit=kill", "no point 'before-comit'; allowed: before-commit, after-decision"),
        ("before-commit=die", "'die' is no mode of before-commit; allowed: kill, kill-worker"),
        ("before-answer=cut", "'cut' is no mode of before-answer; allowed: kill, delay"),
        ("before-answer@s1=kill", "before-answer is on no shard; allowed: no @SHARD"),
        ("before-commit=kill*0", "allowed: a count of at least 1"),
        ("before-commit=kill%0", "allowed: above 0, at most 1"),
        ("before-commit=kill%1.5", "allowed: above 0, at most 1"),
        ("before-commit=delay", "delay with :SECONDS"),
        ("before-commit=kill:1", "other modes without"),
        ("seed=1", "seed=N as the first"),
    ],
)
def test_bad_item_is_named(item: str, complaint: str) -> None:
    with pytest.raises(FaultsError) as caught:
        parse(f"after-decision=cut; {item}", ALLOWED)
    assert repr(item) in str(caught.value)
    assert "allowed: " in str(caught.value)
    assert complaint in str(caught.value)


def test_fires_on_its_shard_alone() -> None:
    plan = parse("before-commit@s2=cut", ALLOWED)
    assert fired(plan, "before-commit", "s1", 2) == [None, None]
    assert fired(plan, "before-commit", "s2", 2) == [Mode.CUT, Mode.CUT]
    assert fired(plan, "after-decision", "s2", 1) == [None]
    assert fired(parse("before-commit=cut", ALLOWED), "before-commit", "s1", 1) == [Mode.CUT]


def test_fires_so_many_times() -> None:
    plan = parse("before-commit=cut*2", ALLOWED)
    assert fired(plan, "before-commit", "s1", 4) == [Mode.CUT, Mode.CUT, None, None]


def test_one_after_the_other_at_one_point() -> None:
    plan = parse("before-commit=cut*1; before-commit=freeze*1", ALLOWED)
    assert fired(plan, "before-commit", "s1", 3) == [Mode.CUT, Mode.FREEZE, None]


def test_fires_with_its_probability() -> None:
    counts = Counter(fired(parse("seed=1;before-commit=cut%0.1", ALLOWED), *AT, 10_000))
    assert 800 < counts[Mode.CUT] < 1200
    counts = Counter(fired(parse("seed=1;before-commit=cut*5%0.1", ALLOWED), *AT, 10_000))
    assert counts[Mode.CUT] == 5


def test_same_seed_same_chances() -> None:
    runs = [fired(parse(f"seed={seed};{CHANCY}", ALLOWED), *AT, 50) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_each_life_has_chances_of_its_own() -> None:
    """A worker in the place of one that was killed is not bound to die at the same step."""
    first, second, again = (parse(CHANCY, ALLOWED, seed=1) for _ in range(3))
    second.begin_life()
    again.begin_life()
    runs = [fired(plan, *AT, 50) for plan in (first, second, again)]
    assert runs[0] != runs[1]
    assert runs[1] == runs[2]


def test_every_name_exists_in_the_product() -> None:
    points.check_targets()


def test_name_that_is_gone_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = points.POINTS["before-lock"]._replace(targets=("shard_client.branch:Branch.lokc",))
    monkeypatch.setattr(points, "POINTS", {**points.POINTS, "before-lock": lost})
    with pytest.raises(FaultsError, match=r"no shard_client\.branch:Branch\.lokc \(any more\)"):
        points.weave(parse("after-lock=cut", points.traits()))


def test_each_point_takes_every_mode_that_makes_sense() -> None:
    """Each can kill, freeze and delay; and fail or cut, if there is a connection."""
    for name, point in points.POINTS.items():
        refused = set() if point.has_shard else {Mode.FAIL, Mode.CUT}
        for mode in Mode:
            item = f"{name}={mode}:1" if mode is Mode.DELAY else f"{name}={mode}"
            if mode in refused:
                with pytest.raises(FaultsError):
                    parse(item, points.traits())
            else:
                assert parse(item, points.traits()).points == [name]


def test_no_package_of_the_product_has_it() -> None:
    """What is built for users contains no test build, and nothing in it could load one."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    included = config["options.packages.find"]["include"].split()
    assert included
    assert not [pattern for pattern in included if fnmatch.fnmatch("faults", pattern)]
    product = [path for name in included for path in ROOT.glob(f"{name}/**/*.py")]
    assert len(product) > 30
    assert [path for path in product if "faults" in imported(path)] == []


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, wherever in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("name", ["TANDEM_FAULTS", "TANDEM_PLANT"])
def test_product_refuses_to_be_switched(name: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "coordinator"],
        env={"PYTHONPATH": str(ROOT), name: "before-commit=kill"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert f"{name} is no setting" in ended.stderr


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("TANDEM_FAULTS", "before-comit=kill", "there is no point 'before-comit'; allowed: before"),
        ("TANDEM_PLANT", "bug", "there is no bug 'bug' to plant; allowed: commit-without-decision"),
    ],
)
def test_test_build_refuses_what_it_does_not_know(name: str, text: str, complaint: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "faults"],
        env={"PYTHONPATH": str(ROOT), name: text},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert complaint in ended.stderr
