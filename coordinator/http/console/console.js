// The page for operators: what is so now, and whether that is still so.

import { byId, draw, duration, el, fill, milliseconds, newLine, number, rate, say } from "./dom.js";
import { showDoubt } from "./doubt.js";
import { watch } from "./live.js";
import "./search.js";

// Points of a line, one a second.
const POINTS = 120;
const HOLDS_WINDOW_MS = 60_000;
const HOLDS_POINT_MS = 5_000;
// The figures are the mean of so many seconds.
const FIGURE_POINTS = 5;
const STALE_MS = 5_000;

// --- is money moving? -----------------------------------------------------------------------

const FLOWS = ["committed", "rejected", "withdrawn"];
const flows = Object.fromEntries(FLOWS.map((name) => [name, []]));
// The last totals, with their time; the same for the lock hold times of the last minute.
let before = null;
let holds = [];
const holdLines = new Map();

/** Nothing was seen of this coordinator yet: another one's totals do not go on in its own. */
function forgetTotals() {
  before = null;
  holds = [];
  holdLines.clear();
  for (const name of FLOWS) flows[name].length = 0;
}

function takeTotals(totals, at) {
  if (before && at > before.at && FLOWS.every((name) => totals[name] >= before.totals[name])) {
    const seconds = (at - before.at) / 1000;
    for (const name of FLOWS) {
      push(flows[name], (totals[name] - before.totals[name]) / seconds);
    }
  } else if (before) {
    // The coordinator was started again, and counts from nothing.
    holds = [];
    for (const name of FLOWS) push(flows[name], null);
  }
  before = { totals, at };
  holds.push({ at, roles: new Map(totals.lock_hold.map((item) => [item.role, item])) });
  holds = holds.filter((item) => at - item.at <= HOLDS_WINDOW_MS);
  for (const name of FLOWS) {
    say(byId(name), rate(current(name)));
    const most = Math.max(...flows[name], 0);
    say(byId(`${name}-most`), most ? `, at most ${rate(most)}` : "");
    draw(byId(`${name}-line`), flows[name], POINTS);
  }
  showHolds(at);
}

function push(values, value) {
  values.push(value);
  if (values.length > POINTS) values.shift();
}

/** The rate of the last seconds, or null while there is none. */
function current(name) {
  const last = flows[name].slice(-FIGURE_POINTS).filter((value) => value !== null);
  return last.length ? last.reduce((sum, value) => sum + value, 0) / last.length : null;
}

const ROLES = {
  home: "on the home",
  remote: "on other shards",
  visit: "in steps of TC/C and Saga",
  recovered: "until recovered",
};

function showHolds(at) {
  const rows = Object.keys(ROLES).map((role) => {
    const counts = countsSince(role, at - HOLDS_WINDOW_MS);
    const latest = countsSince(role, at - HOLDS_POINT_MS);
    if (!holdLines.has(role)) holdLines.set(role, []);
    push(holdLines.get(role), latest.total ? quantile(latest, 0.99) : null);
    return { role, counts };
  });
  const seen = rows.filter((row) => row.counts.total > 0);
  byId("holds").hidden = !seen.length;
  byId("holds-none").hidden = seen.length > 0;
  fill(byId("holds").tBodies[0], seen, (row) => row.role, [
    { name: "where", text: (row) => ROLES[row.role] },
    { name: "half within", text: (row) => bound(row.counts, 0.5), mood: () => "number" },
    { name: "99 % within", text: (row) => bound(row.counts, 0.99), mood: () => "number" },
    { name: "groups", text: (row) => number(row.counts.total), mood: () => "number" },
    { name: "99 %, two minutes", make: (row) => newLine(`99 % within, ${ROLES[row.role]}`) },
  ]);
  for (const row of byId("holds").tBodies[0].rows) {
    draw(row.querySelector("svg"), holdLines.get(row.dataset.key), POINTS);
  }
}

/** How many locks were held up to each bound, of those that were let go since then. */
function countsSince(role, since) {
  const first = holds.find((item) => item.at >= since)?.roles.get(role);
  const last = holds.at(-1)?.roles.get(role);
  if (!last) return { seconds: [], counts: [], total: 0 };
  const counts = last.counts.map((count, index) => count - (first?.counts[index] ?? 0));
  return { seconds: last.seconds, counts, total: counts.at(-1) ?? 0 };
}

/** As Prometheus does it: evenly spread within a bucket. Infinity beyond the last bound. */
function quantile({ seconds, counts, total }, share) {
  const wanted = share * total;
  const index = counts.findIndex((count) => count >= wanted);
  if (seconds[index] === null) return Infinity;
  const low = index ? seconds[index - 1] : 0;
  const below = index ? counts[index - 1] : 0;
  return low + ((seconds[index] - low) * (wanted - below)) / (counts[index] - below);
}

function bound(counts, share) {
  const value = quantile(counts, share);
  return value === Infinity ? `over ${milliseconds(counts.seconds.at(-2))}` : milliseconds(value);
}

// --- who is there? --------------------------------------------------------------------------

const COORDINATORS = [
  { name: "coordinator", text: (item) => item.id },
  {
    name: "leads",
    text: (item) => (item.leader ? `yes, epoch ${item.epoch}` : "no"),
    mood: (item) => (item.leader ? "good" : ""),
  },
  { name: "processes", text: (item) => number(item.processes), mood: () => "number" },
  { name: "address", text: (item) => item.address, mood: () => "id" },
];

const count = (value) => (value === null ? "?" : number(value));

const SHARDS = [
  { name: "shard", text: (item) => item.id },
  {
    name: "state",
    text: (item) => (item.reachable ? "in use" : `not used: ${item.trouble}`),
    mood: (item) => (item.reachable ? "good" : "bad"),
  },
  { name: "prepared", text: (item) => count(item.in_doubt), mood: () => "number" },
  { name: "unfinished", text: (item) => count(item.unfinished), mood: () => "number" },
  { name: "slots", text: (item) => number(item.slots), mood: () => "number" },
  { name: "runs on", text: (item) => item.server_version ?? "?" },
];

function showCluster(cluster) {
  fill(byId("coordinators").tBodies[0], cluster.coordinators, (item) => item.id, COORDINATORS);
  fill(byId("shards").tBodies[0], cluster.shards, (item) => item.id, SHARDS);
  say(byId("map"), `Shard map version ${cluster.shard_map_version} is in force. `
    + `ZooKeeper: ${cluster.zookeeper}.`);
}

// --- in one line ----------------------------------------------------------------------------

/** What is wrong: [words, what to type]. */
function troublesOf(state) {
  if (!state.cluster) return [[`The cluster cannot be seen: ${state.trouble}.`, "tandem shards show"]];
  const found = [];
  const { cluster } = state;
  for (const shard of cluster.shards.filter((item) => !item.reachable)) {
    found.push([
      `Shard ${shard.id} is not used: ${shard.trouble}. Transfers that touch it get 503; all others `
        + "go on. It is taken back by itself.",
      "tandem shards check",
    ]);
  }
  if (cluster.zookeeper === "away") {
    found.push([
      "ZooKeeper does not answer. Transfers go on; no leader is elected, and coordinators finish "
        + "what is in doubt after its grace time.",
      "tandem cluster",
    ]);
  } else if (!cluster.coordinators.some((item) => item.leader)) {
    found.push([
      "No coordinator leads. Transfers go on; what others have left in doubt waits for the next leader.",
      "tandem cluster",
    ]);
  }
  if (state.in_doubt_total) {
    const oldest = duration(state.in_doubt.branches[0].age_seconds);
    found.push([
      `${number(state.in_doubt_total)} in doubt, the oldest for ${oldest}: what happens next stands `
        + "below.",
      "tandem in-doubt list",
    ]);
  }
  if (state.unfinished_total) {
    const oldest = duration(state.in_doubt.unfinished[0].age_seconds);
    found.push([
      `${number(state.unfinished_total)} unfinished by TC/C or Saga, the oldest for ${oldest}: what `
        + "happens next stands below.",
      "tandem in-doubt list",
    ]);
  }
  return found;
}

function showVerdict(state) {
  const troubles = troublesOf(state);
  const moves = current("committed") ? "Money is moving" : "No money is moving";
  const money = `${moves} through ${state.coordinator}`;
  const isAway = state.in_doubt.unreachable.length > 0;
  const none = isAway ? "nothing that can be seen is stuck" : "nothing is stuck";
  const isStuck = state.in_doubt_total || state.unfinished_total;
  const stuck = isStuck ? "something is stuck" : none;
  say(byId("verdict"), state.cluster ? `${money}, ${stuck}.` : "The cluster cannot be seen.");
  byId("now").className = troubles.length ? "bad" : "good";
  const list = byId("troubles");
  while (list.children.length > troubles.length) list.lastChild.remove();
  troubles.forEach(([words, command], index) => {
    const item = list.children[index] ?? list.appendChild(el("li", {}, el("span"), " ", el("code")));
    say(item.firstChild, words);
    say(item.lastChild, command);
  });
  const marks = troubles.length ? `(${troubles.length}) ` : "";
  say(document.querySelector("title"), `${marks}Tandem ${state.coordinator}`);
}

// --- in touch? ------------------------------------------------------------------------------

let latest = null;
// By this machine's clock: the last state, or word that it still holds; the last sign of life.
let freshAt = null;
let heardAt = null;
const opened = performance.now();
let failure = "";
let retryAt = 0;

function showTouch() {
  const now = performance.now();
  const age = now - (freshAt ?? opened);
  const isLost = (failure !== "" && age > 1500) || age > STALE_MS;
  byId("lost").hidden = !isLost;
  byId("main").toggleAttribute("data-old", isLost && latest !== null);
  say(byId("touch"), isLost ? "not live" : latest ? "live" : "connecting");
  byId("touch").className = isLost ? "bad" : "good";
  if (!isLost) {
    say(byId("lost-what"), "");
    return;
  }
  const who = latest ? latest.coordinator : "the coordinator";
  const isSilent = !failure && heardAt !== null && now - heardAt < STALE_MS;
  const what = latest ? "what is shown is old" : "there is nothing to show yet";
  say(byId("lost-what"), isSilent
    ? `${who} is there, but its shards keep it waiting: ${what}.`
    : `Lost touch with ${who}: ${what}.`);
  const next = retryAt > now ? ` Trying again in ${Math.ceil((retryAt - now) / 1000)} s.` : "";
  say(byId("lost-since"), `Nothing new for ${duration(age / 1000)}. ${failure}${next}`);
  say(document.querySelector("title"), "(lost touch) Tandem");
}

function fresh() {
  freshAt = heardAt = performance.now();
  failure = "";
  if (latest) showVerdict(latest);
  showTouch();
}

watch({
  state(state, at) {
    if (latest && latest.coordinator !== state.coordinator) forgetTotals();
    latest = state;
    say(byId("who"), state.coordinator);
    say(document.querySelector(".this"), state.coordinator);
    if (state.totals) takeTotals(state.totals, at);
    if (state.cluster) showCluster(state.cluster);
    showDoubt(state);
    byId("main").setAttribute("aria-busy", "false");
    fresh();
  },
  same(at) {
    if (latest?.totals) takeTotals(latest.totals, at);
    fresh();
  },
  heard() {
    heardAt = performance.now();
  },
  failed(why, pause) {
    failure = why;
    retryAt = performance.now() + pause;
    showTouch();
  },
});
setInterval(showTouch, 500);
byId("lost-retry").addEventListener("click", () => document.dispatchEvent(new Event("retry")));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
