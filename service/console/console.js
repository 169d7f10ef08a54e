// The frame of the page: which part is shown, the state of the service, the API key, the colour theme.

import * as api from "./api.js";
import { find } from "./dom.js";
import { apiKey, forgetKey, onKeyNeeded } from "./http.js";
import { showNewSet } from "./new_set_page.js";
import { showSet } from "./set_page.js";
import { leaveSets, showSets } from "./sets_page.js";
import { connectTry, showTry } from "./try_page.js";

const CHECK_EVERY = 10_000;
const THEMES = ["auto", "light", "dark"];

// ---- pages ----------------------------------------------------------------------------------------------------------

// `#/try`, `#/try/ID`, `#/label-sets`, `#/label-sets/new`, `#/label-sets/ID/TAB`
async function route({ focus = true } = {}) {
  if (location.hash === "#main") return find("main").focus();
  const [page = "try", id, tab] = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);
  const name = page === "label-sets" ? page : "try";
  for (const link of document.querySelectorAll("[data-page]")) {
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  find("page-try").hidden = name !== "try";
  find("page-label-sets").hidden = name !== "label-sets";
  leaveSets();
  if (name === "try") {
    document.title = "Try it · selftpt";
    showTry(id);
  } else {
    const box = find("page-label-sets");
    if (!id) await showSets(box);
    else if (id === "new") await showNewSet(box);
    else await showSet(box, id, tab);
    document.title = `${box.querySelector("h1")?.textContent ?? "Label sets"} · selftpt`;
  }
  if (focus) document.querySelector(`#page-${name} h1`)?.focus({ preventScroll: true });
  return undefined;
}

// ---- service and key ------------------------------------------------------------------------------------------------

async function showService() {
  if (document.hidden) return;
  const { status, checks } = await api.readiness();
  const text = { ready: "ready", degraded: "degraded", unready: "not ready", down: "not reachable" }[status] ?? status;
  find("service-dot").dataset.state = status;
  const bad = (checks ?? []).filter((check) => check.status !== "ok").map((check) => check.name).join(", ");
  const one = status === "down" ? null : await api.model({ background: true }).catch(() => null);
  find("service-text").textContent = [bad ? `${text} (${bad})` : text, one && `${one.name} on ${one.device}`].filter(Boolean).join(", ");
  find("key").hidden = !apiKey();
}

function connectKey() {
  const dialog = find("key-dialog");
  const input = find("key-input");
  onKeyNeeded((problem, refused) => new Promise((resolve) => {
    find("key-note").textContent = refused ? `The key that was given is not accepted: ${problem.detail}` : problem.detail;
    input.value = "";
    dialog.returnValue = "";
    dialog.showModal();
    input.focus();
    dialog.addEventListener("close", () => {
      const key = dialog.returnValue === "ok" ? input.value.trim() : "";
      input.value = "";
      find("key").hidden = !key;
      resolve(key || null);
    }, { once: true });
  }));
  find("key-cancel").addEventListener("click", () => dialog.close("cancel"));
  find("key").addEventListener("click", () => { forgetKey(); find("key").hidden = true; });
}

// ---- theme ----------------------------------------------------------------------------------------------------------

function connectTheme() {
  const button = find("theme");
  const apply = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    button.setAttribute("aria-label", `Colour theme: ${theme === "auto" ? "follows the system" : theme}`);
  };
  const stored = localStorage.getItem("theme");
  let theme = THEMES.includes(stored) ? stored : "auto";
  apply(theme);
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem("theme", theme);
    apply(theme);
  });
}

connectTheme();
connectKey();
connectTry();
window.addEventListener("hashchange", () => route());
route({ focus: false });
showService();
setInterval(showService, CHECK_EVERY);
