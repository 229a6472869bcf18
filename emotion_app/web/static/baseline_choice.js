// The choice of a baseline (ui/baseline_choice.py): a name, or "" for none, kept in this browser under ser_baseline.
// Others speak to it by events: `ser-baseline-pick` chooses, `ser-calibrate` opens the page, `ser-baseline` tells.
const KEY = "ser_baseline";
const select = () => element.querySelector("select");
let wanted = "";
try { wanted = localStorage.getItem(KEY) || ""; } catch { /* storage may be switched off */ }

function show() { // the names were sent again: the chosen one may be new, or gone
  const there = [...select().options].some((option) => option.value === wanted);
  const name = there ? wanted : "";
  select().value = name;
  if ((props.value || "") !== name) props.value = name;
  document.documentElement.setAttribute("data-ser-baseline", name);
  document.dispatchEvent(new CustomEvent("ser-baseline"));
}

function choose(name) {
  wanted = name;
  try { name ? localStorage.setItem(KEY, name) : localStorage.removeItem(KEY); } catch { /* it holds until reload */ }
  show();
}

element.addEventListener("change", () => choose(select().value));
element.addEventListener("click", (event) => {
  if (event.target.closest("[data-act=calibrate]")) trigger("submit", { act: "calibrate" });
});
document.addEventListener("ser-baseline-pick", ({ detail }) => choose(detail));
document.addEventListener("ser-calibrate", () => trigger("submit", { act: "calibrate" }));
watch("value", () => (props.value || "") !== wanted && choose(props.value || ""));
watch("markup", show);
show();
