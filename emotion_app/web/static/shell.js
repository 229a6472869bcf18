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
  page.classList.add("ser-wait");
  setTimeout(() => page.classList.remove("ser-wait"), 5000); // whatever happens, the page becomes visible
})();
