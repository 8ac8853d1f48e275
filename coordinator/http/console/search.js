// What was searched for: an account with its statement, a transfer with its steps. The address
// says what is shown: #/ID

import { amount, byId, el, fill, moment, list, say } from "./dom.js";
import { ask } from "./live.js";

const PAGE = 20;
const AGAIN_MS = 2000;

const result = byId("result");
const title = byId("result-title");
const body = byId("result-body");

// What is shown now: {id, refresh()}; a later one makes the answers to an earlier one void.
// `refresh` says whether what is shown is true now.
let shown = null;
const isTrueForEver = async () => true;

export const addressOf = (id) => `#/${encodeURIComponent(id)}`;

export function link(id, text = id) {
  return el("a", { href: addressOf(id) }, text);
}

function route() {
  const match = /^#\/(.+)$/.exec(location.hash);
  if (match) {
    let id = match[1];
    try {
      id = decodeURIComponent(id);
    } catch {
      // As it stands: it is no id in any case.
    }
    show(id);
  } else if (location.hash === "" || location.hash === "#/") {
    shown = null;
    result.hidden = true;
  }
}

async function show(id) {
  const mine = { id, refresh: isTrueForEver };
  shown = mine;
  result.removeAttribute("data-old");
  byId("query").value = id;
  result.hidden = false;
  say(title, `Looking for ${id}`);
  body.replaceChildren();
  const name = encodeURIComponent(id);
  const [account, transfer] = await Promise.all([
    ask(`/v1/accounts/${name}`, "read an account"),
    ask(`/v1/admin/transfers/${name}`, "follow a transfer"),
  ]);
  if (shown !== mine) return;
  const parts = [];
  if (transfer.body) parts.push(transferPart(transfer.body, mine));
  if (account.body) parts.push(accountPart(account.body, mine));
  if (parts.length) {
    body.replaceChildren(...parts);
  } else {
    nothing(id, [account, transfer]);
  }
  title.focus();
}

function nothing(id, answers) {
  const failed = answers.filter((answer) => answer.status !== 404 && answer.status !== 400);
  if (!failed.length) {
    say(title, `Nothing is known of ${id}`);
    body.replaceChildren(
      el("p", {}, "There is no account and no transfer of this name. A transfer that was withdrawn "
        + "or rolled back leaves nothing: then no money has moved by it."),
    );
    return;
  }
  say(title, `${id} could not be looked for`);
  body.replaceChildren(
    ...failed.map(({ problem }) => el("p", {}, `${problem.title}: ${problem.detail}`)),
  );
}

function facts(pairs) {
  const dl = el("dl");
  for (const [name, value] of pairs) {
    if (value === null) continue;
    dl.append(el("div", {}, el("dt", {}, name), el("dd", {}, value)));
  }
  return dl;
}

// --- an account -----------------------------------------------------------------------------

const ENTRIES = [
  { name: "time", text: (entry) => moment(entry.created_at) },
  { name: "transfer", make: (entry) => link(entry.transfer_id) },
  { name: "with", make: (entry) => link(entry.counterparty) },
  { name: "amount", text: (entry) => amount(entry.amount, ""), mood: () => "number" },
  { name: "balance after", text: (entry) => amount(entry.balance, ""), mood: () => "number" },
];

function accountPart(account, mine) {
  say(title, `Account ${account.id}`);
  const terms = el("div");
  const state = (now) => {
    const limit = now.overdraft_limit === null ? "without limit" : amount(now.overdraft_limit, "");
    terms.replaceChildren(facts([
      ["balance", el("strong", {}, amount(now.balance, now.currency))],
      ["status", now.status],
      ["may go below zero by", limit],
      ["shard", now.shard],
      ["opened", moment(now.created_at)],
    ]));
  };
  state(account);

  const table = el("table", { class: "wide" },
    el("caption", {}, "Statement, the newest first, in the currency's minor unit"),
    el("thead", {}, el("tr", {}, ...ENTRIES.map(({ name }) => el("th", { scope: "col" }, name)))),
    el("tbody"));
  const note = el("p", { class: "note", role: "status" });
  const newest = el("button", { type: "button" }, "Newest");
  const older = el("button", { type: "button" }, "Older");
  const name = encodeURIComponent(account.id);
  // The cursor of the page that is shown, and of the one after it.
  let cursor = null;
  let next = null;

  async function turn(to, what) {
    const from = to === null ? "" : `&after=${encodeURIComponent(to)}`;
    const path = `/v1/accounts/${name}/entries?order=desc&limit=${PAGE}${from}`;
    const answer = await ask(path, what);
    if (shown !== mine) return;
    if (!answer.body) {
      say(note, `The statement cannot be read now. ${answer.problem.title}: ${answer.problem.detail}`);
      return;
    }
    const hadFocus = document.activeElement === newest || document.activeElement === older;
    cursor = to;
    next = answer.body.next;
    newest.disabled = cursor === null;
    older.disabled = next === null;
    if (fill(table.tBodies[0], answer.body.entries, (entry) => entry.transfer_id, ENTRIES)) {
      title.focus();
    }
    if (hadFocus && document.activeElement?.disabled !== false) title.focus();
    const count = answer.body.entries.length;
    say(note, count ? `${count} entries${cursor ? "" : ", as they come"}.` : "There are no entries.");
  }

  newest.addEventListener("click", () => turn(null, "read a statement"));
  older.addEventListener("click", () => turn(next, "read a statement"));
  turn(null, "read a statement");
  mine.refresh = async () => {
    const answer = await ask(`/v1/accounts/${name}`);
    if (shown !== mine || !answer.body) return false;
    state(answer.body);
    if (cursor === null) await turn(null);
    return true;
  };
  return el("div", {}, terms, table, note, el("p", { class: "buttons" }, newest, older));
}

// --- a transfer -----------------------------------------------------------------------------

const STATUS = {
  committed: "Committed: the money has moved, for good.",
  rejected: "Refused, for good: no money has moved.",
  pending: "Pending: its outcome is being settled.",
  unknown: "Its outcome is known to its home alone, which cannot be asked now.",
};

// What a transfer by TC/C or Saga that is not finished means for the money.
const PHASES = {
  trying: "Pending: the amount is reserved, and no money has moved.",
  confirming: "Committed: the money has left its source, for good, and is about to arrive.",
  cancelling: "Pending: it is being cancelled, and no money has moved.",
  crediting: "Pending: the money has left its source; the credit is repeated until it is answered.",
  compensating: "Refused, for good: the money has left its source, and is about to come back.",
};

const DECISIONS = {
  none: ["now", "none yet; until there is one, nothing has happened"],
  committed: ["done", "committed: from here on it has happened"],
  aborted: ["stopped", "aborted: it is rolled back, and nothing has happened"],
  collected: ["done", "committed, and collected since every branch has finished"],
  "not-kept": ["done", "none is kept: it was collected, or everything was written on one shard, "
    + "which needs none"],
  unknown: ["unknown", "home cannot be asked now"],
};

function transferPart(way, mine) {
  const part = el("div");
  const draw = (now) => part.replaceChildren(...transferBody(now));
  say(title, `Transfer ${way.id}`);
  draw(way);
  if (!isFinished(way)) {
    mine.refresh = async () => {
      const answer = await ask(`/v1/admin/transfers/${encodeURIComponent(way.id)}`);
      if (answer.status === 404) {
        part.replaceChildren(el("p", {}, el("strong", {}, "It is gone: it was rolled back, or "
          + "withdrawn before it was written. No money has moved by it.")));
        mine.refresh = isTrueForEver;
      } else if (answer.body) {
        const text = JSON.stringify(answer.body, plain);
        // A reader with a screen reader is not thrown back as long as nothing changes.
        if (text !== part.dataset.seen) draw(answer.body);
        part.dataset.seen = text;
        if (isFinished(answer.body)) mine.refresh = isTrueForEver;
      }
      return answer.status === 404 || Boolean(answer.body);
    };
  }
  return part;
}

const isFinished = (way) =>
  (way.status === "committed" || way.status === "rejected") &&
  way.phase === null &&
  way.parts.every((part) => part.stage === "committed" || part.stage === "undone");

const plain = (key, value) => (typeof value === "bigint" ? value.toString() : value);

function transferBody(way) {
  const said = facts([
    ["amount", el("strong", {}, amount(way.amount, way.currency))],
    ["from", link(way.source)],
    ["to", link(way.destination)],
    ["why refused", way.reason && `${way.reason}: ${way.detail}`],
    ["protocol", way.protocol],
    ["phase", way.phase],
    ["group", way.gtrid && el("code", {}, way.gtrid)],
    ["metadata", way.metadata && el("pre", {}, JSON.stringify(way.metadata, plain, 2))],
  ]);
  return [
    el("p", { class: `status ${way.status}`, role: "status" }, PHASES[way.phase] ?? STATUS[way.status]),
    el("ol", { class: "steps" }, ...steps(way)),
    said,
  ];
}

function steps(way) {
  const received = step("done", "Received", moment(way.created_at));
  if (!way.gtrid) {
    return [received, step("now", "In the queue", "of this coordinator; no shard has it yet")];
  }
  const grouped = step("done", "Accounts locked",
    `by coordinator ${way.coordinator}, in a group that was formed ${moment(way.grouped_at)}`);
  const goesThroughPhases = way.protocol !== "xa" && way.decision !== "not-kept";
  if (goesThroughPhases) return [received, ...phasedSteps(way)];
  if (way.status === "rejected") {
    return [received, grouped, ...way.parts.map((part) =>
      step("stopped", `Refused, and recorded on ${part.shard}`, part.because))];
  }
  const [mood, words] = DECISIONS[way.decision];
  const decided = way.decided_at && mood === "done" ? ` (${moment(way.decided_at)})` : "";
  return [
    received,
    grouped,
    ...way.parts.map((part) => written(part, way)),
    step(mood, `Decision on ${way.home}, its home`, words + decided),
    ...way.parts.map((part) => committed(part)),
  ];
}

const RECORDS = {
  none: ["now", "no outcome yet"],
  committed: ["done", "committed: from here on it is never taken back"],
  aborted: ["stopped", "refused, for good"],
};

function phasedSteps(way) {
  const begun = step("done", "Taken up",
    `by coordinator ${way.coordinator}, in a group that was formed ${moment(way.grouped_at)}`);
  const [mood, words] = RECORDS[way.decision];
  const decided = way.decided_at ? ` (${moment(way.decided_at)})` : "";
  return [begun, ...way.parts.map((part) => phasedStep(part)),
    step(mood, `Recorded on ${way.home}, its source's shard`, words + decided)];
}

/** How far one side is: reserved, moved, taken back. */
function phasedStep(part) {
  const whose = `${part.shard}, with ${list(part.accounts)}`;
  const moved = part.entries.map(entryLine);
  const words = moved.length ? list(moved) : part.because;
  if (part.stage === "unknown") return step("unknown", `What is on ${whose}?`, part.because);
  if (part.stage === "nothing") return step("waiting", `Nothing on ${whose}`, part.because);
  if (part.stage === "reserved") return step("now", `Reserved on ${whose}`, part.because);
  if (part.stage === "undone") return step("stopped", `Not done, or undone, on ${whose}`, words);
  if (moved.length) return step("done", `Moved on ${whose}`, words);
  return step("stopped", `Refused on ${whose}`, part.because);
}

/** Whether a shard has written and, if it is not the home of a group across shards, prepared. */
function written(part, way) {
  const whose = `${part.shard}, with ${list(part.accounts)}`;
  if (part.stage === "unknown") return step("unknown", `Written on ${whose}`, part.because);
  if (part.stage === "nothing") return step("waiting", `Not written on ${whose}`, part.because);
  const isBranch = part.shard !== way.home && way.decision !== "not-kept";
  if (!isBranch) return step("done", `Written on ${whose}`, "in the transaction that decides");
  return part.stage === "written"
    ? step("now", `Written on ${whose}`, part.because)
    : step("done", `Written and prepared on ${whose}`, "it has voted yes");
}

function committed(part) {
  if (part.stage === "unknown") return step("unknown", `Committed on ${part.shard}?`, part.because);
  if (part.stage !== "committed") {
    return step("waiting", `Not committed on ${part.shard}`, part.because);
  }
  const lines = part.entries.map(entryLine);
  return step("done", `Committed on ${part.shard}`, lines.length ? list(lines) : part.because);
}

function entryLine(entry) {
  const sign = entry.amount > 0 ? "+" : "";
  return `${sign}${amount(entry.amount, "")} makes ${amount(entry.balance, "")}`;
}

const MOODS = { done: "done", now: "under way", waiting: "waits", stopped: "ended", unknown: "not known" };

function step(mood, what, words) {
  return el("li", { class: mood }, el("span", { class: "mood" }, MOODS[mood]),
    el("span", {}, el("strong", {}, what), " ", words));
}

// --- the keyboard, the address --------------------------------------------------------------

export function close() {
  history.pushState(null, "", location.pathname);
  route();
  byId("query").focus();
}

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = byId("query").value.trim();
  if (!id) return;
  if (location.hash === addressOf(id)) show(id);
  else location.hash = addressOf(id);
});
byId("result-close").addEventListener("click", close);
addEventListener("hashchange", route);
document.addEventListener("token", route);
document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  const isTyping = event.target.matches("input, textarea, select");
  if (event.key === "/" && !isTyping && !byId("access").open) {
    event.preventDefault();
    byId("query").focus();
    byId("query").select();
  } else if (event.key === "Escape" && !result.hidden && !byId("access").open) {
    close();
  }
});
setInterval(async () => {
  const mine = shown;
  if (!mine || document.hidden) return;
  const isTrue = await mine.refresh();
  if (shown === mine) result.toggleAttribute("data-old", !isTrue);
}, AGAIN_MS);
route();
