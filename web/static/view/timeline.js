// The likeliest classes over time, a row for each: its scores as a curve of steps, and its events below.

import { cellEdges } from "../analysis/events.js";
import { topClasses } from "./bars.js";
import { prepare, theme } from "./colours.js";
import { clock } from "./format.js";

const ROWS = 8;
const LEAST = 0.1; // score that a class needs for a row, where others have it

/** Windows of a recording, and which of their scores are the highest. */
export class Track {
  starts = [];
  ends = [];
  scores = [];
  highest = null; // of each class
  highestAt = null; // seconds, the beginning of that window's cell

  /** Windows that end `kept` seconds or more before the last one are dropped. */
  constructor(kept = Infinity) {
    this.kept = kept;
  }

  push(window) {
    if (this.ends[0] <= window.end - this.kept) this.#drop(window.end - this.kept);
    this.#append(window);
  }

  #drop(before) {
    const windows = this.starts.map((start, i) => ({ start, end: this.ends[i], scores: this.scores[i] }));
    Object.assign(this, { starts: [], ends: [], scores: [], highest: null, highestAt: null, known: null });
    windows.filter(({ end }) => end > before).forEach((window) => this.#append(window));
  }

  #append({ start, end, scores }) {
    this.starts.push(start);
    this.ends.push(end);
    this.scores.push(scores);
    this.highest ??= new Float32Array(scores.length);
    this.highestAt ??= new Float32Array(scores.length);
    const middles = (this.starts.at(-2) + this.ends.at(-2) + start + end) / 4;
    const edge = this.starts.length > 1 ? middles : start;
    for (let k = 0; k < scores.length; k++) {
      if (scores[k] > this.highest[k]) [this.highest[k], this.highestAt[k]] = [scores[k], edge];
    }
  }

  edges() {
    if (this.known?.length !== this.starts.length + 1) this.known = this.starts.length ? cellEdges(this.starts, this.ends) : [];
    return this.known;
  }

  /** Return the scores at a time, null where there is no window. */
  at(seconds) {
    if (!this.starts.length) return null;
    return this.scores[Math.max(0, Math.min(this.scores.length - 1, firstAfter(this.edges(), seconds) - 1))];
  }
}

export class TimelineView {
  #rows = [];

  /** `seek` is called with the part of the width, from 0 to 1, of a click. */
  constructor(element, seek) {
    this.element = element;
    this.seek = seek;
  }

  draw(track, events, labels, view) {
    if (!track.highest) return this.element.replaceChildren();
    const best = topClasses(track.highest, ROWS).filter((k, rank) => rank < 3 || track.highest[k] >= LEAST);
    while (this.#rows.length < best.length) this.#rows.push(this.#makeRow());
    const shown = this.#rows.slice(0, best.length);
    if (this.element.children.length !== shown.length) this.element.replaceChildren(...shown.map((row) => row.root));
    best.forEach((k, rank) => {
      const row = shown[rank];
      const own = events.filter((event) => event.label === k);
      row.name.textContent = labels[k];
      row.value.textContent = track.highest[k].toFixed(2);
      const times = own.slice(0, 20).map(({ start, end }) => `${clock(start)} to ${clock(end)}`);
      const heard = times.length ? `; events: ${times.join(", ")}` : "";
      row.canvas.setAttribute("aria-label", `${labels[k]}: highest score ${track.highest[k].toFixed(2)} at ${clock(track.highestAt[k])}${heard}`);
      drawRow(row.canvas, track, k, own, view);
    });
  }

  #makeRow() {
    const root = document.createElement("div");
    root.className = "row";
    const name = document.createElement("span");
    const value = document.createElement("span");
    value.className = "number muted";
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.addEventListener("click", (event) => this.seek(event.offsetX / canvas.clientWidth));
    root.append(name, value, canvas);
    return { root, name, value, canvas };
  }
}

function drawRow(canvas, track, k, events, view) {
  const { context, width, height } = prepare(canvas);
  const { accent, event: eventColour } = theme();
  const edges = track.edges();
  const toX = (seconds) => ((seconds - view.start) / view.span) * width;
  const foot = height - 4;
  context.fillStyle = accent;
  for (let i = Math.max(0, firstAfter(edges, view.start) - 1); i < track.scores.length && edges[i] < view.start + view.span; i++) {
    const [from, to] = [toX(edges[i]), toX(edges[i + 1])];
    const tall = track.scores[i][k] * (foot - 2);
    context.fillRect(from, foot - tall, Math.max(1, to - from + 0.3), tall);
  }
  context.fillStyle = eventColour;
  for (const { start, end } of events) {
    const [from, to] = [Math.max(0, toX(start)), Math.min(width, toX(end))];
    if (to > from) context.fillRect(from, height - 3, Math.max(2, to - from), 3);
  }
}

/** Return the index of the first of ascending values that is greater than `value`. */
function firstAfter(values, value) {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] > value) high = middle;
    else low = middle + 1;
  }
  return low;
}
