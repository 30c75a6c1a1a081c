// The top tags as bars that move to their rank.

const COUNT = 10;

export class Bars {
  #bars = new Map(); // class -> its elements

  constructor(element) {
    this.element = element;
  }

  /** Show the highest scores of a Float32Array, or nothing for null. */
  show(scores, labels) {
    const best = scores ? topClasses(scores, COUNT) : [];
    for (const [k, bar] of this.#bars) {
      if (best.includes(k)) continue;
      bar.root.style.opacity = 0;
      bar.root.style.transform = `translateY(${COUNT * 100}%)`;
      if (this.#bars.size > 3 * COUNT) {
        bar.root.remove();
        this.#bars.delete(k);
      }
    }
    best.forEach((k, rank) => {
      const bar = this.#bars.get(k) ?? this.#add(k, labels[k]);
      bar.root.style.opacity = 1;
      bar.root.style.transform = `translateY(${rank * 100}%)`;
      bar.value.textContent = scores[k].toFixed(2);
      bar.fill.style.transform = `scaleX(${scores[k]})`;
    });
  }

  clear() {
    this.#bars.clear();
    this.element.replaceChildren();
  }

  #add(k, text) {
    const root = document.createElement("div");
    root.className = "bar";
    root.style.transform = `translateY(${COUNT * 100}%)`;
    const label = document.createElement("span");
    label.className = "label";
    label.textContent = text;
    const value = document.createElement("span");
    value.className = "number";
    const meter = document.createElement("div");
    meter.className = "meter";
    const fill = document.createElement("i");
    meter.append(fill);
    root.append(label, value, meter);
    this.element.append(root);
    void root.offsetHeight; // from below, where it begins, it moves to its rank
    const bar = { root, value, fill };
    this.#bars.set(k, bar);
    return bar;
  }
}

/** Return the indices of the highest scores, highest first, equal ones by index. */
export function topClasses(scores, count = scores.length) {
  return Array.from(scores.keys())
    .sort((a, b) => scores[b] - scores[a] || a - b)
    .slice(0, count);
}
