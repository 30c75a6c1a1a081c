// The page: what is shown, and what a person can do.

import { Live } from "./live.js";
import { Models } from "./models.js";
import { Queue } from "./recordings.js";
import { Bars, topClasses } from "./view/bars.js";
import { exported } from "./view/exports.js";
import { clock } from "./view/format.js";
import { drawAxis, drawSpectrogram, drawWaveform } from "./view/picture.js";
import { QueueView } from "./view/queue.js";
import { ClassTable } from "./view/table.js";
import { $, alarm, say } from "./view/texts.js";
import { TimelineView } from "./view/timeline.js";

const player = new Audio();
let model = null; // {source, metadata, hasFrames}
let selected = null; // Recording
let live = null;
let position = 0; // seconds
let isDue = false; // whether a picture is to be drawn

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const queue = new Queue(worker, chosenResolution, recordingChanged);
const queueView = new QueueView($("queue"), select, (recording) => queue.remove(recording));
const bars = new Bars($("bars"));
const timeline = new TimelineView($("timeline"), seekPart);
const table = new ClassTable($("classes"), $("search"), $("count"), playFrom);

const models = new Models(worker, {
  async loading() {
    if (live) await stopLive();
    queue.ready = false;
  },
  loaded(loaded) {
    const isNew = loaded !== model;
    model = loaded;
    queue.ready = model !== null;
    if (!isNew) return;
    bars.clear();
    queue.restart();
  },
});

/* the worker */

const messages = {
  ready: () => models.start(),
  model: (message) => models.model(message),
  modelFailed: (message) => models.modelFailed(message),
  hasGraphicsCard: () => models.hasGraphicsCard(),
  fellBack: (message) => models.fellBack(message),
  liveOpened: ({ columnSeconds }) => live?.opened(columnSeconds),
  livePart({ columns }) {
    live?.heard(columns);
    redraw();
  },
  liveScores(message) {
    if (live) showNow(live.computed(message), "Now");
    redraw();
  },
  async liveFailed({ message }) {
    if (live) await stopLive();
    alarm(`Microphone: ${message}.`);
  },
};

worker.onmessage = ({ data }) => (messages[data.type] ?? ((message) => queue.take(message)))(data);
worker.onerror = () => {
  $("model-name").textContent = "none";
  alarm("The part of the page that computes could not be started; reload the page, or use a current browser.");
};
if (typeof WebAssembly === "undefined") {
  worker.terminate();
  $("model-name").textContent = "none";
  alarm("This browser has no WebAssembly, or it is switched off; nothing can be computed. Use another browser.");
}

/* recordings */

function chosenResolution() {
  const { value } = $("resolution");
  if (value === "auto") return null;
  const [window, hop] = value.split(" ").map(Number);
  return { window, hop };
}

function addFiles(files) {
  if (!files.length) return;
  if (model) alarm(null); // else it says why there is none
  const isModel = (file) => file.name.toLowerCase().endsWith(".onnx");
  models.choose([...files].filter(isModel).at(-1));
  const [first] = queue.add([...files].filter((file) => !isModel(file)));
  if (first && !live) select(first);
}

async function addExample(name) {
  const response = await fetch(`recordings/${name}`).catch(() => null);
  if (!response?.ok) return alarm(`${name} could not be loaded; reload the page.`);
  addFiles([new File([await response.blob()], name, { type: "audio/ogg" })]);
}

function recordingChanged(recording) {
  const { state, name } = recording;
  queueView.update(queue.recordings, selected, live !== null);
  $("queue-section").hidden = queue.recordings.length === 0;
  if (state === "done" && recording.scores) {
    const best = topClasses(recording.scores, 3).map((k) => model.metadata.labels[k]);
    if (recording === selected || queue.recordings.length > 1) say(`${name} is done: ${best.join(", ")}.`);
  }
  if (state === "failed") say(`${name}: ${recording.message}.`);
  if (state === "removed" && recording === selected) select(queue.recordings.at(-1) ?? null);
  if (recording === selected) showSelected();
}

function select(recording) {
  if (live) return;
  player.pause();
  selected = recording;
  position = 0;
  bars.clear();
  if (recording?.file.size) player.src = recording.url;
  else player.removeAttribute("src");
  $("span").value = "whole";
  queueView.update(queue.recordings, selected, false);
  showSelected();
}

function showSelected() {
  const isShown = selected !== null && selected.state !== "failed";
  $("result").hidden = !isShown;
  $("classes-section").hidden = !(isShown && selected.scores);
  if (!isShown) return;
  const { name, state, scores, track, warnings } = selected;
  $("result-title").textContent = name;
  const speed = selected.computeSeconds ? `, ${(selected.seconds / selected.computeSeconds).toFixed(0)} times as fast as the sound` : "";
  const took = state === "done" ? `Computed in ${selected.computeSeconds.toFixed(1)} s${speed}.` : "";
  $("notes").textContent = [took, ...warnings.map((warning) => `Note: ${warning}.`)].join(" ");
  if (scores && table.scores !== scores) {
    table.scores = scores;
    table.show(model.metadata.labels, scores, track);
  }
  redraw();
}

/* time */

function length() {
  return Math.max(selected?.seconds ?? 0, selected?.state === "done" ? 0 : (selected?.expected ?? 0), 0.01);
}

function currentView() {
  const total = length();
  const span = $("span").value === "whole" ? total : Math.min(total, Number($("span").value));
  return { start: Math.max(0, Math.min(total - span, position - span / 2)), span };
}

function seek(seconds) {
  if (live || !selected) return;
  position = Math.max(0, Math.min(length(), seconds));
  player.currentTime = position;
  redraw();
}

function seekPart(part) {
  const { start, span } = currentView();
  seek(start + part * span);
}

async function play() {
  try {
    if (position >= length() - 0.05) seek(0);
    await player.play();
  } catch (error) {
    if (error.name !== "AbortError") alarm(`${selected.name} cannot be played by this browser.`);
  }
}

function playFrom(seconds) {
  seek(seconds);
  play();
}

/* drawing, at most once for each frame of the screen */

function redraw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    draw();
  });
}

function draw() {
  if (live) return live.draw(timeline);
  if (!selected || $("result").hidden) return;
  if (!player.paused) position = player.currentTime;
  const { picture, track, events, state } = selected;
  const view = currentView();
  const total = length();
  $("play").classList.toggle("playing", !player.paused);
  $("play").setAttribute("aria-label", player.paused ? "Play" : "Pause");
  $("clock").textContent = `${clock(position)} / ${clock(total)}${state === "working" ? `, ${clock(selected.seconds)} computed` : ""}`;
  Object.assign($("position"), { max: total, value: position, hidden: false });
  $("position").setAttribute("aria-valuetext", `${clock(position)} of ${clock(total)}`);
  $("playhead").hidden = false;
  $("playhead").style.transform = `translateX(${((position - view.start) / view.span) * $("stack").clientWidth}px)`;
  if (picture) {
    drawSpectrogram($("spectrogram"), picture, view, model.metadata.sample_rate);
    drawWaveform($("waveform"), picture, view);
  }
  drawAxis($("axis"), view);
  timeline.draw(track, events, model?.metadata.labels ?? [], view);
  showNow(track.at(position), `At ${clock(position)}`);
  if (!player.paused) redraw();
}

function showNow(scores, title) {
  $("now-title").textContent = title;
  bars.show(scores, model?.metadata.labels ?? []);
  if (scores && (live || player.paused)) {
    const best = topClasses(scores, 5).map((k) => `${model.metadata.labels[k]} ${scores[k].toFixed(2)}`);
    $("now-text").textContent = best.join(", ");
  }
}

/* live */

async function startLive() {
  alarm(null);
  if (!model) return alarm("The model is not loaded yet; try again in a moment.");
  player.pause();
  $("microphone").disabled = true;
  try {
    live = await Live.open(worker, model.metadata, model.hasFrames);
    showLive(true);
  } catch (error) {
    alarm(error.message);
    $("microphone").disabled = false;
  }
}

async function stopLive() {
  const stopping = live;
  live = null;
  const { seconds, file } = await stopping.close();
  showLive(false);
  select(seconds ? queue.add([file])[0] : selected);
}

function showLive(isLive) {
  $("microphone").disabled = isLive;
  $("play").classList.toggle("live", isLive);
  document.body.classList.toggle("is-live", isLive);
  bars.clear();
  if (!isLive) return;
  $("play").classList.remove("playing");
  $("play").setAttribute("aria-label", "Stop");
  $("result-title").textContent = "Microphone";
  $("notes").textContent = live.about;
  $("result").hidden = false;
  for (const id of ["position", "playhead", "classes-section"]) $(id).hidden = true;
  queueView.update(queue.recordings, null, true);
  $("play").focus();
  say("Listening.");
}

/* what a person does */

$("choose-files").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", () => {
  addFiles([...$("files").files]);
  $("files").value = "";
});
$("microphone").addEventListener("click", startLive);
for (const button of document.querySelectorAll("[data-example]")) button.addEventListener("click", () => addExample(button.dataset.example));

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => event.relatedTarget || $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  addFiles([...event.dataTransfer.files]);
});

$("play").addEventListener("click", () => (live ? stopLive() : player.paused ? play() : player.pause()));
for (const name of ["play", "pause", "ended", "seeked"]) player.addEventListener(name, redraw);
player.addEventListener("ended", () => (position = length()));
$("position").addEventListener("input", () => seek(Number($("position").value)));
$("stack").addEventListener("pointerdown", (event) => {
  const move = ({ clientX }) => {
    const { left, width } = $("stack").getBoundingClientRect();
    seekPart(Math.max(0, Math.min(1, (clientX - left) / width)));
  };
  move(event);
  if ($("span").value !== "whole") return; // there, the picture moves below the pointer
  $("stack").setPointerCapture(event.pointerId);
  $("stack").onpointermove = move;
  $("stack").onpointerup = $("stack").onpointercancel = () => ($("stack").onpointermove = null);
});
$("span").addEventListener("change", redraw);
$("resolution").addEventListener("change", () => queue.restart());

for (const button of document.querySelectorAll("[data-download]")) {
  button.addEventListener("click", () => {
    const { labels, model_name } = model.metadata;
    const suffix = button.dataset.download;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([exported(suffix, selected, labels, model_name)]));
    link.download = `${selected.name.replace(/\.[^.]*$/, "")}.${suffix}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
}

new ResizeObserver(redraw).observe(document.body);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
if ("serviceWorker" in navigator) navigator.serviceWorker.register("service_worker.js").catch(() => {}); // without it, only offline use is lost
