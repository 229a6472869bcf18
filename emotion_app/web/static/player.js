// Behaviour of the result column (ui/render.py, ui/player.py): playing, seeking, captions, the one button of an error.
// The markup is patched in place at every update; listeners sit on `element`, facts are read from data attributes.
const audio = new Audio();
audio.preload = "metadata";
let source = "", track = [], names = [], keys = [], hop = 0;
const card = () => element.querySelector(".ser-player");
const clock = (s) => {
  const tenths = Math.round(10 * s);
  return `${Math.floor(tenths / 600)}:${((tenths % 600) / 10).toFixed(1).padStart(4, "0")}`;
};
const length = () => Number(card().dataset.duration) || audio.duration || 0;

function attach() {
  const box = card();
  if (!box) {
    audio.pause();
    source = "";
    return;
  }
  if (box.dataset.src !== source) { // empty while the folder is being written
    source = box.dataset.src;
    audio.pause();
    if (source) audio.src = source;
    else audio.removeAttribute("src");
  }
  box.querySelector(".ser-play").disabled = !source;
  names = JSON.parse(box.dataset.names);
  keys = JSON.parse(box.dataset.keys);
  hop = Number(box.dataset.hop || 0);
  track = (box.dataset.track || "").split(",").filter(Boolean).map((pair) => pair.split(":").map(Number));
  paint();
}

function paint() {
  const box = card();
  if (!box) return;
  const total = length(), at = Math.min(audio.currentTime, total), share = total ? (100 * at) / total : 0;
  box.style.setProperty("--at", `${share}%`);
  box.querySelector(".ser-time").textContent = `${clock(at)} / ${clock(total)}`;
  const button = box.querySelector(".ser-play"), on = !audio.paused && !audio.ended;
  button.classList.toggle("ser-on", on);
  button.setAttribute("aria-label", on ? box.dataset.pause : box.dataset.play);
  const caption = box.querySelector(".ser-caption");
  if (hop && track.length) {
    const [label, percent] = track[Math.min(track.length - 1, Math.floor(at / hop))];
    caption.textContent = `${names[label]} ${percent} %`;
    caption.style.setProperty("--c", `var(--ser-${keys[label]})`);
  }
}

function follow() { // captions keep time with the sound, not with the 250 ms of `timeupdate`
  paint();
  if (!audio.paused && !audio.ended) requestAnimationFrame(follow);
}

function seek(seconds) {
  audio.currentTime = Math.max(0, Math.min(length(), seconds));
  paint();
}

const toggle = () => source && (audio.paused ? audio.play() : audio.pause());

let last = ""; // on a phone the answer is below the button: go there when work begins and when it ends
function arrive() {
  const first = element.querySelector("section"), now = first ? first.className : "";
  if (now !== last && /ser-(running|hero|failed)/.test(now) && element.getBoundingClientRect().top > window.innerHeight * 0.4)
    element.scrollIntoView({ behavior: "smooth", block: "start" });
  last = now;
}

element.addEventListener("click", (event) => {
  const act = event.target.closest("[data-act]");
  if (act) {
    if (act.dataset.act === "calibrate") document.dispatchEvent(new CustomEvent("ser-calibrate"));
    else if (act.dataset.act === "choose") document.dispatchEvent(new CustomEvent("ser-choose"));
    else trigger("submit", { act: act.dataset.act });
    return;
  }
  if (!card() || !card().contains(event.target)) return;
  const bar = event.target.closest("[data-seek]"), row = event.target.closest(".ser-segments [data-t]");
  if (event.target.closest(".ser-play")) toggle();
  else if (row) seek(Number(row.dataset.t));
  else if (bar) {
    const box = bar.getBoundingClientRect();
    seek(((event.clientX - box.left) / box.width) * length());
  }
});

let dragging = null;
element.addEventListener("pointerdown", (event) => { dragging = event.target.closest("[data-seek]"); });
document.addEventListener("pointerup", () => { dragging = null; });
element.addEventListener("pointermove", (event) => {
  if (!dragging || !event.buttons) return;
  const box = dragging.getBoundingClientRect();
  seek(((event.clientX - box.left) / box.width) * length());
});

document.addEventListener("keydown", (event) => {
  if (!element.isConnected || element.offsetParent === null || event.ctrlKey || event.metaKey || event.altKey) return;
  const inPlayer = card() && card().contains(event.target);
  const within = (selector) => event.target.closest && event.target.closest(selector);
  const taken = within("input, textarea, select, button, summary, a");
  if (event.key === "Enter" && (!taken || within("input[type=radio], input[type=checkbox]"))) {
    const go = document.querySelector("#ser-analyze");
    if (go && go.offsetParent !== null) go.click();
    return;
  }
  if (!card() || (taken && !(inPlayer && !["Enter", " "].includes(event.key)))) return;
  const step = event.shiftKey ? 5 : 1;
  const moves = { ArrowLeft: audio.currentTime - step, ArrowRight: audio.currentTime + step, Home: 0, End: length() };
  if (event.key === " ") toggle();
  else if (event.key in moves && (inPlayer || event.key.startsWith("Arrow"))) seek(moves[event.key]);
  else return;
  event.preventDefault();
});

for (const name of ["play", "pause", "ended", "seeked", "loadedmetadata"]) audio.addEventListener(name, follow);
audio.addEventListener("play", () => document.dispatchEvent(new CustomEvent("ser-plays", { detail: audio })));
document.addEventListener("ser-plays", ({ detail }) => detail !== audio && audio.pause());
watch("value", () => { attach(); arrive(); });
attach();
