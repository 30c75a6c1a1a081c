// Elements of the page by their ids, and its lines of text: one that everybody sees, and one for screen readers.

export const $ = (id) => document.getElementById(id);

/** Show a line at the top; null takes it away. */
export function alarm(text) {
  $("alert").hidden = !text;
  $("alert").textContent = text ?? "";
}

export function say(text) {
  $("status").textContent = text;
}
