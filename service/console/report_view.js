// An evaluation as a page: figures, reliability, classes, confusion, the worst images; adapted beside plain.

import { confusionMatrix, reliabilityDiagram, table } from "./charts.js";
import { button, h } from "./dom.js";
import { counted, interval, percent, points } from "./format.js";
import { explain } from "./words.js";
import { fromDocument } from "./http.js";

const CLASSES = 15;
const WORST = 12;

// `imageOf(filename)` resolves with the File that was sent, or null.
export function reportView(answer, labels, imageOf) {
  const { served, zero_shot: plain } = answer;
  const title = answer.adapted ? `Adapted (${answer.served_by})` : `Served (${answer.served_by})`;
  const reports = { served: [title, served, "adapted"], plain: ["Plain (zero-shot)", plain, "plain"] };
  const parts = [card("figures-title", "Figures", notice(answer), figures(answer, title), failures(answer.failures))];
  if (answer.images) {
    parts.push(
      card("reliability-title", "Reliability", h("p", { class: "note" }, "Up: how often answers of a score were right, in %. Across: the score. On the dashed line a score means what it says. Red on top: surer than right. Pale inside: right more often than sure."), h("div", { class: "answers" }, Object.values(reports).map(([name, report, kind]) => reliabilityDiagram(name, report, kind)))),
      h("div", { class: "columns" }, mistakesCard(reports, labels), classCard(served, plain)),
      worstCard(reports, imageOf));
  }
  return h("div", { class: "stack" }, parts);
}

const card = (id, title, ...children) => h("section", { class: "card", "aria-labelledby": id }, h("h2", { id }, title), ...children);

function notice(answer) {
  if (answer.adapted || answer.served_by === answer.adapter) return null;
  const why = { failed: "its adaptation failed", "awaiting-support": "it has no support images yet", ready: "plain zero-shot did better on its support images" };
  return h("p", { class: "warn" }, `${answer.adapter} does not serve (${why[answer.status] ?? "it is not ready yet"}): both columns are plain zero-shot.`);
}

function figures(answer, title) {
  const { served, zero_shot: plain, images } = answer;
  if (!images) return h("p", null, "No image could be read.");
  const range = ({ top1 }) => interval(top1, images).map((share) => percent(share, 0)).join(" to ");
  const save = button("Save as JSON", () => {
    const link = h("a", { href: URL.createObjectURL(new Blob([JSON.stringify(answer, null, 2)], { type: "application/json" })), download: `evaluation-${answer.label_set.slice(0, 12)}.json` });
    link.click();
  }, { class: "quiet" });
  return h("div", { class: "stack-s" },
    h("div", { class: "tiles" }, tile(title, percent(served.top1), `accuracy; 95 % interval ${range(served)}`, "adapted"), tile("Plain (zero-shot)", percent(plain.top1), `accuracy; 95 % interval ${range(plain)}`),
      tile("Difference", points(served.top1 - plain.top1), `on ${counted(images, "image")}`),
      tile("Calibration error", percent(served.ece), `plain ${percent(plain.ece)}`)),
    h("div", { class: "row end" }, save));
}

const tile = (name, value, note, kind = "") => h("div", { class: `tile ${kind}` }, h("span", { class: "note" }, name), h("strong", null, value), h("span", { class: "note" }, note));

function failures(list) {
  if (!list.length) return null;
  const lines = list.map(({ filename, error }) => h("li", null, h("strong", null, filename), ` ${explain(fromDocument(error)).text}`));
  return h("details", { class: "options" }, h("summary", null, `${counted(list.length, "image")} could not be read and did not count`), h("ul", null, lines));
}

// Radio buttons that choose which of the two reports is drawn.
function switched(name, reports, draw) {
  const box = h("div", { class: "stack-s" });
  const choose = (which) => box.replaceChildren(...draw(reports[which]));
  const radios = Object.entries(reports).map(([which, [text]]) => h("label", null, h("input", { type: "radio", name, checked: which === "served", onchange: () => choose(which) }), ` ${text}`));
  choose("served");
  return [h("fieldset", { class: "choice" }, h("legend", { class: "offscreen" }, "Whose"), radios), box];
}

function mistakesCard(reports, labels) {
  const note = h("p", { class: "note" }, "Rows: what an image is. Columns: what it was found to be.");
  return card("confusion-title", "Confusion", note, ...switched("confusion", reports, ([, report, kind]) => [
    report.confusion ? confusionMatrix(labels, report.confusion, kind) : h("p", { class: "note" }, "Too many classes for a matrix."),
    report.mistaken.length ? h("ul", { class: "plain-list" }, report.mistaken.slice(0, 8).map((one) => h("li", null, `${one.label} found as ${one.found}: ${one.images}`))) : h("p", { class: "note" }, "Not one mistake."),
  ]));
}

function classCard(served, plain) {
  const before = new Map(plain.per_class.map((one) => [one.label, one.top1]));
  const rows = [...served.per_class].sort((a, b) => a.top1 - b.top1 || b.images - a.images);
  const shown = (list) => table("Accuracy by class, worst first", ["Class", "Images", "Adapted", "Plain"], list.map((one) => [one.label, one.images, percent(one.top1, 0), percent(before.get(one.label) ?? 0, 0)]));
  const box = h("div", { class: "stack-s" }, shown(rows.slice(0, CLASSES)));
  if (rows.length > CLASSES) box.append(button(`Show all ${rows.length} classes`, () => box.replaceChildren(shown(rows)), { class: "quiet" }));
  return card("per-class-title", "Classes, worst first", box);
}

function worstCard(reports, imageOf) {
  return card("worst-title", "Surest mistakes", ...switched("worst", reports, ([, report]) => [
    report.worst.length ? h("ul", { class: "worst" }, report.worst.slice(0, WORST).map((one) => wrongImage(one, imageOf))) : h("p", { class: "note" }, "None: every image that could be read was recognised."),
  ]));
}

function wrongImage({ filename, label, found, score }, imageOf) {
  const picture = h("img", { alt: "", hidden: true });
  imageOf(filename).then((file) => { if (file) { picture.src = URL.createObjectURL(file); picture.hidden = false; } }).catch(() => {});
  return h("li", null, picture, h("span", { class: "file", title: filename }, filename.split("/").pop()), h("span", null, `is ${label}`), h("span", { class: "bad" }, `found ${found}, ${percent(score)}`));
}
