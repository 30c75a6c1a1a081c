// Events with a beginning and an end: from the scores of windows as EventTracker in Python (helpers/tagger/events.py), and from
// frames. An event is {label index, start, end, score (the highest), mean}.

export const THRESHOLD = 0.3;

/** Each window stands for a cell: the time that is nearer to its middle than to those of its neighbours. An event begins where a
 * class reaches the threshold, and ends where it falls below half of it. */
export class EventTracker {
  #open = new Map(); // class -> its beginning, its scores so far
  #middle = null; // of the last window
  #end = 0;

  constructor(threshold = THRESHOLD) {
    this.threshold = threshold;
    this.offThreshold = threshold / 2;
  }

  /** Take the scores of the window from `start` to `end`, in seconds; return events that end. */
  push(start, end, scores) {
    const middle = (start + end) / 2;
    const boundary = this.#middle === null ? start : (this.#middle + middle) / 2;
    this.#middle = middle;
    this.#end = end;
    const ended = [];
    for (const k of [...this.#open.keys()]) if (scores[k] < this.offThreshold) ended.push(this.#close(k, boundary));
    for (let k = 0; k < scores.length; k++) {
      if (this.#open.has(k)) this.#open.get(k).scores.push(scores[k]);
      else if (scores[k] >= this.threshold) this.#open.set(k, { start: boundary, scores: [scores[k]] });
    }
    return ended;
  }

  /** Return the events that last until the end of the last window. */
  finish() {
    return [...this.#open.keys()].map((k) => this.#close(k, this.#end));
  }

  #close(k, end) {
    const { start, scores } = this.#open.get(k);
    this.#open.delete(k);
    const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length;
    return { label: k, start, end, score: Math.max(...scores), mean };
  }
}

/** Return the edges of the cells of windows, one more than there are windows. */
export function cellEdges(starts, ends) {
  const count = starts.length;
  return Float64Array.from({ length: count + 1 }, (_, i) => {
    if (i === 0) return starts[0];
    if (i === count) return ends[count - 1];
    return (starts[i - 1] + ends[i - 1] + starts[i] + ends[i]) / 4;
  });
}
