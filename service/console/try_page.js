// The page that classifies: what the visitor gives, and what is asked of the service because of it.

import * as api from "./api.js";
import { drawTimings } from "./bars.js";
import { announce, find, h, whileBusy } from "./dom.js";
import { counted, shortId, titleOf } from "./format.js";
import { apiKey } from "./http.js";
import { dropped, pastedImages } from "./image_files.js";
import { asEntries, namesOf } from "./label_text.js";
import { drawSnippets } from "./snippets.js";
import * as images from "./try_images.js";
import { drawResults, threshold } from "./try_results.js";
import { guarded, missing } from "./words.js";

const WAIT_SECONDS = 10;
const TRIES = 12;
const AS_STORED = "";

const visit = { selected: null, running: null, meta: { kind: "waiting", note: "" }, methods: [] };

const form = () => document.forms.ask;
const isStored = () => form().source.value === "stored";
const labels = () => namesOf(find("labels").value).classes.map(({ name }) => name);
const source = () => (isStored() ? { labelSet: find("set").value } : { labels: labels() });
const hasLabels = () => Boolean(isStored() ? find("set").value : labels().length);
const attempt = (work) => guarded(find("error"), work).then((done) => { if (find("error").firstChild) failed(); return done; });

function failed() {
  drawState("error", "That did not work");
  find("adapting").hidden = true;
  for (const id of ["images", "detail", "timing"]) find(id).classList.add("stale");
}

function drawState(kind, text) {
  find("state").dataset.state = kind;
  find("state").textContent = text;
}

// ---- labels and method ----------------------------------------------------------------------------------------------

function countLabels() {
  const { classes, repeated } = namesOf(find("labels").value);
  find("label-count").textContent = [classes.length ? counted(classes.length, "label") : "No labels yet", repeated.length && `${repeated.length} repeated`].filter(Boolean).join(", ");
}

function showSource() {
  find("typed").hidden = isStored();
  find("stored").hidden = !isStored();
  drawMethods();
  if (isStored()) attempt(listSets);
}

async function listSets(selected = find("set").value) {
  const { sets } = await api.labelSets();
  find("set").replaceChildren(...sets.map((one) => h("option", { value: one.id, selected: one.id === selected }, `${titleOf(one)} (${counted(one.class_count, "class", "classes")}, ${one.status})`)));
  find("set").disabled = sets.length === 0;
  await describeSet();
}

async function describeSet() {
  const id = find("set").value;
  if (!id) {
    find("set-note").replaceChildren("None stored yet. Type labels and store them, or make one under ", h("a", { href: "#/label-sets/new" }, "Label sets"), ".");
    return;
  }
  const one = await api.labelSet(id);
  const names = one.classes.slice(0, 8).join(", ") + (one.classes.length > 8 ? ", …" : "");
  find("set-note").replaceChildren(`${one.adapter}: ${names} `, h("a", { href: `#/label-sets/${id}` }, "Open"));
}

// A stored label set has a method of its own; methods that learn from images serve only where they were fitted.
function drawMethods() {
  const usable = visit.methods.filter((method) => method.needs.support === 0);
  const first = isStored() ? [[AS_STORED, "as stored"]] : [[AS_STORED, "chosen by the service"]];
  const choices = [...first, ...usable.map((method) => [method.name, method.name])];
  const before = find("method").value;
  find("method").replaceChildren(...choices.map(([value, text]) => h("option", { value, selected: value === before }, text)));
  describeMethod();
}

function describeMethod() {
  find("method-note").textContent = visit.methods.find((method) => method.name === find("method").value)?.summary ?? "";
}

async function store() {
  const { classes } = namesOf(find("labels").value);
  if (!classes.length) throw missing("No labels", "Type at least one label first.");
  const name = find("set-name").value.trim();
  const one = await api.createLabelSet({ classes: asEntries(classes), ...(name ? { name } : {}) });
  form().source.value = "stored";
  find("typed").hidden = true;
  find("stored").hidden = false;
  drawMethods();
  drawState("adapting", "Adapting the label set …");
  await api.watch(one.id, drawAdapting);
  await listSets(one.id);
  drawState("idle", "Label set stored");
  if (images.kept.length) await ask();
}

// ---- images ---------------------------------------------------------------------------------------------------------

async function take(files) {
  if (!files.length) return;
  const before = images.kept.length;
  await images.add(files);
  visit.selected = images.kept[before];
  draw();
  if (hasLabels()) await ask();
  else announce(`${counted(files.length, "image")} added. Type labels next.`);
}

function draw() {
  images.drawPreview(visit.selected);
  drawResults({
    selected: visit.selected,
    meta: visit.meta,
    onSelect: (one) => { visit.selected = one; draw(); },
    onRemove: (one) => { images.remove(one); visit.selected = images.kept[0] ?? null; draw(); find("results").focus(); },
  });
}

function connectImages() {
  const onTry = () => !find("page-try").hidden;
  const drop = find("drop");
  window.addEventListener("dragover", (event) => event.preventDefault());
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const given = dropped(event.dataTransfer);
    if (onTry()) attempt(async () => take((await given).map(({ file }) => file)));
  });
  drop.addEventListener("dragenter", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", (event) => { if (!drop.contains(event.relatedTarget)) drop.classList.remove("over"); });
  find("file").addEventListener("change", (event) => { const files = [...event.target.files]; event.target.value = ""; attempt(() => take(files)); });
  window.addEventListener("paste", (event) => {
    const pasted = pastedImages(event);
    if (pasted.length && onTry()) { event.preventDefault(); attempt(() => take(pasted)); }
  });
  find("clear").addEventListener("click", () => {
    visit.running?.abort();
    images.clear();
    visit.selected = null;
    draw();
    find("answers").hidden = true;
    find("empty").hidden = false;
    drawState("idle", "Waiting for an image and labels");
    find("file").focus();
  });
}

// ---- asking ---------------------------------------------------------------------------------------------------------

function wanted() {
  return { adapter: find("method").value || undefined, topK: Math.max(1, Number(find("top-k").value) || 8), scores: find("scores").value };
}

async function ask() {
  if (!images.kept.length) throw missing("No image", "Choose, drop or paste an image first.");
  if (!hasLabels()) throw missing("No labels", "Type at least one label, or choose a label set.");
  visit.running?.abort();
  const running = visit.running = new AbortController();
  const labelled = source();
  const options = { ...wanted(), signal: running.signal };
  drawState("busy", "Classifying …");
  find("results").setAttribute("aria-busy", "true");
  try {
    let answer = await classifyAll(labelled, options);
    for (let attempts = 0; isWaiting(answer) && attempts < TRIES; attempts += 1) {
      const again = await api.classify([images.kept[0].file], labelled, { ...options, wait: WAIT_SECONDS });
      if (!isWaiting(again)) answer = await classifyAll(labelled, options);
    }
  } finally {
    if (visit.running === running) find("results").removeAttribute("aria-busy");
    find("adapting").hidden = true;
  }
}

// Asks for all images, twice: as wanted and plain. The answer of the last group tells how the label set stands.
async function classifyAll(labelled, options) {
  let answer = null;
  for await (const group of images.groups()) {
    const files = group.map(({ file }) => file);
    const start = performance.now();
    answer = await api.classify(files, labelled, options);
    const roundTrip = performance.now() - start;
    const plain = options.adapter === "zero-shot" ? answer : await api.classify(files, labelled, { ...options, adapter: "zero-shot" });
    group.forEach((one, place) => { one.answers = { served: answer.results[place], plain: plain.results[place] }; });
    drawAnswer(answer, labelled, options, roundTrip);
  }
  return answer;
}

function drawAnswer(answer, labelled, options, roundTrip) {
  const waiting = isWaiting(answer);
  visit.meta = { kind: waiting ? "waiting" : "adapted", note: noteOf(answer, waiting), plainOnly: answer.adapter === "zero-shot" };
  find("empty").hidden = true;
  find("answers").hidden = false;
  for (const id of ["images", "detail", "timing"]) find(id).classList.remove("stale");
  find("adapting").hidden = !waiting;
  if (waiting) drawAdapting({ status: answer.status, progress: 0 });
  draw();
  drawTimings({ box: find("timing"), bar: find("timing-bar"), list: find("timing-list") }, answer.timings_ms, roundTrip);
  const prompts = answer.source_prompts === "none" ? "no source prompts" : `source prompts ${answer.source_prompts}`;
  find("facts").textContent = `${counted(images.kept.length, "image")}, backbone ${answer.backbone}, ${prompts}, label set ${shortId(answer.label_set)}`;
  drawState(...stateOf(answer));
  visit.asked = { source: labelled, ...options };
  drawCode();
}

function drawCode() {
  if (!visit.asked) return;
  const image = (visit.selected ?? images.kept[0])?.file.name || "image.png";
  drawSnippets(find("snippet-box"), { ...visit.asked, image, rejectBelow: threshold(), needsKey: Boolean(apiKey()) });
}

const isWaiting = (answer) => !answer.adapted && answer.adapter !== "zero-shot" && api.inMotion(answer.status);

function noteOf(answer, waiting) {
  if (waiting) return "not there yet: plain scores stand in";
  return answer.adapted ? `${answer.served_by}, prompts fitted to these labels` : `${answer.served_by} serves, nothing adapted`;
}

function stateOf(answer) {
  if (answer.adapted && answer.served_by !== answer.adapter && api.inMotion(answer.status)) return ["adapting", `${answer.served_by} serves until ${answer.adapter} is ready`];
  if (answer.adapted) return ["adapted", "Adapted"];
  if (answer.status === "awaiting-support") return ["idle", "No support images yet: plain scores"];
  if (answer.status === "failed") return ["error", "Adaptation failed: plain scores"];
  if (answer.adapter === "zero-shot" || answer.status === "ready") return ["idle", "Plain (zero-shot)"];
  return ["adapting", answer.status === "queued" ? "Waiting to be adapted …" : "Adapting to these labels …"];
}

function drawAdapting({ status, progress }) {
  find("adapting").hidden = !api.inMotion(status);
  if (progress > 0) find("adapting-bar").value = progress;
  else find("adapting-bar").removeAttribute("value");
}

// Where the page is one column the results are below the fold.
function showResults() {
  const results = find("results");
  if (results.getBoundingClientRect().top > window.innerHeight * 0.8) results.scrollIntoView({ behavior: "smooth" });
}

// ---- the page -------------------------------------------------------------------------------------------------------

export function connectTry() {
  const reask = () => { if (images.kept.length && hasLabels()) attempt(ask); };
  form().addEventListener("submit", (event) => { event.preventDefault(); attempt(ask).then(showResults); });
  form().addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    attempt(ask).then(showResults);
  });
  for (const radio of form().source) radio.addEventListener("change", showSource);
  find("labels").addEventListener("input", countLabels);
  find("set").addEventListener("change", () => attempt(async () => { await describeSet(); reask(); }));
  find("method").addEventListener("change", () => { describeMethod(); reask(); });
  for (const id of ["scores", "top-k"]) find(id).addEventListener("change", reask);
  find("reject").addEventListener("input", () => { draw(); drawCode(); });
  find("set-name").addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.ctrlKey) { event.preventDefault(); find("upload").click(); } });
  find("upload").addEventListener("click", () => attempt(() => whileBusy(find("upload"), store)));
  find("refresh").addEventListener("click", () => attempt(() => listSets()));
  connectImages();
  countLabels();
}

let told = false;

// `set` is a label set to begin with.
export function showTry(set) {
  if (set) {
    form().source.value = "stored";
    find("typed").hidden = true;
    find("stored").hidden = false;
    drawMethods();
    attempt(async () => { await listSets(set); if (images.kept.length) await ask(); });
  } else if (isStored()) attempt(listSets);
  if (!told) attempt(async () => { visit.methods = (await api.methods()).adapters; told = true; drawMethods(); });
}
