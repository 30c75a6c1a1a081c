// Offline use: everything is kept at the first visit, but for the part of ONNX Runtime that is for graphics cards, which is kept when it was
// used. With a network, files come from there, so that a new version is seen at once.

const CACHE = "sound-tagger";
const FILES = [
  "./",
  "styles.css",
  "icon.svg",
  "live.js",
  "main.js",
  "microphone.js",
  "models.js",
  "recorder.js",
  "recordings.js",
  "worker.js",
  "analysis/analysis.js",
  "analysis/channels.js",
  "analysis/events.js",
  "analysis/frames.js",
  "analysis/live.js",
  "analysis/metadata.js",
  "analysis/model.js",
  "analysis/protobuf.js",
  "analysis/resampler.js",
  "analysis/runtime.js",
  "analysis/single_precision.js",
  "analysis/spectrogram.js",
  "analysis/windows.js",
  "decoding/flac.js",
  "decoding/mp3.js",
  "decoding/ogg.js",
  "decoding/packets.js",
  "decoding/reader.js",
  "decoding/sound.js",
  "decoding/wav.js",
  "view/bars.js",
  "view/colours.js",
  "view/exports.js",
  "view/format.js",
  "view/picture.js",
  "view/queue.js",
  "view/table.js",
  "view/texts.js",
  "view/timeline.js",
  "runtime/ort.wasm.bundle.min.mjs",
  "runtime/ort-wasm-simd-threaded.wasm",
  "models/mn04_distilled.onnx",
  "recordings/rock.ogg",
  "recordings/scene.ogg",
  "recordings/speech.ogg",
  "recordings/wind.ogg",
];

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)));
  self.skipWaiting();
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || !request.url.startsWith(self.registration.scope)) return;
  event.respondWith(fetched(event));
});

async function fetched(event) {
  const { request } = event;
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.status === 200) event.waitUntil(cache.put(request, response.clone()).catch(() => {})); // a full disk does no harm
    return response;
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}
