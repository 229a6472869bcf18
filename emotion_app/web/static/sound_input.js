// Behaviour of the sound input (ui/sound_input.py). Runs once per page as the body of Gradio's js_on_load(element,
// trigger, props, server, upload, watch). The markup is patched in place when the language changes, so every listener
// sits on `element` or the document, and show() writes the state back after each patch.
const root = () => element.querySelector(".ser-input");
const $ = (selector) => element.querySelector(selector);
const said = (key) => root().getAttribute("data-" + key) || "";
const audio = new Audio();
let state = "idle"; // idle | recording | sending | chosen
let shown = {}; // of the chosen sound: name or example, bytes, seconds (null: cannot be played here)
let wave = null; // Float32Array of heights 0..1
let recorder = null;
const main = Boolean(element.closest("#ser-sound")); // else: each sound is submitted at once, several may be given
let waiting = []; // files behind the one that is being listened to
let turn = 0; // counts choices: the answer to an upload that was overtaken is thrown away

function show(trouble) {
  root().setAttribute("data-state", state);
  $("input[type=file]").multiple = !main;
  $(".ser-file b").textContent = shown.name || title(shown.example);
  $(".ser-file small").textContent = state === "sending" ? said("uploading") : facts();
  $(".ser-preview").disabled = !audio.src;
  if (trouble !== undefined) $(".ser-trouble").textContent = trouble;
  playing();
  draw();
}

function title(example) { // in the language of the moment
  const chip = [...element.querySelectorAll(".ser-example")].find((c) => c.getAttribute("data-example") === example);
  return chip ? chip.getAttribute("data-title") : example || "";
}

function facts() {
  if (!shown.bytes) return "";
  const length = shown.seconds ? [said("seconds").replace("{s}", shown.seconds.toFixed(1))] : [];
  return [...length, size(shown.bytes), ...(shown.seconds ? [] : [said("no-preview")])].join(" · ");
}

function playing() {
  const on = !audio.paused && !audio.ended;
  $(".ser-preview").classList.toggle("ser-on", on);
  $(".ser-preview").setAttribute("aria-label", said(on ? "pause" : "play"));
}

function draw() {
  const canvas = $("canvas");
  const width = canvas.clientWidth, height = canvas.clientHeight, scale = window.devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  if (!wave || !width) return;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const played = audio.duration ? audio.currentTime / audio.duration : 0;
  const ink = getComputedStyle(canvas).color, n = Math.floor(width / 3);
  for (let i = 0; i < n; i++) {
    const h = Math.max(2, wave[Math.floor((i / n) * wave.length)] * height);
    pen.globalAlpha = i / n < played ? 1 : 0.35;
    pen.fillStyle = ink;
    pen.fillRect(i * 3, (height - h) / 2, 2, h);
  }
}

async function look(bytes) {
  // Draw the sound before it is analyzed; what this browser cannot decode is still welcome.
  try {
    const sound = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(bytes);
    const data = sound.getChannelData(0), n = 240, heights = new Float32Array(n);
    let top = 1e-6;
    for (let i = 0; i < n; i++) {
      const from = Math.floor((i * data.length) / n), to = Math.floor(((i + 1) * data.length) / n);
      let sum = 0;
      for (let j = from; j < to; j += 4) sum += data[j] * data[j];
      heights[i] = Math.sqrt(sum / Math.max(1, (to - from) / 4));
      top = Math.max(top, heights[i]);
    }
    return { heights: heights.map((h) => h / top), seconds: sound.duration };
  } catch {
    return null;
  }
}

function forget() {
  audio.pause();
  if (audio.src.startsWith("blob:")) URL.revokeObjectURL(audio.src);
  audio.removeAttribute("src");
  wave = null;
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function clear(trouble) {
  turn += 1;
  if (main) window.serSending = null;
  forget();
  state = "idle";
  shown = {};
  props.value = null;
  show(trouble || "");
}

async function preview(blob, mine) {
  const seen = blob.size < 30e6 ? await look(await blob.arrayBuffer()) : null;
  if (mine !== turn) return;
  wave = seen ? seen.heights : null;
  if (seen) audio.src = URL.createObjectURL(blob);
  shown.bytes = blob.size;
  shown.seconds = seen ? seen.seconds : null;
  show();
}

async function take(file) {
  clear();
  if (file.size > Number(said("max-mb")) * 1e6) return show(said("too-large"));
  const mine = turn;
  state = "sending";
  shown = { name: file.name };
  show("");
  const looked = preview(file, mine);
  // Analyze may be pressed while the file is on its way: it waits for this promise (ui/analyze.py).
  const sending = upload(file).then((sent) => ({ path: sent.path, name: file.name }));
  if (main) window.serSending = sending.catch(() => null);
  try {
    const value = await sending;
    if (mine !== turn) return;
    props.value = value;
    state = "chosen";
    if (!main) trigger("submit", value);
    await looked;
    if (mine === turn) show();
  } catch (error) {
    console.warn("upload failed", error);
    waiting = [];
    if (mine === turn) clear(said("upload-failed"));
  }
}

function takeAll(files) {
  waiting = main ? [] : [...(state === "idle" ? [] : waiting), ...files.slice(state === "idle" ? 1 : 0)];
  if (main || state === "idle") take(files[0]);
}

async function takeExample(button) {
  clear();
  const mine = turn;
  state = "chosen";
  shown = { example: button.getAttribute("data-example") };
  props.value = { example: shown.example };
  show("");
  const answer = await fetch(button.getAttribute("data-url"));
  if (answer.ok && mine === turn) await preview(await answer.blob(), mine);
}

// --- recording: plain PCM, without the browser's echo, noise and gain processing (it changes how a voice sounds)
const WORKLET = `registerProcessor("ser-tap", class extends AudioWorkletProcessor {
  process(inputs) { const x = inputs[0][0]; if (x) this.port.postMessage(x.slice(0)); return true; } });`;

async function openMicrophone() {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  for (const options of [{ sampleRate: 16000 }, {}]) { // some browsers refuse a rate other than the device's
    const context = new AudioContext(options);
    try {
      const url = URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
      await context.audioWorklet.addModule(url);
      URL.revokeObjectURL(url);
      const tap = new AudioWorkletNode(context, "ser-tap", { numberOfOutputs: 0 });
      context.createMediaStreamSource(stream).connect(tap);
      return { stream, context, tap };
    } catch (error) {
      await context.close();
      if (!options.sampleRate) {
        stream.getTracks().forEach((track) => track.stop());
        throw error;
      }
    }
  }
}

async function record() {
  clear();
  if (!navigator.mediaDevices || !window.isSecureContext) return show(said("insecure"));
  const mine = turn;
  let mic;
  try {
    mic = await openMicrophone();
  } catch (error) {
    return show(said(error.name === "NotFoundError" ? "no-mic" : "denied"));
  }
  if (mine !== turn) return mic.stream.getTracks().forEach((track) => track.stop());
  recorder = { ...mic, parts: [], samples: 0 };
  const rate = mic.context.sampleRate;
  const most = Math.min(Number(said("max-s")) * rate, (Number(said("max-mb")) * 1e6 - 4096) / 2);
  mic.tap.port.onmessage = ({ data }) => {
    if (!recorder) return;
    const part = new Int16Array(data.length);
    let sum = 0;
    for (let i = 0; i < data.length; i++) {
      const x = Math.max(-1, Math.min(1, data[i]));
      part[i] = x < 0 ? x * 32768 : x * 32767;
      sum += x * x;
    }
    recorder.parts.push(part);
    recorder.samples += part.length;
    const level = Math.min(1, Math.sqrt(sum / data.length) * 5);
    $(".ser-level b").style.transform = `scaleX(${level.toFixed(2)})`;
    const seconds = Math.floor(recorder.samples / rate);
    $(".ser-clock").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    if (recorder.samples >= most) finish(true);
  };
  state = "recording";
  show("");
  $(".ser-rec-stop").focus();
}

function wav(parts, samples, rate) {
  const head = new DataView(new ArrayBuffer(44)), bytes = samples * 2;
  const text = (at, s) => [...s].forEach((c, i) => head.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF"); head.setUint32(4, 36 + bytes, true); text(8, "WAVEfmt "); head.setUint32(16, 16, true);
  head.setUint16(20, 1, true); head.setUint16(22, 1, true); head.setUint32(24, rate, true);
  head.setUint32(28, rate * 2, true); head.setUint16(32, 2, true); head.setUint16(34, 16, true);
  text(36, "data"); head.setUint32(40, bytes, true);
  return new Blob([head.buffer, ...parts], { type: "audio/wav" });
}

function finish(keep) {
  if (!recorder) return;
  const { stream, context, parts, samples } = recorder, rate = context.sampleRate;
  recorder = null;
  stream.getTracks().forEach((track) => track.stop());
  context.close();
  if (!keep || !samples) return clear();
  const now = new Date(), two = (n) => String(n).padStart(2, "0");
  const name = `${said("recording")} ${two(now.getHours())}-${two(now.getMinutes())}-${two(now.getSeconds())}.wav`;
  take(new File([wav(parts, samples, rate)], name, { type: "audio/wav" }));
}

// --- events
element.addEventListener("click", (event) => {
  const hit = (selector) => event.target.closest(selector);
  if (hit(".ser-rec")) record();
  else if (hit(".ser-rec-stop")) finish(true);
  else if (hit(".ser-rec-drop")) finish(false);
  else if (hit(".ser-remove")) clear();
  else if (hit(".ser-example")) takeExample(hit(".ser-example"));
  else if (hit(".ser-preview")) audio.paused ? audio.play() : audio.pause();
});
element.addEventListener("change", (event) => {
  if (event.target.type === "file" && event.target.files.length) takeAll([...event.target.files]);
  event.target.value = ""; // choosing the same file again is a choice
});
for (const name of ["play", "pause", "ended"]) audio.addEventListener(name, playing);
audio.addEventListener("timeupdate", draw);
audio.addEventListener("play", () => document.dispatchEvent(new CustomEvent("ser-plays", { detail: audio })));
document.addEventListener("ser-plays", ({ detail }) => detail !== audio && audio.pause());
document.addEventListener("ser-choose", () => main && $("input[type=file]").click());
window.addEventListener("resize", () => root() && draw());

// The whole window takes a drop: a file that misses the box must not replace the page.
let depth = 0;
const holdsFile = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
const seen = () => element.isConnected && element.offsetParent !== null;
document.addEventListener("dragenter", (event) => {
  if (holdsFile(event) && seen()) { depth += 1; root().classList.add("ser-over"); }
});
document.addEventListener("dragleave", (event) => {
  if (holdsFile(event) && seen() && --depth <= 0) { depth = 0; root().classList.remove("ser-over"); }
});
document.addEventListener("dragover", (event) => holdsFile(event) && seen() && event.preventDefault());
document.addEventListener("drop", (event) => {
  if (!holdsFile(event) || !seen()) return;
  event.preventDefault();
  event.stopPropagation();
  depth = 0;
  root().classList.remove("ser-over");
  if (event.dataTransfer.files.length && state !== "recording") takeAll([...event.dataTransfer.files]);
}, true);

watch("markup", () => show());
watch("value", () => { // the server is done with it
  if (main || props.value || state !== "chosen") return;
  clear();
  if (waiting.length) take(waiting.shift());
});
show("");
