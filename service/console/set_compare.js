// Several methods on the same images, one after the other, without changing what the label set serves.

import * as api from "./api.js";
import { announce, button, h } from "./dom.js";
import { counted, interval, percent, seconds } from "./format.js";
import { LabelledImages, measured } from "./labelled_images.js";
import { fewShot } from "./method_form.js";
import { guarded, missing, problemBox } from "./words.js";

const UPLOAD = "upload";
const SUPPORT = "support";

export function comparePanel(open) {
  open.labelled ??= new LabelledImages();
  const problem = h("div");
  const choices = h("fieldset", { class: "checks" });
  const images = h("fieldset", { class: "choice" });
  const rows = h("ul", { class: "compare", "aria-label": "Methods" });
  const zone = open.labelled.zone(open, (failure) => problem.replaceChildren(...(failure ? [problemBox(failure)] : [])));
  let running = null;
  const start = button("Compare", () => {
    if (running) { running.abort(); return; }
    running = new AbortController();
    start.textContent = "Stop";
    guarded(problem, () => compare(open, asked(choices, images), rows, running.signal)).finally(() => { running = null; start.textContent = "Compare"; });
  }, { class: "primary" });
  open.left.signal.addEventListener("abort", () => running?.abort());
  const panel = h("section", { class: "card", "aria-labelledby": "compare-title" }, h("h2", { id: "compare-title" }, "Compare methods"),
    h("p", { class: "note" }, "Each method is measured on the same images. Those that learn from images are fitted to the stored support images first; what the label set serves stays as it is until you choose another."),
    choices, images, zone, problem, h("div", { class: "row end" }, start), rows);
  const draw = () => guarded(problem, () => drawChoices(open, { choices, images, zone }));
  panel.addEventListener("shown", draw);
  return panel;
}

function asked(choices, images) {
  const methods = [...choices.querySelectorAll("input:checked")].map((input) => input.value);
  if (!methods.length) throw missing("No methods", "Choose at least one method.");
  return { methods, source: images.querySelector("input:checked").value };
}

async function drawChoices(open, { choices, images, zone }) {
  const [{ adapters }, held] = await Promise.all([api.methods(), api.support(open.set.id)]);
  const enough = (method) => !fewShot(method) || held.fewest >= method.needs.support;
  const usual = (method) => enough(method) && !method.needs.scores_images && method.name !== "quantized";
  const before = new Set([...choices.querySelectorAll("input:checked")].map((input) => input.value));
  choices.replaceChildren(h("legend", null, "Methods"), ...adapters.map((method) => h("label", { title: method.summary },
    h("input", { type: "checkbox", value: method.name, disabled: !enough(method), checked: before.size ? before.has(method.name) : usual(method) }), ` ${method.name}`,
    !enough(method) && h("span", { class: "note" }, " needs support images of every class"), enough(method) && method.needs.scores_images && h("span", { class: "note" }, " slow: works on each image"))));
  const last = images.querySelector("input:checked")?.value ?? UPLOAD;
  const choose = (value) => { zone.hidden = value === SUPPORT; };
  const radio = (value, text, disabled) => h("label", null, h("input", { type: "radio", name: "compare-on", value, checked: value === last, disabled, onchange: () => choose(value) }), ` ${text}`);
  images.replaceChildren(h("legend", null, "On"), radio(UPLOAD, "images given here"), radio(SUPPORT, `the stored support images (${held.images})`, held.images === 0));
  choose(last);
}

async function compare(open, { methods, source }, rows, signal) {
  if (source === UPLOAD && !open.labelled.material) throw missing("No images", "Choose a zip of class folders, or folders, first.");
  const lines = new Map(methods.map((name) => [name, h("li", null, h("strong", null, name), h("span", { class: "note" }, "waiting"))]));
  rows.replaceChildren(...lines.values());
  const { adapters } = await api.methods();
  for (const name of methods) {
    const line = lines.get(name);
    const method = adapters.find((one) => one.name === name);
    const stop = counting(line, name);
    try {
      const answer = await measured(open.set.id, source === UPLOAD ? open.labelled.material : null, { adapter: name, signal });
      line.replaceChildren(...result(open, name, answer, source === SUPPORT && fewShot(method), fewShot(method)));
      announce(`${name}: ${percent(answer.served.top1)}`);
    } catch (failure) {
      line.replaceChildren(h("strong", null, name), failure.name === "AbortError" ? h("span", { class: "note" }, "stopped") : problemBox(failure));
      if (failure.name === "AbortError") throw failure;
    } finally {
      stop();
    }
  }
}

// Shows how long it has been working; returns what ends that.
function counting(line, name) {
  const began = performance.now();
  const text = h("span", { class: "note" }, "working …");
  line.replaceChildren(h("strong", null, name), h("progress", { "aria-label": `${name} is being measured` }), text);
  const timer = setInterval(() => { text.textContent = `working for ${seconds((performance.now() - began) / 1000)}`; }, 1000);
  return () => clearInterval(timer);
}

// `seen`: the method learnt from these very images, so only what it held out counts.
function result(open, name, answer, seen, learns) {
  const { info } = answer;
  const failed = answer.served_by !== answer.adapter && answer.status === "failed";
  const heldOut = seen && info.heldout_top1 !== undefined;
  const share = heldOut ? info.heldout_top1 : answer.served.top1;
  const details = [
    heldOut ? "on held-out images" : seen ? "on images it learnt from, which proves nothing" : `95 % interval ${interval(share, answer.images).map((one) => percent(one, 0)).join(" to ")}`,
    `calibration error ${percent(answer.served.ece)}`, info.seconds !== undefined && `adapted in ${seconds(Number(info.seconds))}`, failed && "its adaptation failed: plain zero-shot", counted(answer.images, "image"),
  ];
  const serves = open.set.adapter === name || !learns;
  const parts = [h("strong", null, name), shareBar(share, heldOut || seen ? null : interval(share, answer.images)), h("span", { class: "score" }, percent(share)), h("span", { class: "note" }, details.filter(Boolean).join(", ")),
    !serves && !failed && button("Serve this", (event) => adopt(open, name, event.target), { class: "quiet", "aria-label": `Serve ${name}` })];
  return parts.filter(Boolean);
}

function shareBar(share, range) {
  const fill = h("div", { class: "fill" });
  fill.style.width = `${share * 100}%`;
  const whisker = range && h("div", { class: "whisker" });
  if (whisker) {
    whisker.style.left = `${range[0] * 100}%`;
    whisker.style.width = `${(range[1] - range[0]) * 100}%`;
  }
  return h("span", { class: "track", "aria-hidden": "true" }, fill, whisker);
}

// The fit is there already, so this takes effect at once.
async function adopt(open, name, control) {
  control.disabled = true;
  await guarded(open.problem, async () => {
    await api.startFit(open.set.id, { adapter: name });
    await open.refresh();
    open.follow();
    control.textContent = "Serves";
    announce(`${name} serves now`);
  });
}
