// Results as files: the columns, keys and digits of inference.py's.

import { topClasses } from "./bars.js";

const TOP = 10; // tags of each window

/** Return the text of a finished recording's results, in one of the formats "csv", "json", "txt" (an Audacity label track). */
export function exported(format, recording, labels, model) {
  return { csv, json, txt: audacity }[format](recording, labels, model);
}

/** A row for each tag of each window. */
function csv({ name, track }, labels) {
  const rows = track.scores.flatMap((scores, i) =>
    topClasses(scores, TOP).map((k) => [name, digits(track.starts[i]), digits(track.ends[i]), labels[k], digits(scores[k])]),
  );
  return [["source", "start", "end", "label", "score"], ...rows].map((row) => `${row.map(cell).join(",")}\n`).join("");
}

/** The scores of the whole recording for all classes, and the tags of windows and the events. */
function json({ name, seconds, scores, track, events, warnings }, labels, model) {
  const tags = (values, count) => topClasses(values, count).map((k) => ({ label: labels[k], score: digits(values[k]) }));
  const windows = track.scores.map((values, i) => ({ start: digits(track.starts[i]), end: digits(track.ends[i]), tags: tags(values, TOP) }));
  const found = sorted(events).map(({ start, end, label, score, mean }) => ({
    start: digits(start),
    end: digits(end),
    label: labels[label],
    score: digits(score),
    mean: digits(mean),
  }));
  const result = { source: name, start: 0, end: digits(seconds), model, tags: tags(scores), windows, events: found };
  if (warnings.length) result.warnings = warnings;
  return `${JSON.stringify(result)}\n`;
}

/** A line for each event. */
function audacity({ events }, labels) {
  return sorted(events)
    .map(({ start, end, label }) => `${start.toFixed(6)}\t${end.toFixed(6)}\t${labels[label].replace(/\s+/g, " ").trim()}\n`)
    .join("");
}

export function sorted(events) {
  return events.slice().sort((a, b) => a.start - b.start || b.score - a.score);
}

function digits(number) {
  return Math.round(number * 1e6) / 1e6;
}

/** A cell that a spreadsheet takes neither for two nor for a formula, as safe_cell in datasets/csv_table.py. */
function cell(value) {
  if (typeof value === "number") return String(value);
  let text = value.replace(/[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g, escaped);
  if (/^(\s*[=+\-@]|[\t\r])/.test(value) && Number.isNaN(Number(value))) text = `'${text}`;
  return /[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function escaped(letter) {
  return { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[letter] ?? `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
