"""The console in a real browser: what it shows, how it is used, and that it says when it is old."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import msgspec
import pytest
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect

from coordinator.security.tokens import Scope, add, new_token, table_of
from ledger.ids import transfer_id
from tests import browser as chromium
from tests.bank import Bank, Load
from tests.cluster import Cluster, Coordinator
from tests.contract.begun import Begun
from tests.contract.http import Town, in_doubt, item, visit
from tests.faults.leftovers import Leftover, now_ms

PHONE: ViewportSize = {"width": 320, "height": 640}
DESK: ViewportSize = {"width": 1280, "height": 900}
# What is hostile as markup, as an address, and as a string of JavaScript.
HOSTILE = "<img src=x onerror=alert(1)>'\"</script>&amp;"

expect.set_options(timeout=15_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.browser() as running:
        yield running


@pytest.fixture(scope="module")
def watched(
    mysql_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Coordinator]:
    """A coordinator of the tests' own, which they may freeze and kill."""
    log = tmp_path_factory.mktemp("watched") / "log"
    overrides = {"TANDEM_COORDINATOR_WORKERS": "1"}
    with mysql_cluster.coordinator("watched", log, overrides) as running:
        yield running


@pytest.fixture
def page(browser: Browser, watched: Coordinator) -> Iterator[Page]:
    """The console, live. Nothing may go wrong in it, whatever is done with it."""
    context = browser.new_context(base_url=watched.url)
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("dialog", lambda dialog: faults.append(dialog.message))
    opened.on(
        "console",
        lambda message: faults.append(message.text) if "Security" in message.text else None,
    )
    opened.goto("/console")
    expect(opened.locator("#touch")).to_have_text("live")
    yield opened
    context.close()
    assert faults == []


@pytest.fixture
def town(mysql_cluster: Cluster) -> Town:
    return visit(mysql_cluster)


def search(page: Page, text: str) -> None:
    """By keyboard alone."""
    page.keyboard.press("/")
    page.keyboard.type(text)
    page.keyboard.press("Enter")


def focused(page: Page) -> str:
    """The label or the text of what has the focus."""
    found: str = page.evaluate(
        "document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText"
    )
    return found


def tab_to(page: Page, label: str) -> None:
    for _ in range(100):
        page.keyboard.press("Tab")
        if focused(page) == label:
            return
    raise AssertionError(f"no way by Tab to {label}")


def row(page: Page, table: str, text: str) -> Locator:
    return page.locator(f"{table} tbody tr", has_text=text)


# --- what it shows --------------------------------------------------------------------------


def test_the_cluster_and_its_leader(page: Page, watched: Coordinator) -> None:
    told = httpx.get(f"{watched.url}/v1/admin/cluster", trust_env=False, verify=False).json()
    for one in told["coordinators"]:
        leads = f"yes, epoch {one['epoch']}" if one["leader"] else "no"
        shown = row(page, "#coordinators", one["address"])
        expect(shown.locator("th, td")).to_have_text(
            [one["id"], leads, str(one["processes"]), one["address"]]
        )
    assert page.locator("#coordinators tbody tr").count() == len(told["coordinators"])
    for one in told["shards"]:
        expect(row(page, "#shards", one["id"])).to_contain_text("in use")
        expect(row(page, "#shards", one["id"])).to_contain_text(one["server_version"])
    expect(page.locator("#map")).to_contain_text(f"version {told['shard_map_version']} is in force")
    expect(page.locator("h1")).to_have_text("Tandem watched")
    expect(page.locator("#verdict")).to_contain_text("No money is moving through watched")


def test_numbers_move_while_transfers_do(
    page: Page, watched: Coordinator, mysql_cluster: Cluster
) -> None:
    bank = Bank(mysql_cluster, 6)
    expect(page.locator("#committed")).to_have_text("0")
    with Load(bank, [watched.url]).running(2):
        expect(page.locator("#committed")).to_have_text(re.compile("^[1-9]"))
        expect(page.locator("#verdict")).to_contain_text("Money is moving through watched")
        holds = page.locator("#holds tbody tr")
        expect(holds.nth(1)).to_be_visible()
        for place, name in enumerate(("on the home", "on other shards")):
            expect(holds.nth(place)).to_contain_text(re.compile(rf"^{name}[\d.]+ ms[\d.]+ ms\d+"))
        line = page.locator("#committed-line path")
        expect(line).to_have_attribute("d", re.compile(r"^M[\d. h]+(L[\d. ]+)+"))


# --- what is in doubt -----------------------------------------------------------------------


def test_what_is_in_doubt_is_resolved_by_keyboard(page: Page, mysql_cluster: Cluster) -> None:
    decided, undecided = (Leftover(Bank(mysql_cluster, 2), "zz", now_ms()) for _ in range(2))
    for left in (decided, undecided):
        left.prepare()
    decided.decide()
    for left, decision, deed in (
        (decided, "committed", "commits it, as home"),
        (undecided, "none yet", "asks home"),
    ):
        shown = row(page, "#branches", left.gtrid)
        expect(shown.locator("td").nth(0)).to_have_text(left.remote)
        expect(shown.locator("td").nth(1)).to_have_text(re.compile(r"^\d+ s$"))
        expect(shown.locator("td").nth(2)).to_have_text(left.home)
        expect(shown.locator("td").nth(3)).to_have_text(decision)
        expect(shown.locator("td").nth(4)).to_contain_text(deed)
    expect(page.locator("#verdict")).to_contain_text("something is stuck")
    expect(page.locator("#troubles code")).to_have_text("tandem in-doubt list")
    age = row(page, "#branches", decided.gtrid).locator("td").nth(1)
    before = age.inner_text()
    expect(age).not_to_have_text(before)
    for left, outcome in ((undecided, "aborted"), (decided, "committed")):
        tab_to(page, f"Resolve {left.gtrid}")
        page.keyboard.press("Enter")
        answer = page.locator("#answers li", has_text=left.gtrid)
        expect(answer).to_contain_text(f"is {outcome}. Finished on {left.remote}.")
        expect(row(page, "#branches", left.gtrid)).to_have_count(0)
        # The focus is where the row was, not at the top of the page.
        assert focused(page) == "What is in doubt?"
    decided.check(is_committed=True)
    undecided.check(is_committed=False)


def test_what_is_unfinished_is_resolved_by_keyboard(page: Page, town: Town) -> None:
    alice, bob = town.pair(funds=10)
    nobody = town.name("s2")
    forward = Begun(town, "saga", alice, bob, 4).until("crediting")
    backward = Begun(town, "saga", alice, nobody, 3).until("compensating")
    for begun, deed, status, outcome in (
        (forward, f"the credit to account {bob} on s2 is repeated", "Pending", "1 committed"),
        (backward, f"the refund to account {alice} on s1", "Refused, for good", "1 rejected"),
    ):
        shown = row(page, "#unfinished", begun.gtrid)
        expect(shown.locator("td").nth(0)).to_have_text("s1")
        expect(shown.locator("td").nth(1)).to_have_text(re.compile(r"^\d+ s$"))
        expect(shown.locator("td").nth(2)).to_have_text(f"saga, {begun.phase}")
        expect(shown.locator("td").nth(3)).to_have_text("1")
        expect(shown.locator("td").nth(5)).to_contain_text(deed)
        expect(page.locator("#verdict")).to_contain_text("something is stuck")
        expect(page.locator("#troubles code")).to_have_text("tandem in-doubt list")
        # One of its transfers is followed from there.
        shown.locator("a").click()
        expect(page.locator("#result .status")).to_contain_text(status)
        page.keyboard.press("Escape")
        tab_to(page, f"Resolve {begun.gtrid}")
        page.keyboard.press("Enter")
        answer = page.locator("#answers li", has_text=begun.gtrid)
        expect(answer).to_contain_text(f"{outcome}; finished.")
        expect(row(page, "#unfinished", begun.gtrid)).to_have_count(0)
        assert focused(page) == "What is in doubt?"
    expect(row(page, "#shards", "s1").locator("td").nth(2)).to_have_text("0")
    assert (town.balance(alice), town.balance(bob)) == (6, 4)


# --- searching and following ----------------------------------------------------------------


def test_an_account_with_its_statement(page: Page, town: Town) -> None:
    alice, bob = town.pair(funds=100)
    batch = [item(alice, bob, 1, f"k{number}") for number in range(25)]
    assert town.api.post("/v1/transfers/batch", json={"transfers": batch}).status_code == 200
    search(page, alice)
    expect(page.locator("#result-title")).to_have_text(f"Account {alice}")
    expect(page.locator("#result dd").first).to_have_text("75 EUR")
    entries = page.locator("#result tbody tr")
    expect(entries).to_have_count(20)
    expect(entries.first.locator("td").last).to_have_text("75")
    tab_to(page, "Older")
    page.keyboard.press("Enter")
    expect(entries).to_have_count(6)
    expect(entries.last.locator("td").last).to_have_text("100")
    # A newer entry comes by itself, once the newest are shown again.
    page.locator("#result button", has_text="Newest").click()
    assert town.transfer(alice, bob, 5).status_code == 201
    expect(entries.first.locator("td").last).to_have_text("70")
    expect(page.locator("#result dd").first).to_have_text("70 EUR")
    # Its transfer, its counterparty, and back.
    entries.first.locator("a").first.click()
    expect(page.locator("#result-title")).to_contain_text("Transfer")
    page.locator("#result dl a", has_text=bob).click()
    expect(page.locator("#result-title")).to_have_text(f"Account {bob}")
    page.go_back()
    page.go_back()
    expect(page.locator("#result-title")).to_have_text(f"Account {alice}")
    page.keyboard.press("Escape")
    expect(page.locator("#result")).to_be_hidden()
    assert page.evaluate("document.activeElement.id") == "query"


def steps(page: Page) -> Locator:
    return page.locator("#result .steps li")


def test_a_transfer_is_followed_while_it_is_settled(page: Page, town: Town) -> None:
    alice, bob = town.pair(funds=5)
    with in_doubt(town, alice, bob, 5, "k") as transfer:
        search(page, transfer.id)
        expect(page.locator("#result .status")).to_contain_text("Pending")
        moods = ["done", "done", "done", "waits", "under way", "waits", "waits"]
        expect(steps(page).locator(".mood")).to_have_text(moods)
        expect(steps(page).nth(2)).to_contain_text(f"Written and prepared on s1, with {alice}")
        expect(steps(page).nth(4)).to_contain_text("none yet")
        transfer.decide()
        expect(page.locator("#result .status")).to_contain_text("Committed")
        moods = ["done", "done", "done", "done", "done", "waits", "done"]
        expect(steps(page).locator(".mood")).to_have_text(moods)
        transfer.commit()
        expect(steps(page).locator(".mood")).to_have_text(["done"] * 7)
        expect(steps(page).nth(5)).to_contain_text("Committed on s1 -5 makes 0")
        expect(steps(page).nth(6)).to_contain_text("Committed on s2 +5 makes 5")


def test_a_transfer_is_followed_through_its_phases(page: Page, town: Town) -> None:
    alice, bob = town.pair(funds=9)
    begun = Begun(town, "tcc", alice, bob, 4)
    search(page, begun.id)
    expect(page.locator("#result .status")).to_have_text(
        re.compile("^Pending: .* no money has moved")
    )
    moods = ["done", "done", "under way", "waits", "under way"]
    expect(steps(page).locator(".mood")).to_have_text(moods)
    expect(steps(page).nth(2)).to_contain_text(f"Reserved on s1, with {alice}")
    begun.until("confirming")
    expect(page.locator("#result .status")).to_contain_text("Committed")
    expect(steps(page).locator(".mood")).to_have_text(["done", "done", "done", "under way", "done"])
    expect(steps(page).nth(2)).to_contain_text(f"Moved on s1, with {alice} -4 makes 5")
    begun.until("confirmed")
    expect(steps(page).locator(".mood")).to_have_text(["done"] * 5)
    expect(steps(page).nth(3)).to_contain_text(f"Moved on s2, with {bob} +4 makes 4")


def test_a_refused_credit_is_followed_until_it_is_given_back(page: Page, town: Town) -> None:
    alice = town.account("s1", funds=9)
    begun = Begun(town, "saga", alice, town.name("s2"), 4).until("compensating")
    search(page, begun.id)
    expect(page.locator("#result .status")).to_contain_text("is about to come back")
    expect(page.locator("#result")).to_contain_text("account-not-found: ")
    expect(steps(page).nth(2)).to_contain_text("-4 makes 5")
    begun.until("compensated")
    expect(page.locator("#result .status")).to_contain_text("no money has moved")
    expect(steps(page).locator(".mood")).to_have_text(["done", "done", "ended", "ended", "ended"])
    expect(steps(page).nth(2)).to_contain_text("-4 makes 5, +4 makes 9")


def test_a_transfer_that_is_rolled_back_is_said_to_be_gone(page: Page, town: Town) -> None:
    alice, bob = town.pair(funds=5)
    with in_doubt(town, alice, bob, 5, "k") as transfer:
        search(page, transfer.id)
        expect(page.locator("#result .status")).to_contain_text("Pending")
        transfer.roll_back()
        expect(page.locator("#result-body")).to_contain_text("No money has moved by it")


def test_what_comes_from_users_stays_text(page: Page, town: Town) -> None:
    alice, bob = town.pair()
    # More than a double holds, too.
    metadata = {HOSTILE: [HOSTILE, 2**60 + 1]}
    key = "<b>key</b>"
    assert town.transfer(alice, bob, 5, key, metadata=metadata).status_code == 422
    search(page, transfer_id(alice, key))
    expect(page.locator("#result .status")).to_contain_text("Refused, for good")
    expect(page.locator("#result")).to_contain_text("insufficient-funds: account")
    shown = page.locator("#result pre").inner_text()
    assert HOSTILE.replace('"', '\\"') in shown
    assert "1152921504606846977" in shown
    search(page, HOSTILE)
    expect(page.locator("#result-title")).to_have_text(f"Nothing is known of {HOSTILE}")
    assert page.locator("img, script:not([src])").count() == 0


# --- in touch? ------------------------------------------------------------------------------


def lost(page: Page) -> None:
    """Everything says that what is shown is old."""
    expect(page.locator("#lost")).to_be_visible(timeout=20_000)
    expect(page.get_by_role("alert")).to_have_text("Lost touch with watched: what is shown is old.")
    expect(page.locator("#lost-since")).to_contain_text(re.compile(r"Nothing new for \d+ s\."))
    expect(page.locator("#touch")).to_have_text("not live")
    expect(page).to_have_title("(lost touch) Tandem")
    expect(page.locator("main[data-old]")).to_be_visible()
    expect(page.locator("#now")).to_have_css("opacity", "0.55")


def back(page: Page) -> None:
    expect(page.locator("#lost")).to_be_hidden(timeout=20_000)
    expect(page.locator("#touch")).to_have_text("live")
    expect(page).to_have_title(re.compile("Tandem watched$"))
    assert page.locator("main[data-old]").count() == 0


def test_it_says_when_it_has_lost_touch(page: Page, watched: Coordinator) -> None:
    assert watched.process is not None
    os.killpg(watched.process.pid, signal.SIGSTOP)
    try:
        lost(page)
    finally:
        os.killpg(watched.process.pid, signal.SIGCONT)
    back(page)
    watched.kill()
    try:
        lost(page)
        expect(page.locator("#lost-since")).to_contain_text("It cannot be reached.")
        search(page, "alice")
        expect(page.locator("#result-title")).to_have_text("alice could not be looked for")
        page.keyboard.press("Escape")
    finally:
        watched.start()
    # By keyboard, rather than to wait for the next try.
    page.locator("#lost-retry").focus()
    page.keyboard.press("Enter")
    back(page)


# A stream that tells one state, and then that the shards keep the coordinator waiting; `tell` makes
# it tell another.
MADE_UP = """
  const send = (controller, text) => controller.enqueue(new TextEncoder().encode(text));
  window.fetch = async () => new Response(new ReadableStream({
    start(controller) {
      let at = 0;
      window.tell = (state) =>
        send(controller, `id: ${(at += 1000)}\\ndata: ${JSON.stringify(state)}\\n\\n`);
      window.tell(STATE);
      setInterval(() => send(controller, ": waiting\\n\\n"), 500);
    },
  }));
"""
STATE: dict[str, Any] = {
    "coordinator": "watched",
    "trouble": None,
    "cluster": None,
    "in_doubt": {"branches": [], "unfinished": [], "unreachable": []},
    "in_doubt_total": 0,
    "unfinished_total": 0,
    "totals": None,
}


@contextmanager
def shown(browser: Browser, watched: Coordinator, **changes: Any) -> Iterator[Page]:
    """The console with a state that is made up."""
    context = browser.new_context(base_url=watched.url)
    context.add_init_script(MADE_UP.replace("STATE", msgspec.json.encode(STATE | changes).decode()))
    page = context.new_page()
    page.goto("/console")
    expect(page.locator("#touch")).to_have_text("live")
    yield page
    context.close()


def test_slow_shards_are_told_from_a_lost_coordinator(
    browser: Browser, watched: Coordinator
) -> None:
    with shown(browser, watched) as page:
        expect(page.get_by_role("alert")).to_contain_text("its shards keep it waiting")
        expect(page.locator("main[data-old]")).to_be_visible()


def test_another_coordinators_totals_are_its_own(browser: Browser, watched: Coordinator) -> None:
    """Behind one address another may answer: what lies between their totals is no rate."""

    def state(coordinator: str, committed: int) -> dict[str, Any]:
        totals = {"committed": committed, "rejected": 0, "withdrawn": 0, "lock_hold": []}
        return STATE | {"coordinator": coordinator, "totals": totals}

    with shown(browser, watched, **state("watched", 5)) as page:
        committed = page.locator("#committed")
        page.evaluate("state => tell(state)", state("watched", 1_000))
        expect(committed).to_have_text(re.compile("^[1-9]"))
        page.evaluate("state => tell(state)", state("another", 1_000_000))
        expect(page.locator("#who")).to_have_text("another")
        expect(committed).not_to_have_text(re.compile("[0-9]"))
        expect(page.locator("#committed-most")).to_have_text("")


def test_what_is_wrong_is_told_with_what_to_type(browser: Browser, watched: Coordinator) -> None:
    unknown = {"server_version": None, "in_doubt": None, "unfinished": None}
    shard = {"id": "s2", "reachable": False, "slots": 1} | unknown
    cluster = {
        "coordinators": [
            {"id": "c1", "address": "a:1", "leader": False, "epoch": None, "processes": 2}
        ],
        "shards": [shard | {"trouble": HOSTILE}],
        "shard_map_version": 3,
        "zookeeper": "connected",
    }
    away = {"branches": [], "unfinished": [], "unreachable": [{"shard": "s2", "reason": "away"}]}
    with shown(browser, watched, cluster=cluster, in_doubt=away) as page:
        troubles = page.locator("#troubles li")
        expect(troubles.nth(0)).to_contain_text(f"Shard s2 is not used: {HOSTILE}.")
        expect(troubles.nth(1)).to_contain_text("No coordinator leads.")
        expect(troubles.locator("code")).to_have_text(["tandem shards check", "tandem cluster"])
        expect(page.locator("#verdict")).to_contain_text("nothing that can be seen is stuck")
        expect(page.locator("#doubt-none")).to_have_text(
            "Nothing that can be seen. s2 cannot be asked."
        )
        for place in (1, 2):
            expect(row(page, "#shards", "s2").locator("td").nth(place)).to_have_text("?")
    with shown(browser, watched, cluster=cluster | {"zookeeper": "away", "shards": []}) as page:
        expect(page.locator("#troubles li")).to_have_count(1)
        expect(page.locator("#troubles li")).to_contain_text("ZooKeeper does not answer.")
    with shown(browser, watched, trouble="no shard map") as page:
        expect(page.locator("#verdict")).to_have_text("The cluster cannot be seen.")
        expect(page.locator("#troubles li")).to_contain_text("no shard map")
        expect(page.locator("#doubt-none")).to_have_text("It cannot be seen now.")


def test_a_token_is_asked_for_and_kept_in_the_tab(
    browser: Browser, mysql_cluster: Cluster, tmp_path: Path
) -> None:
    file, secrets = tmp_path / "tokens.toml", {}
    for scope in (Scope.READ, Scope.ADMIN):
        secrets[scope] = new_token()
        scopes = [scope] if scope is Scope.READ else [Scope.READ, scope]
        add(file, scope.value, table_of(scope.value, secrets[scope], scopes, None, None))
    overrides = {"TANDEM_COORDINATOR_WORKERS": "1", "TANDEM_ACCESS_TOKENS_FILE": str(file)}
    with mysql_cluster.coordinator("guarded", tmp_path / "log", overrides) as running:
        context = browser.new_context(base_url=running.url)
        page = context.new_page()
        page.goto("/console")
        needed = page.locator("#access-why")
        expect(needed).to_contain_text(
            "To watch the cluster, a token with the scope read is needed"
        )
        page.keyboard.press("Escape")
        expect(page.locator("#access")).to_be_hidden()
        # Who does something that needs it is asked again, and so is who gives a wrong one.
        search(page, "alice")
        for token in ("wrong", secrets[Scope.READ]):
            expect(page.locator("#token")).to_be_focused()
            page.keyboard.type(token)
            page.keyboard.press("Enter")
            if token == "wrong":
                expect(needed).to_contain_text("the token is not known")
                expect(page.locator("#access")).to_be_visible()
        expect(page.locator("#touch")).to_have_text("live")
        left = Leftover(Bank(mysql_cluster, 2), "zz", now_ms())
        left.prepare()
        resolve = row(page, "#branches", left.gtrid).locator("button")
        resolve.click()
        expect(needed).to_contain_text("To resolve a group, a token with the scope admin is needed")
        expect(page.locator("#token")).to_be_focused()
        page.keyboard.type(secrets[Scope.ADMIN])
        page.keyboard.press("Enter")
        resolve.click()
        answers = page.locator("#answers li", has_text=left.gtrid)
        expect(answers.first).to_contain_text("is aborted")
        expect(answers.last).to_contain_text("needs the scope admin")
        kept = "[...Object.values(sessionStorage), ...Object.values(localStorage), document.cookie]"
        assert page.evaluate(kept) == [secrets[Scope.ADMIN], ""]
        context.close()


# --- for everybody --------------------------------------------------------------------------

FAULTS = (Path(__file__).parent / "console_faults.js").read_text()


@pytest.mark.parametrize(
    ("size", "scheme"), [(PHONE, "dark"), (DESK, "light")], ids=["phone-dark", "desk-light"]
)
def test_it_can_be_read_by_everybody(
    browser: Browser,
    watched: Coordinator,
    town: Town,
    size: ViewportSize,
    scheme: Literal["dark", "light"],
) -> None:
    """No sideways scrolling, enough contrast, a name for everything, tables that are tables."""
    alice, bob = town.pair(funds=500)
    context = browser.new_context(
        base_url=watched.url, viewport=size, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto("/console")
    begun = Begun(town, "saga", alice, town.name("s2"), 5).until("compensating")
    with in_doubt(town, alice, bob, 5, "k") as transfer:
        expect(row(page, "#branches", transfer.branch.gtrid)).to_be_visible()
        expect(row(page, "#unfinished", begun.gtrid)).to_be_visible()
        for shown in ("", alice, transfer.id, begun.id, "nobody"):
            if shown:
                search(page, shown)
                expect(page.locator("#result-title")).to_have_text(re.compile(f"^[TAN].*{shown}"))
            assert page.evaluate(FAULTS) == [], shown
    page_colour = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", page_colour))) < 64) is (scheme == "dark")
    moving = "e => parseFloat(getComputedStyle(e).transitionDuration)"
    assert page.locator("section").first.evaluate(moving) == 0
    context.close()


def test_the_keyboard_reaches_everything_in_order(page: Page) -> None:
    seen = []
    for _ in range(3):
        page.keyboard.press("Tab")
        seen.append(focused(page) or page.evaluate("document.activeElement.id"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
    assert seen == ["Skip to the content", "query", "Find"]
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query"
    page.keyboard.type("a/b")
    assert page.locator("#query").input_value() == "a/b"
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


# --- the page of the API --------------------------------------------------------------------


def test_the_documents_of_the_api(browser: Browser, watched: Coordinator) -> None:
    """They show all operations, and take nothing from elsewhere: nor are they asked to."""
    with browser.new_context(base_url=watched.url) as context:
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto("/docs/")
        document = httpx.get(f"{watched.url}/openapi.json", trust_env=False, verify=False).json()
        count = sum(len(operations) for operations in document["paths"].values())
        expect(page.locator(".opblock")).to_have_count(count)
        # One is opened and tried.
        page.locator("#operations-tag-operation, .opblock", has_text="/healthz").first.click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        expect(page.locator(".live-responses-table .response-col_status").last).to_contain_text(
            "200"
        )
        assert faults == []
        assert {url.partition("/docs")[0] for url in asked if "/docs" in url} == {watched.url}
        assert [url for url in asked if not url.startswith((watched.url, "data:"))] == []
