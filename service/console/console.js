// The page's behaviour: what the visitor does, and what is asked of the service because of it.

import * as api from "./api.js";
import { drawAdapting, drawBars, drawError, drawStale, drawState, drawTimings, element, find, ranksOf } from "./view.js";

const WAIT_SECONDS = 10;
const TRIES = 12;
const CHECK_EVERY = 10_000;
const THEMES = ["auto", "light", "dark"];

const visit = { image: null, running: null };

// ---- labels ---------------------------------------------------------------------------------------------------------

export function readLabels(text) {
  const seen = new Set();
  return text.split(/[\n,]/).map((label) => label.trim().replace(/\s+/g, " ")).filter((label) => {
    const key = label.toLowerCase();
    return label && !seen.has(key) && seen.add(key);
  });
}

function countLabels() {
  const count = readLabels(find("labels").value).length;
  find("label-count").textContent = count === 0 ? "No labels yet" : `${count} ${count === 1 ? "label" : "labels"}`;
}

function source() {
  if (document.forms.ask.source.value === "stored") return { labelSet: find("set").value };
  return { labels: readLabels(find("labels").value) };
}

function hasLabels() {
  const { labels, labelSet } = source();
  return Boolean(labelSet || labels?.length);
}

function showSource() {
  const stored = document.forms.ask.source.value === "stored";
  find("typed").hidden = stored;
  find("stored").hidden = !stored;
  if (stored) guarded(listSets);
}

async function listSets(selected = find("set").value) {
  const sets = await api.labelSets();
  find("set").replaceChildren(...sets.map((one) => {
    const name = one.name ?? one.id.slice(0, 12);
    const option = element("option", "", `${name} (${one.class_count} ${one.class_count === 1 ? "class" : "classes"}, ${one.status})`);
    option.value = one.id;
    option.selected = one.id === selected;
    return option;
  }));
  find("set").disabled = sets.length === 0;
  await describeSet();
}

async function describeSet() {
  const id = find("set").value;
  if (!id) {
    find("set-note").textContent = "None stored yet. Type labels and upload them.";
    return;
  }
  const one = await api.labelSet(id);
  const names = one.classes.slice(0, 8).join(", ") + (one.classes.length > 8 ? ", …" : "");
  const took = one.seconds === null ? "" : `, adapted in ${one.seconds.toFixed(1)} s`;
  find("set-note").textContent = `${one.adapter}${took}: ${names}`;
}

async function uploadSet() {
  const classes = readLabels(find("labels").value);
  if (!classes.length) throw new api.Problem({ title: "No labels", detail: "Type at least one label first." });
  find("upload").disabled = true;
  try {
    const one = await api.createLabelSet(classes, find("set-name").value.trim());
    document.forms.ask.source.value = "stored";
    showSource();
    drawState("adapting", "Adapting the label set …");
    await api.watch(one.id, (status, progress) => drawAdapting(status === "adapting" || status === "queued", progress));
    drawAdapting(false);
    await listSets(one.id);
    drawState("idle", "Label set stored");
    if (visit.image) await ask();
  } finally {
    find("upload").disabled = false;
  }
}

// ---- image ----------------------------------------------------------------------------------------------------------

function takeImage(file) {
  if (!file) return;
  if (!file.type.startsWith("image/")) {
    drawError({ title: "Not an image", detail: `${file.name || "This"} is ${file.type || "of an unknown type"}.` });
    return;
  }
  visit.image = file;
  const preview = find("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(file);
  preview.alt = `Your image ${file.name}`;
  preview.hidden = false;
  find("drop-text").hidden = true;
  find("image-note").textContent = `${file.name || "Pasted image"}, ${Math.max(1, Math.round(file.size / 1024))} KB. Choose again to replace it.`;
  if (hasLabels()) guarded(ask);
}

function connectDrop() {
  const drop = find("drop");
  const stop = (event) => event.preventDefault();
  window.addEventListener("dragover", stop);
  window.addEventListener("drop", (event) => { stop(event); takeImage(event.dataTransfer.files[0]); drop.classList.remove("over"); });
  drop.addEventListener("dragenter", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", (event) => { if (!drop.contains(event.relatedTarget)) drop.classList.remove("over"); });
  find("file").addEventListener("change", (event) => takeImage(event.target.files[0]));
  window.addEventListener("paste", (event) => {
    const image = [...(event.clipboardData?.files ?? [])].find((file) => file.type.startsWith("image/"));
    if (image) { event.preventDefault(); takeImage(image); }
  });
}

// ---- asking ---------------------------------------------------------------------------------------------------------

async function ask() {
  if (!visit.image) throw new api.Problem({ title: "No image", detail: "Choose, drop or paste an image first." });
  if (!hasLabels()) throw new api.Problem({ title: "No labels", detail: "Type at least one label, or choose a label set." });
  visit.running?.abort();
  const running = visit.running = new AbortController();
  const labels = source();
  const options = { signal: running.signal };
  drawError(null);
  drawStale(false);
  drawState("busy", "Classifying …");
  find("results").setAttribute("aria-busy", "true");
  try {
    const start = performance.now();
    const first = await api.classify(visit.image, labels, options);
    const roundTrip = performance.now() - start;
    const plain = await api.classify(visit.image, labels, { ...options, adapter: "zero-shot" });
    drawAnswers(first, plain);
    drawTimings(first.timings_ms, roundTrip);
    drawFacts(first);
    if (isWaiting(first)) await untilAdapted(labels, plain, options);
  } finally {
    if (visit.running === running) find("results").removeAttribute("aria-busy");
  }
}

function isWaiting(answer) {
  return !answer.adapted && answer.adapter !== "zero-shot" && ["queued", "adapting"].includes(answer.status);
}

async function untilAdapted(labels, plain, options) {
  const stored = labels.labelSet;
  drawAdapting(true, 0);
  if (stored) api.watch(stored, (status, progress) => drawAdapting(status === "adapting" || status === "queued", progress), options.signal);
  for (let attempt = 0; attempt < TRIES; attempt += 1) {
    const answer = await api.classify(visit.image, labels, { ...options, wait: WAIT_SECONDS });
    drawAnswers(answer, plain);
    if (!isWaiting(answer)) break;
  }
  drawAdapting(false);
}

function drawAnswers(answer, plain) {
  const ranks = ranksOf(plain.results[0].predictions);
  const waiting = isWaiting(answer);
  find("empty").hidden = true;
  find("answers").hidden = false;
  find("adapted-bars").dataset.kind = waiting ? "waiting" : "adapted";
  drawBars(find("adapted-bars"), answer.results[0].predictions, ranks);
  drawBars(find("plain-bars"), plain.results[0].predictions);
  find("adapted-note").textContent = waiting ? "not there yet: plain scores stand in" : methodNote(answer);
  drawState(...stateOf(answer));
}

function methodNote(answer) {
  return answer.adapted ? `${answer.adapter}, prompts fitted to these labels` : `${answer.adapter}, not adapted`;
}

function stateOf(answer) {
  if (answer.adapted) return ["adapted", "Adapted"];
  if (answer.status === "awaiting-support") return ["idle", "No support images yet: plain scores"];
  if (answer.status === "failed") return ["error", "Adaptation failed: plain scores"];
  if (answer.adapter === "zero-shot" || answer.status === "ready") return ["idle", "Plain (zero-shot)"];
  return ["adapting", answer.status === "queued" ? "Waiting to be adapted …" : "Adapting to these labels …"];
}

function drawFacts(answer) {
  const prompts = answer.source_prompts === "none" ? "no source prompts" : `source prompts ${answer.source_prompts}`;
  find("facts").textContent = `backbone ${answer.backbone}, ${prompts}, label set ${answer.label_set.slice(0, 12)}`;
}

// Where the page is one column the results are below the fold.
function showResults() {
  const results = find("results");
  if (results.getBoundingClientRect().top > window.innerHeight * 0.8) results.scrollIntoView({ behavior: "smooth" });
}

// A superseded question ends quietly; everything else that fails is shown.
async function guarded(work) {
  try {
    await work();
  } catch (failure) {
    if (failure.name === "AbortError") return;
    drawAdapting(false);
    drawStale(true);
    drawState("error", "That did not work");
    drawError(failure instanceof api.Problem ? failure : { title: "The page failed", detail: String(failure) });
  }
}

// ---- surroundings ---------------------------------------------------------------------------------------------------

async function showService() {
  const { status, checks } = await api.readiness();
  const text = { ready: "ready", degraded: "degraded", unready: "starting", down: "not reachable" }[status] ?? status;
  find("service-dot").dataset.state = status;
  const bad = checks.filter((check) => check.status !== "ok").map((check) => check.name).join(", ");
  const one = status === "down" ? null : await api.model().catch(() => null);
  find("service-text").textContent = [bad ? `${text} (${bad})` : text, one && `${one.name} on ${one.device}`].filter(Boolean).join(", ");
}

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

function start() {
  const form = document.forms.ask;
  form.addEventListener("submit", (event) => { event.preventDefault(); guarded(ask).then(showResults); });
  form.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); guarded(ask); } });
  form.addEventListener("change", (event) => { if (event.target.name === "source") showSource(); });
  find("labels").addEventListener("input", countLabels);
  find("set").addEventListener("change", () => guarded(async () => { await describeSet(); if (visit.image) await ask(); }));
  find("set-name").addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); guarded(uploadSet); } });
  find("upload").addEventListener("click", () => guarded(uploadSet));
  find("refresh").addEventListener("click", () => guarded(() => listSets()));
  connectDrop();
  connectTheme();
  countLabels();
  showSource();
  guarded(showService);
  setInterval(showService, CHECK_EVERY);
}

start();
