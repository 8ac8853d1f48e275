// What is in doubt, and what is unfinished: what happens next, and finishing it now.

import { byId, duration, el, fill, list, number, say } from "./dom.js";
import { ask } from "./live.js";
import { link } from "./search.js";

const ANSWERS_MAX = 5;

const BRANCHES = [
  { name: "group", text: (item) => item.gtrid, mood: () => "id" },
  { name: "on", text: (item) => item.shard },
  { name: "age", text: (item) => duration(item.age_seconds), mood: () => "number" },
  { name: "home", text: (item) => item.home },
  { name: "decision", text: (item) => item.decision ?? "none yet" },
  { name: "what happens next", text: (item) => item.next, mood: () => "words" },
  { name: "finish it", make: resolveButton },
];

const UNFINISHED = [
  { name: "group", text: (item) => item.gtrid, mood: () => "id" },
  { name: "on", text: (item) => item.shard },
  { name: "age", text: (item) => duration(item.age_seconds), mood: () => "number" },
  { name: "phase", text: (item) => `${item.protocol}, ${item.phase}` },
  { name: "transfers", text: (item) => number(item.transfers), mood: () => "number" },
  { name: "one of them", make: (item) => link(item.transfer), mood: () => "id" },
  { name: "what happens next", text: whatNext, mood: () => "words" },
  { name: "finish it", make: resolveButton },
];

function whatNext(item) {
  const tries = item.attempts ? ` (failed tries: ${number(item.attempts)})` : "";
  const refusal = item.reason ? `. Refused: ${item.detail}` : "";
  return item.next + tries + refusal;
}

function resolveButton(item) {
  const label = `Resolve ${item.gtrid}`;
  const button = el("button", { type: "button", "aria-label": label }, "Resolve");
  button.addEventListener("click", async () => {
    button.disabled = true;
    say(button, "asking");
    const path = `/v1/admin/in-doubt/${encodeURIComponent(item.gtrid)}/resolve`;
    const answer = await ask(path, "resolve a group", { method: "POST" });
    note(item.gtrid, answer);
    button.disabled = false;
    say(button, "Resolve");
    if (document.activeElement === document.body) byId("doubt-title").focus();
  });
  return button;
}

/** Show the answer to `resolve`, beneath the table, where it stays. */
function note(gtrid, { body, problem }) {
  const words = body ? resolution(body) : `${problem.title}: ${problem.detail}`;
  const time = new Date().toISOString().slice(11, 19);
  byId("answers").prepend(el("li", {}, `${time} UTC `, el("code", {}, gtrid), ` ${words}`));
  while (byId("answers").children.length > ANSWERS_MAX) byId("answers").lastChild.remove();
}

/** What became of transfers, by their outcomes: "3 committed, 1 lapsed". */
function counted(transfers) {
  const counts = new Map();
  for (const { status } of transfers) counts.set(status, (counts.get(status) ?? 0) + 1);
  return list([...counts].map(([status, count]) => `${number(count)} ${status}`));
}

function resolution({ outcome, finished, unfinished, transfers }) {
  if (transfers.length) {
    const open = unfinished.map(({ shard, reason }) => `${shard} (${reason})`);
    const left = transfers.filter(({ phase }) => phase !== null).length;
    const rest = open.length ? ` Not finished, or cannot be looked for: ${list(open)}.` : "";
    return `${counted(transfers)}; ${left ? `${number(left)} of them unfinished` : "finished"}.${rest}`;
  }
  const what = outcome ? `is ${outcome}.` : "is not decided as far as can be seen now.";
  const done = finished.length ? ` Finished on ${list(finished)}.` : " No branch of it was left.";
  const left = unfinished.map(({ shard, reason }) => `${shard} (${reason})`);
  const rest = left.length ? ` Not finished, or cannot be looked for: ${list(left)}.` : "";
  return what + (finished.length || !left.length ? done : "") + rest;
}

export function showDoubt(state) {
  const { branches, unfinished, unreachable } = state.in_doubt;
  const total = state.in_doubt_total;
  const away = unreachable.map(({ shard }) => shard);
  byId("branches").hidden = byId("doubt-note").hidden = !branches.length;
  byId("unfinished").hidden = byId("unfinished-note").hidden = !unfinished.length;
  byId("doubt-none").hidden = branches.length > 0 || unfinished.length > 0;
  let none = "Nothing for longer than a second.";
  if (!state.cluster) none = "It cannot be seen now.";
  else if (away.length) none = `Nothing that can be seen. ${list(away)} cannot be asked.`;
  say(byId("doubt-none"), none);
  byId("doubt-none").className = !state.cluster || away.length ? "note" : "good";
  const more = total > branches.length ? `, ${number(branches.length)} of ${number(total)}` : "";
  say(byId("branches").caption, `Prepared branches, the oldest first${more}`);
  const body = byId("branches").tBodies[0];
  const isGone = fill(body, branches, (item) => `${item.gtrid} ${item.shard}`, BRANCHES);
  say(byId("unfinished").caption, `Unfinished transfers, the oldest first${rest(state)}`);
  const rows = byId("unfinished").tBodies[0];
  // One of its transfers is named in a row: if that is another, so is the row.
  const keyOf = ({ gtrid, shard, phase, transfer }) => `${gtrid} ${shard} ${phase} ${transfer}`;
  if (fill(rows, unfinished, keyOf, UNFINISHED) || isGone) byId("doubt-title").focus();
}

/** How many are shown, if that is not all. */
function rest(state) {
  const shown = state.in_doubt.unfinished.reduce((sum, item) => sum + item.transfers, 0);
  const total = state.unfinished_total;
  return total > shown ? `, ${number(shown)} of ${number(total)}` : "";
}
