// Behaviour of the Live page (ui/live.py): the last part of Gradio's js_on_load(element, trigger, props, server, upload,
// watch), one function body with live_stream.js, live_chart.js, live_view.js and live_keep.js. The markup is patched in
// place when the language changes, so listeners sit on `element` or the document, all state is here, and show() (in
// live_view.js) writes it back.
const $ = (selector) => element.querySelector(selector);
const root = () => $(".ser-live");
const read = (name) => JSON.parse(root().getAttribute(`data-${name}`));
const escapeHtml = (s) => String(s).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const REDUCED = matchMedia("(prefers-reduced-motion: reduce)");
const LISTED = 200, SILENT_FRAMES = 30, NOTICE_MS = 6000, NO_SHARE = "–";
const TIE = 0.01; // a lead smaller than this says nothing
let words, emotions, facts;

const fill = (name, values = {}) => words[name].replace(/{(\w+)}/g, (_, key) => values[key]);
const percent = (score) => `${(score < 1 ? Math.min(99.9, 100 * score) : 100).toFixed(1)} %`;
const indexOf = (key) => emotions.findIndex((e) => e.key === key);
const named = (i) => `${emotions[i].emoji} ${emotions[i].name}`;
const lasting = (s) => (s < 60 ? fill("seconds", { seconds: s.toFixed(1) })
  : fill("minutes", { minutes: Math.floor(s / 60), seconds: Math.floor(s % 60) }));

// --- state
let state = "idle"; // idle | asking | connecting | live | lost | ending | ended
let status = "idle"; // the name of the text in the state line
let trouble = null; // {key | event, act}
let mic = null, recording = null, connection = null, chart = null, wake = null;
let turn = 0, noticeTimer = 0;
let model = "auto", windowS = 3, baseline = "off";
let rules = remembered();
const fresh = () => ({ utterances: [], gaps: [], alerts: [], current: null, speaking: false, notes: [], model: "", loaded: false,
  late: 0, silent: 0, epoch: 0, banner: null, saved: null, limit: false });
let talk = fresh(), levels = [], level = 0;

// "saved" is the one that is chosen on the Analyze page; without one it is off.
const wireBaseline = () => (baseline === "saved" ? document.documentElement.getAttribute("data-ser-baseline") || "off" : baseline);

function remembered() {
  const first = [{ who: "angry", much: 70, how: "hold", s: 2, on: false }, { who: "negative", much: 50, how: "share", s: 60, on: false }];
  try {
    const kept = JSON.parse(localStorage.getItem("ser_live_rules"));
    return Array.isArray(kept) && kept.every((r) => r.who && r.much > 0 && r.s > 0 && ["hold", "share"].includes(r.how)) ? kept : first;
  } catch {
    return first;
  }
}

const ruleName = (r) => `${r.who} ${r.how === "hold" ? ">=" : ">"} ${r.much} % ${r.how === "hold" ? "for" : "of"} ${r.s} s`;
const ruleWords = (r) => fill(r.how, { who: r.who === "negative" ? words.negative : named(indexOf(r.who)), much: r.much, seconds: r.s });
const wireRules = () => rules.filter((r) => r.on).slice(0, facts.rules).map((r) => ({ name: ruleName(r), kind: r.how,
  emotions: r.who === "negative" ? facts.negative : [r.who], threshold: r.much / 100, for_s: r.s }));

// Gradio reloads the page once it can reach its server again after a break. That would throw the session away, so its
// question whether the server is back gets no answer while there is something to lose.
const unsaved = () => Boolean(recording) && state !== "idle";
window.serUnsaved = unsaved;
const askServer = window.fetch;
window.fetch = (what, ...rest) => {
  const url = String(what instanceof Request ? what.url : what);
  return unsaved() && /\/app_id$/.test(url) ? Promise.reject(new TypeError("a live session is open")) : askServer(what, ...rest);
};

// --- start and stop
async function start() {
  if (!["idle", "ended"].includes(state)) return;
  trouble = null;
  if (!window.isSecureContext || !navigator.mediaDevices) return fail("insecure");
  if (!window.AudioWorkletNode) return fail("unsupported");
  const mine = ++turn;
  talk = fresh();
  levels = [];
  recording = null;
  chart = new Chart(talk, levels);
  to("asking");
  let opened;
  try {
    opened = await openLiveMicrophone(heard, () => { if (mine === turn && mic) { fail("micgone", state); stop(); } });
  } catch (error) {
    if (mine !== turn) return;
    const key = error.why || { NotAllowedError: "denied", SecurityError: "denied", NotFoundError: "nomic" }[error.name] || "busymic";
    console.info("microphone:", error.name, error.message);
    to("idle");
    return fail(key);
  }
  if (mine !== turn) return opened.close();
  mic = opened;
  recording = new Recording(mic.rate);
  const config = { model: facts.models[model], window_s: windowS, baseline: wireBaseline(), alerts: wireRules() };
  connection = new Connection(recording, config, (what, told) => { if (mine === turn) HEARD[what](told || {}); });
  if (navigator.wakeLock) navigator.wakeLock.request("screen").then((lock) => { wake = lock; }, () => {}); // a phone stays awake
  requestAnimationFrame(follow);
}

async function stop() {
  if (state === "asking") { // the permission may still be given: then it is handed back at once
    turn += 1;
    return to("idle");
  }
  if (!mic) return;
  const closing = mic;
  mic = null;
  if (wake) wake.release();
  wake = null;
  to("ending");
  const last = await closing.close();
  if (last.length) heard(last);
  connection.end();
}

async function finish(key, event) { // the summary; with what went wrong, if something did
  turn += 1;
  if (connection) connection.close();
  if (mic) mic.close();
  mic = null;
  if (wake) wake.release();
  wake = null;
  talk.speaking = false;
  for (const utterance of talk.utterances) if (!utterance.final) freeze(utterance);
  talk.utterances = talk.utterances.filter((u) => u.final.cells.length || u.failed);
  if (key) fail(key, undefined, event);
  to(recording && recording.samples && connection && connection.everBegun ? "ended" : "idle");
}

function fail(key, next, event) {
  const code = event ? event.code : "";
  const act = key === "token" ? "reload" : code.startsWith("MODEL_") && model !== "lite" ? "lite"
    : ["micgone", "noend", "insecure", "unsupported"].includes(key) ? "" : "retry";
  trouble = { key, event, act };
  if (next) state = next;
  show();
}

function to(next, said = next) {
  state = next;
  status = said;
  show();
}

function notice(name) { // for some seconds, then what is always true
  status = name;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => { if (state === "live") to("live", talk.loaded ? "live" : "loading"); }, NOTICE_MS);
  show();
}

// --- sound
function heard(frame) {
  if (!recording || (!mic && state !== "ending")) return;
  let top = 0, sum = 0;
  for (const x of frame) { top = Math.max(top, Math.abs(x)); sum += x * x; }
  recording.push(frame);
  const rms = Math.sqrt(sum / frame.length) / 32768, db = 20 * Math.log10(rms + 1e-6);
  level = Math.max(0, Math.min(1, (db + 60) / 60));
  levels.push(Math.min(1, (4 * rms) ** 0.8));
  const was = talk.silent >= SILENT_FRAMES;
  talk.silent = top ? 0 : talk.silent + 1;
  if (was !== talk.silent >= SILENT_FRAMES) show();
  connection?.pump();
  meter(top >= 32700, db);
  if (recording.seconds >= facts.session_s && mic) { talk.limit = true; stop(); }
}

function meter(clipped, db) {
  const box = $(".ser-live-meter");
  box.querySelector("b").style.clipPath = `inset(0 ${(100 - 100 * level).toFixed(1)}% 0 0)`;
  box.classList.toggle("ser-live-clipped", clipped);
  box.setAttribute("aria-valuenow", Math.round(Math.max(-60, db)));
  $(".ser-live-clock").textContent = clockOf(recording ? recording.seconds : 0);
}

// --- what the connection tells
const HEARD = {
  connecting() { if (state === "asking") to("connecting"); },
  created() {
    connection.everBegun = true;
    talk.loaded = false;
    if (state !== "ending") to("live", status === "restarted" ? "restarted" : "loading");
  },
  resumed({ lostEvents }) {
    if (state === "ending") return;
    state = "live";
    notice(lostEvents ? "resumed_lost" : "resumed");
  },
  restarted({ wanted }) {
    talk.epoch += 1;
    talk.speaking = false;
    const begun = connection.begun;
    if (begun - wanted > 0.05) talk.gaps.push({ start: wanted, stop: begun });
    for (const utterance of talk.utterances) if (!utterance.final && utterance.start < begun - 0.05) freeze(utterance);
    talk.utterances = talk.utterances.filter((u) => u.final); // the others come again
    state = "live";
    notice("restarted");
  },
  lost() { if (state !== "ending") to(connection.session ? "lost" : "connecting", connection.session ? "lost" : "unreachable"); },
  over({ reason }) { if (reason === "SESSION_LIMIT") talk.limit = true; finish(); },
  failed({ why, event }) { finish(why, event); },
  event(event) {
    const act = TOLD[event.type];
    if (!act) return;
    act(event, connection.begun);
    connection.keepFrom = Math.min(...talk.utterances.filter((u) => !u.final).map((u) => Math.floor(u.start * recording.rate)));
    if (event.type !== "emotion_result" || event.final) show();
    else paintNow();
  },
};

const find = (event) => talk.utterances.findLast((u) => u.epoch === talk.epoch && u.number === event.utterance);
const order = (scores) => emotions.map((e, i) => [i, scores[e.key]]).sort((a, b) => b[1] - a[1]);

function freeze(utterance) {
  utterance.stop = utterance.stop ?? (utterance.cells.length ? utterance.cells[utterance.cells.length - 1].stop : utterance.start);
  const seconds = {};
  for (const c of utterance.cells) seconds[c.emotion] = (seconds[c.emotion] || 0) + c.stop - c.start;
  const most = Object.entries(seconds).sort((a, b) => b[1] - a[1])[0];
  utterance.final = { cells: utterance.cells, emotion: most ? Number(most[0]) : -1, score: null, scores: null };
}

const TOLD = {
  "session.ready"(event) {
    talk.loaded = true;
    talk.model = event.model;
    talk.notes = event.notes.map((en, i) => ({ en, zh: event.notes_zh[i] }));
    if (state === "live" && status === "loading") status = "live";
  },
  speech_started(event, begun) {
    talk.speaking = true;
    if (!find(event)) talk.utterances.push({ epoch: talk.epoch, number: event.utterance, start: begun + event.audio_start_ms / 1000, stop: null, cells: [], final: null });
  },
  speech_stopped(event, begun) {
    talk.speaking = false;
    const utterance = find(event);
    if (utterance) utterance.stop = begun + event.audio_end_ms / 1000;
  },
  emotion_result(event, begun) {
    const utterance = find(event);
    const start = begun + event.audio_start_ms / 1000, stop = begun + event.audio_end_ms / 1000;
    const scores = (!event.final && event.smoothed) || (event.shown === "adjusted" && event.adjusted) || event.scores;
    const ranked = order(scores), [[emotion, score], runner] = ranked;
    if (!event.final && score - runner[1] < TIE) return; // too early to say: what is shown stays, the next window covers this one's time
    talk.current = { emotion, score, runner, final: event.final, start, stop, adjusted: event.shown === "adjusted" };
    if (!utterance) return;
    if (!event.final) {
      const from = utterance.cells.length ? utterance.cells[utterance.cells.length - 1].stop : utterance.start;
      if (stop > from) utterance.cells.push({ start: from, stop, emotion, score });
      return;
    }
    const rate = 16000; // of the session's timeline
    const cells = event.segments.map((s) => ({ start: begun + s.start_sample / rate, stop: begun + s.stop_sample / rate, emotion: indexOf(s.emotion), score: s.confidence }));
    Object.assign(utterance, { start, stop, final: { cells: cells.length ? cells : [{ start, stop, emotion, score }], emotion, score, scores } });
    $(".ser-live-said").textContent = `${named(emotion)} ${percent(score)}`;
  },
  alert(event, begun) {
    const alert = { at: begun + event.audio_end_ms / 1000, rule: event.rule, value: event.value };
    talk.alerts.push(alert);
    talk.banner = alert;
  },
  audio_gap(event, begun) {
    const gap = { start: begun + event.audio_start_ms / 1000, stop: begun + event.audio_end_ms / 1000 };
    talk.gaps.push(gap);
    const utterance = talk.utterances.findLast((u) => !u.final && u.stop !== null && Math.abs(u.start - gap.start) < 0.05);
    if (utterance && event.reason === "not_analysed") { freeze(utterance); utterance.failed = true; }
  },
  error(event) {
    if (event.code === "INFERENCE_TIMEOUT" || event.code === "BUSY") talk.late += 1;
    else trouble = { key: "error", event, act: "" };
  },
};

// --- events
function changeRules() {
  try { localStorage.setItem("ser_live_rules", JSON.stringify(rules)); } catch { /* storage may be switched off */ }
  if (mic && connection) connection.update({ alerts: wireRules() });
  show();
}

function act(name) {
  if (name === "reload") return location.reload();
  if (name === "lite") model = "lite";
  start();
}

element.addEventListener("click", (event) => {
  const hit = (selector) => event.target.closest(selector);
  if (hit(".ser-live-start")) mic || state === "asking" ? stop() : start();
  else if (hit(".ser-live-trouble button")) act(trouble.act);
  else if (hit(".ser-live-alert button")) { talk.banner = null; show(); }
  else if (hit(".ser-live-save")) save();
  else if (hit(".ser-live-csv")) table();
  else if (hit(".ser-live-drop")) drop();
  else if (hit("[data-rule-drop]")) { rules.splice(Number(hit("[data-rule-drop]").dataset.ruleDrop), 1); changeRules(); }
  else if (hit(".ser-live-add")) {
    const value = (name) => $(`[data-rule=${name}]`).value, [how, s] = value("how").split(" ");
    const made = { who: value("who"), much: Number(value("much")), how, s: Number(s), on: true };
    const same = rules.find((r) => ruleName(r) === ruleName(made));
    if (same) same.on = true;
    else if (rules.length < facts.rules) rules.push(made);
    changeRules();
  }
});
element.addEventListener("click", ({ target }) => {
  if (target.closest(".ser-live-anew") && mic && connection && connection.ready) connection.say({ type: "baseline.reset" });
});
element.addEventListener("change", ({ target }) => {
  if (target.dataset.ruleOn) { rules[Number(target.dataset.ruleOn)].on = target.checked; changeRules(); }
  if (target.name === "ser-live-model") {
    model = target.value;
    if (mic && connection) { talk.loaded = false; connection.update({ model: facts.models[model] }); to(state, "loading"); }
  }
  if (target.name === "ser-live-baseline") {
    baseline = target.value;
    $(".ser-live-anew").hidden = baseline !== "auto";
    if (mic && connection) connection.update({ baseline: wireBaseline() });
  }
  if (target.name === "ser-live-window") {
    windowS = Number(target.value);
    if (mic && connection) connection.update({ window_s: windowS });
  }
});
element.addEventListener("pointermove", (event) => {
  if (!chart || !event.target.closest(".ser-live-timeline canvas")) return;
  const box = event.target.getBoundingClientRect();
  chart.point = chart.from + ((event.clientX - box.left) / box.width) * (chart.to - chart.from);
  draw();
});
element.addEventListener("pointerout", (event) => {
  if (chart && event.target.closest(".ser-live-timeline canvas")) { chart.point = null; draw(); }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== " " || event.repeat || !element.isConnected || element.offsetParent === null) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest && event.target.closest("input, textarea, select, button, summary, a, [contenteditable], [role=tab]")) return;
  event.preventDefault();
  if (mic || state === "asking") stop();
  else start();
});
window.addEventListener("resize", () => element.isConnected && draw());
new IntersectionObserver(() => draw()).observe(element); // shown again after another tab

watch("markup", () => show());
show();
