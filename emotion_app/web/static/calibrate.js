// Buttons of the Calibrate page (ui/calibrate.py): a click on [data-act] is told to the server with its name. Deleting
// asks first; choosing stays in the browser (baseline_choice.js). The markup is patched in place.
const row = (target) => target.closest("[data-name]");

function mark() {
  const chosen = document.documentElement.getAttribute("data-ser-baseline") || "";
  for (const item of element.querySelectorAll("li[data-name]")) {
    const on = item.getAttribute("data-name") === chosen;
    item.classList.toggle("ser-on", on);
    const use = item.querySelector("[data-act=use]");
    if (use) {
      use.setAttribute("aria-pressed", String(on));
      use.textContent = use.getAttribute(on ? "data-on" : "data-off");
    }
  }
}

function pick(name) {
  document.dispatchEvent(new CustomEvent("ser-baseline-pick", { detail: name }));
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (!button) return;
  const act = button.getAttribute("data-act"), item = row(button), name = item ? item.getAttribute("data-name") : "";
  if (act === "use") return pick(item.classList.contains("ser-on") ? "" : name);
  if (act === "ask" || act === "keep") {
    item.classList.toggle("ser-asking", act === "ask");
    item.querySelector(act === "ask" ? "[data-act=keep]" : "[data-act=ask]").focus();
    return;
  }
  if (act === "delete") {
    item.classList.remove("ser-asking");
    if (item.classList.contains("ser-on")) pick("");
  }
  trigger("submit", { act, name });
});
document.addEventListener("ser-baseline", mark);
watch("value", mark);
mark();
