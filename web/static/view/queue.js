// The list of recordings, with the progress of each.

import { clock } from "./format.js";

export class QueueView {
  #items = new Map(); // recording -> its elements

  constructor(list, open, remove) {
    Object.assign(this, { list, open, remove });
  }

  update(recordings, selected, isLive) {
    for (const [recording, item] of this.#items) {
      if (recordings.includes(recording)) continue;
      item.root.remove();
      this.#items.delete(recording);
    }
    for (const recording of recordings) {
      const item = this.#items.get(recording) ?? this.#add(recording);
      const { state, message, progress, seconds } = recording;
      item.root.classList.toggle("selected", recording === selected);
      item.root.classList.toggle("failed", state === "failed");
      item.open.setAttribute("aria-current", String(recording === selected));
      item.open.disabled = isLive || state === "failed";
      item.state.classList.toggle("bad", state === "failed");
      item.text.textContent = { waiting: "waiting", working: "", done: clock(seconds, 0), failed: `${message}.` }[state];
      item.progress.hidden = state !== "working";
      if (progress === null) item.progress.removeAttribute("value");
      else item.progress.value = progress;
    }
  }

  #add(recording) {
    const root = document.createElement("li");
    const open = document.createElement("button");
    open.type = "button";
    open.className = "open";
    const name = document.createElement("span");
    name.textContent = recording.name;
    open.append(name);
    open.addEventListener("click", () => this.open(recording));
    const state = document.createElement("span");
    state.className = "state muted numbers";
    const text = document.createElement("span");
    const progress = document.createElement("progress");
    progress.setAttribute("aria-label", `Progress of ${recording.name}`);
    state.append(text, progress);
    const remove = document.createElement("button");
    remove.type = "button";
    remove.className = "remove";
    remove.textContent = "\u2715";
    remove.setAttribute("aria-label", `Remove ${recording.name}`);
    remove.addEventListener("click", () => this.remove(recording));
    root.append(open, state, remove);
    this.list.append(root);
    const item = { root, open, state, text, progress };
    this.#items.set(recording, item);
    return item;
  }
}
