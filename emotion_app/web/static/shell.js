// Before anything is drawn: which language, and no flash of the other one. Loaded in <head>.
(() => {
  const wanted = new URLSearchParams(location.search).get("lang");
  let kept = null;
  try { kept = localStorage.getItem("ser_lang"); } catch { /* storage may be switched off */ }
  const browser = (navigator.languages || [navigator.language || "en"]).find((l) => /^(zh|en)/i.test(l)) || "en";
  const first = [wanted, kept, browser.slice(0, 2).toLowerCase()].find((l) => l === "zh" || l === "en");
  const page = document.documentElement;
  window.serLang = {
    first,
    set(lang, title) {
      page.lang = lang === "zh" ? "zh-CN" : "en";
      document.title = title;
      page.classList.remove("ser-wait");
    },
    keep(lang) { try { localStorage.setItem("ser_lang", lang); } catch { /* the switch still works */ } },
  };
  // The program may be stopped or restarted while the page is open: say so in words, come back without being asked.
  // Gradio's own message is in English; it is shown late (app.css), so that this one can take its place.
  const LOST = {
    zh: "程序没有响应，可能已经停止。请在终端重新启动它；之后本页会自动恢复。",
    en: "The program does not answer; it may have been stopped. Start it again in the terminal; this page will recover by itself.",
  };
  let running = null, lost = false;
  const ask = window.fetch.bind(window); // before the Live page holds Gradio's own question back
  const which = async () => (await (await ask("gradio_api/app_id", { cache: "no-store" })).json()).app_id;
  async function look() {
    let now = null;
    try { now = await which(); } catch { /* no answer */ }
    const unsaved = window.serUnsaved && window.serUnsaved(); // a live session would be lost by a fresh start
    if (now !== null && running !== null && now !== running && !unsaved) return location.reload(); // another process
    if (now !== null && (running === null || !unsaved)) running = now;
    if (lost === (now === null)) return;
    lost = now === null;
    page.classList.toggle("ser-lost", lost);
    let bar = document.getElementById("ser-lost");
    if (!bar) {
      bar = document.createElement("div");
      bar.id = "ser-lost";
      bar.setAttribute("role", "alert");
      document.body.append(bar);
    }
    bar.textContent = lost ? LOST[page.lang.startsWith("zh") ? "zh" : "en"] : "";
  }
  function watch() {
    look();
    setInterval(look, 2500);
    const toast = (node) => node.querySelector && (node.matches("[class*=toast]") || node.querySelector("[class*=toast]"));
    new MutationObserver((changes) => {
      if (changes.some((change) => [...change.addedNodes].some(toast))) look();
    }).observe(document.body, { childList: true, subtree: true });
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", watch);
  else watch(); // Gradio adds this script when the page has been read

  page.classList.add("ser-wait");
  setTimeout(() => page.classList.remove("ser-wait"), 5000); // whatever happens, the page becomes visible
})();
