// All classes with their scores, which can be searched.

import { topClasses } from "./bars.js";
import { clock } from "./format.js";

export class ClassTable {
  #rows = []; // {label, row}

  /** `play` is called with the seconds to play from. */
  constructor(body, search, count, play) {
    Object.assign(this, { body, search, count, play });
    search.addEventListener("input", () => this.#filter());
  }

  /** Show the scores of a whole recording, and the highest of its windows. */
  show(labels, scores, track) {
    const order = topClasses(scores ?? track.highest ?? new Float32Array(labels.length));
    this.#rows = order.map((k) => ({ label: labels[k].toLowerCase(), row: this.#makeRow(labels[k], scores?.[k], track, k) }));
    this.body.replaceChildren(...this.#rows.map(({ row }) => row));
    this.#filter();
  }

  #makeRow(label, score, track, k) {
    const row = document.createElement("tr");
    const name = row.insertCell();
    name.textContent = label;
    const whole = row.insertCell();
    whole.className = "score";
    if (score !== undefined) {
      const pair = document.createElement("div");
      const value = document.createElement("span");
      value.textContent = score.toFixed(3);
      const meter = document.createElement("span");
      meter.className = "meter";
      const fill = document.createElement("i");
      fill.style.transform = `scaleX(${score})`;
      meter.append(fill);
      pair.append(value, meter);
      whole.append(pair);
    }
    const highest = row.insertCell();
    highest.className = "number highest";
    const at = row.insertCell();
    at.className = "number";
    if (track.highest) {
      highest.textContent = track.highest[k].toFixed(3);
      const button = document.createElement("button");
      const seconds = track.highestAt[k];
      button.type = "button";
      button.textContent = `\u25b6\ufe0e ${clock(seconds)}`;
      button.setAttribute("aria-label", `Play ${label} from ${clock(seconds)}`);
      button.addEventListener("click", () => this.play(seconds));
      at.append(button);
    }
    return row;
  }

  #filter() {
    const text = this.search.value.trim().toLowerCase();
    let shown = 0;
    for (const { label, row } of this.#rows) {
      row.hidden = !label.includes(text);
      shown += !row.hidden;
    }
    this.count.textContent = text ? `${shown} of ${this.#rows.length}` : `${this.#rows.length} classes`;
  }
}
