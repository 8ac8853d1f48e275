// Small helpers for the page. Everything from outside comes in as text, never as markup.

export const byId = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; a text among the children stays text. */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Put a text where another one is; nothing happens if it is the same. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Make the rows of a table's body be `items`. Rows that stay are kept, with the focus in them.
 * A column is {name, text(item)} or {name, make(item)}, which is called once; `mood(item)` gives
 * the cell's class. Returns whether a row was removed that had the focus.
 */
export function fill(body, items, keyOf, columns) {
  const wanted = new Map(items.map((item) => [keyOf(item), item]));
  let focusIsLost = false;
  for (const row of [...body.rows]) {
    if (wanted.has(row.dataset.key)) continue;
    focusIsLost ||= row.contains(document.activeElement);
    row.remove();
  }
  const there = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  [...wanted].forEach(([key, item], index) => {
    const row = there.get(key) ?? newRow(key, item, columns);
    columns.forEach((column, place) => {
      const cell = row.cells[place];
      if (column.text) say(cell, column.text(item));
      if (column.mood) cell.className = column.mood(item);
    });
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
  });
  return focusIsLost;
}

function newRow(key, item, columns) {
  const cells = columns.map((column, place) => {
    const cell = place ? el("td", { "data-label": column.name }) : el("th", { scope: "row" });
    if (column.make) cell.append(column.make(item));
    return cell;
  });
  return el("tr", { "data-key": key }, ...cells);
}

const WIDTH = 240;
const HEIGHT = 40;

export function newLine(label) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "line");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  return svg;
}

/** Draw values, the newest at the right, `most` of them across; null leaves a gap. */
export function draw(svg, values, most) {
  if (!svg.firstChild) {
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.append(document.createElementNS(SVG, "path"));
  }
  const top = Math.max(...values.filter((value) => value !== null), 0) || 1;
  const start = most - values.length;
  let path = "";
  let isDrawing = false;
  values.forEach((value, index) => {
    if (value === null) {
      isDrawing = false;
      return;
    }
    const x = ((start + index) * WIDTH) / (most - 1);
    const y = HEIGHT - 1 - (value / top) * (HEIGHT - 3);
    // A point that stands alone is a line of no length, which round ends make a dot.
    path += isDrawing ? `L${x.toFixed(1)} ${y.toFixed(1)}` : `M${x.toFixed(1)} ${y.toFixed(1)}h0`;
    isDrawing = true;
  });
  svg.firstChild.setAttribute("d", path);
}

// --- words ----------------------------------------------------------------------------------

const whole = new Intl.NumberFormat("en");

export const number = (value) => whole.format(value);

export const amount = (value, currency) => `${whole.format(value)} ${currency}`.trim();

export function rate(value) {
  if (value === null) return "–";
  return value > 0 && value < 10 ? value.toFixed(1) : whole.format(Math.round(value));
}

/** Seconds in words, with two units at most. */
export function duration(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${number(Math.floor(hours / 24))} d ${hours % 24} h`;
}

export function milliseconds(seconds) {
  const ms = seconds * 1000;
  return ms < 1000 ? `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms` : `${seconds.toFixed(1)} s`;
}

/** A time of the API, which is in UTC, to the millisecond. */
export const moment = (text) => text.replace("T", " ").replace(/(\.\d{3})\d*Z$/, "$1 UTC");

export const list = (names) => names.join(", ");
