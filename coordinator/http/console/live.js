// Asking the API, and staying in touch with it.

import { byId, say } from "./dom.js";

const TOKEN = "tandem-token";
// Something comes every two seconds; after so long without, the connection is given up.
const SILENCE_MAX_MS = 7000;
const PAUSE_MIN_MS = 500;
const PAUSE_MAX_MS = 15000;

// --- tokens ---------------------------------------------------------------------------------

function headers() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

// Nobody is asked twice who has said "not now", until they do something that needs it.
let isDeclined = false;

/** Ask for a token with a scope, and say why the one that there is does not do. */
async function askForToken(answer, what, scope, isWanted) {
  const detail = (await problemOf(answer)).detail;
  if (isDeclined && !isWanted) return;
  const why = answer.status === 401 ? "the coordinator got none that it knows" : "this token lacks it";
  say(byId("access-why"), `To ${what}, a token with the scope ${scope} is needed; ${why}. ${detail}`);
  if (!byId("access").open) byId("access").showModal();
}

function decline() {
  isDeclined = true;
  putAway();
}

function putAway() {
  // Until it draws again, a browser gives the keys to the field that has just been hidden.
  byId("token").blur();
  byId("access").close();
}

byId("access-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, byId("token").value.trim());
  byId("token").value = "";
  isDeclined = false;
  putAway();
  document.dispatchEvent(new Event("token"));
});
byId("access-close").addEventListener("click", decline);
byId("access").addEventListener("cancel", decline);

const isForbidden = (answer) => answer.status === 401 || answer.status === 403;

// --- one question ---------------------------------------------------------------------------

async function problemOf(answer) {
  try {
    const told = await answer.json();
    return { title: told.title ?? "", detail: told.detail ?? "" };
  } catch {
    return { title: `It answers ${answer.status}`, detail: "" };
  }
}

/** JSON whose whole numbers stay exact: amounts go beyond what a double holds. */
export function parse(text) {
  return JSON.parse(text, (key, value, context) => {
    const isCut = typeof value === "number" && !Number.isSafeInteger(value);
    return isCut && /^-?\d+$/.test(context?.source ?? "") ? BigInt(context.source) : value;
  });
}

/**
 * {status, body} or {status, problem}; status 0: there was no answer. `what` is asked for, in words
 * that follow "to"; without it nobody is asked for a token.
 */
export async function ask(path, what, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", ...options, headers: headers() });
    if (answer.ok) return { status: answer.status, body: parse(await answer.text()) };
  } catch {
    return { status: 0, problem: { title: "No answer", detail: "The coordinator cannot be reached." } };
  }
  if (what && isForbidden(answer)) {
    await askForToken(answer.clone(), what, options.method === "POST" ? "admin" : "read", true);
  }
  return { status: answer.status, problem: await problemOf(answer) };
}

// --- the stream -----------------------------------------------------------------------------

/**
 * Watch the cluster for ever. `on.state(state, at)` is called with a state, `on.same(at)` when it
 * is as before, each with its time in ms; `on.heard()` with every sign of life, and
 * `on.failed(why, pause)` before each pause in ms after a failure.
 */
export async function watch(on) {
  let failures = 0;
  for (;;) {
    let why = "";
    const heard = () => {
      failures = 0;
      on.heard();
    };
    try {
      why = await follow({ ...on, heard });
    } catch (error) {
      why = error.name === "AbortError" ? "It has fallen silent." : "It cannot be reached.";
    }
    // A stream ends by itself after some minutes: that is no failure.
    const pause = why ? PAUSE_MIN_MS * 2 ** failures * (1 + Math.random() / 2) : PAUSE_MIN_MS;
    failures += why ? 1 : 0;
    const capped = Math.min(pause, PAUSE_MAX_MS);
    if (why) on.failed(why, capped);
    await rest(capped);
  }
}

/** Follow one stream to its end; returns why it was refused, or "". */
async function follow(on) {
  const connection = new AbortController();
  let watchdog;
  const wait = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => connection.abort(), SILENCE_MAX_MS);
  };
  wait();
  try {
    const answer = await fetch("/v1/admin/events", {
      headers: { ...headers(), Accept: "text/event-stream" },
      cache: "no-store",
      signal: connection.signal,
    });
    if (isForbidden(answer)) {
      await askForToken(answer, "watch the cluster", "read", false);
      return "It asks for a token.";
    }
    if (!answer.ok) return `It answers ${answer.status}: ${(await problemOf(answer)).detail}`;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return "";
      wait();
      on.heard();
      const frames = (rest + value).split("\n\n");
      rest = frames.pop();
      for (const frame of frames) hand(frame, on);
    }
  } finally {
    clearTimeout(watchdog);
  }
}

function hand(frame, on) {
  const same = /^: unchanged at (\d+)$/.exec(frame);
  if (same) on.same(Number(same[1]));
  const id = /^id: (\d+)$/m.exec(frame);
  const data = /^data: (.*)$/m.exec(frame);
  if (id && data) on.state(parse(data[1]), Number(id[1]));
}

/** Pause, unless there is a reason to try again at once. */
function rest(ms) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      document.removeEventListener("token", done);
      document.removeEventListener("retry", done);
      removeEventListener("online", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    document.addEventListener("token", done);
    document.addEventListener("retry", done);
    addEventListener("online", done);
  });
}
