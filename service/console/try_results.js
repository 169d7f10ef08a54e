// Draws what came back for the images: a list when there are many, and one image in detail.

import { bars, ranksOf } from "./bars.js";
import { button, find, h } from "./dom.js";
import { counted, percent } from "./format.js";
import { kept } from "./try_images.js";
import { problemBox } from "./words.js";

const best = (answers, which) => answers?.[which]?.predictions?.[0];

export function threshold() {
  return Number(find("reject").value) / 100;
}

// `ask` is {selected, onSelect, onRemove, meta}; `meta` says what the adapted column shows.
export function drawResults(ask) {
  const limit = threshold();
  find("reject-value").textContent = limit ? `${Math.round(limit * 100)} %` : "off";
  find("reject-note").textContent = limit ? rejectNote(limit) : "";
  find("images").replaceChildren(...(kept.length > 1 ? [imageList(ask, limit)] : []));
  find("detail").replaceChildren(...detail(ask, limit));
}

function rejectNote(limit) {
  const scored = kept.filter((one) => best(one.answers, "served"));
  const out = scored.filter((one) => best(one.answers, "served").score < limit).length;
  return `${out} of ${counted(scored.length, "image")} rejected`;
}

function imageList({ selected, onSelect, onRemove, meta }, limit) {
  return h("ul", { class: "image-list", "aria-label": "Images" }, kept.map((one) => {
    const served = best(one.answers, "served");
    const plain = best(one.answers, "plain");
    const failed = one.answers?.served?.problem;
    const differs = served && plain && served.label !== plain.label;
    return h("li", { data: { selected: String(one === selected) } },
      h("button", { type: "button", class: "pick", onclick: () => onSelect(one), "aria-pressed": String(one === selected) },
        h("img", { src: one.address, alt: "", width: 44, height: 44 }),
        h("span", { class: "file" }, one.file.name),
        failed ? h("span", { class: "bad" }, "cannot be read") : h("span", { class: "top" }, verdict(served, limit)),
        !failed && !meta.plainOnly && h("span", { class: differs ? "plain differs" : "plain" }, plain ? `plain: ${verdict(plain, limit)}` : "")),
      button("Remove", () => onRemove(one), { class: "quiet", "aria-label": `Remove ${one.file.name}` }));
  }));
}

function verdict(prediction, limit) {
  if (!prediction) return "…";
  return prediction.score < limit ? `rejected (${percent(prediction.score)})` : `${prediction.label} ${percent(prediction.score)}`;
}

function detail({ selected, meta }, limit) {
  const answers = selected?.answers;
  if (!answers) return [];
  const name = kept.length > 1 && h("h3", { class: "file" }, selected.file.name);
  if (answers.served.problem) return [h("div", { class: "stack-s" }, name, problemBox(answers.served.problem))];
  const column = (id, title, note, list) => h("section", { "aria-labelledby": id }, h("h3", { id }, title), h("p", { class: "note" }, note), rejection(list, limit), list.element);
  const ranks = ranksOf(answers.plain?.predictions ?? []);
  const served = { predictions: answers.served.predictions, element: bars(meta.kind, answers.served.predictions, { ranks, threshold: limit }) };
  const plain = answers.plain && { predictions: answers.plain.predictions, element: bars("plain", answers.plain.predictions, { threshold: limit }) };
  const columns = [
    !meta.plainOnly && column("adapted-title", "Adapted", meta.note, served),
    plain && column("plain-title", "Plain", "zero-shot, nothing learnt", plain),
  ].filter(Boolean);
  return [h("div", { class: "stack-s" }, name, h("div", { class: "answers" }, columns))];
}

function rejection({ predictions }, limit) {
  if (!predictions.length || predictions[0].score >= limit) return null;
  return h("p", { class: "rejected" }, `Rejected: the best score is below ${Math.round(limit * 100)} %`);
}
