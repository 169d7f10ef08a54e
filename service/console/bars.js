// Ranked labels as bars, and the stages of a request as one stacked bar. Knows the document, not the network.

import { h } from "./dom.js";
import { milliseconds, percent } from "./format.js";

const STAGE_COLOURS = 7;
const REST = "network and browser";
const MEANINGS = {
  receive: "the body arrives and is understood",
  resolve: "the label set, and what was learnt for it, are looked up",
  decode: "image files become pixels",
  queue: "waiting for the device",
  batch: "images that arrived together are put together",
  forward: "the image tower; nothing for images that it has just seen",
  head: "scores of the labels",
  [REST]: "on the way, and in this page",
};

function move(rank, before) {
  if (before === undefined || before === rank) return null;
  const steps = Math.abs(before - rank);
  const places = `${steps} ${steps === 1 ? "place" : "places"} ${before > rank ? "higher" : "lower"} than plain`;
  return h("span", { class: "move", title: places }, h("span", { "aria-hidden": "true" }, `${before > rank ? "▲" : "▼"} ${steps}`), h("span", { class: "offscreen" }, `, ${places}`));
}

export const ranksOf = (predictions) => new Map(predictions.map(({ label }, rank) => [label, rank]));

// `ranks` maps a label to its place in the list that this one is compared with; `threshold` is where rejection begins.
export function bars(kind, predictions, { ranks = new Map(), threshold = 0 } = {}) {
  const rejected = predictions.length > 0 && predictions[0].score < threshold;
  return h("ol", { class: "bars", data: { kind, rejected: String(rejected) } }, predictions.map(({ label, score, cosine }, rank) => {
    const fill = h("div", { class: "fill" });
    fill.style.width = `${Math.max(0, Math.min(1, score)) * 100}%`;
    const mark = threshold > 0 && h("div", { class: "mark" });
    if (mark) mark.style.left = `${threshold * 100}%`;
    return h("li", null,
      h("span", { class: "name" }, label, move(rank, ranks.get(label))),
      h("span", { class: "score", title: `cosine ${cosine.toFixed(4)}` }, percent(score)),
      h("span", { class: "track", "aria-hidden": "true" }, fill, mark));
  }));
}

// Fills the timing part of the page: what the service measured, and the rest of the way.
export function drawTimings({ box, bar, list }, timings, roundTrip) {
  const total = timings.total ?? 0;
  const shown = Object.entries(timings).filter(([name]) => name !== "total");
  if (roundTrip > total) shown.push([REST, roundTrip - total]);
  const colour = (name, index) => (name === REST ? "stage-rest" : `stage-${index % STAGE_COLOURS}`);
  bar.replaceChildren(...shown.map(([name, value], index) => {
    const part = h("span", { class: colour(name, index), title: `${name} ${milliseconds(value)}` });
    part.style.flexGrow = String(value);
    return part;
  }));
  const entry = (name, value, swatch) => h("div", { title: MEANINGS[name] }, h("dt", null, swatch && h("span", { class: `swatch ${swatch}` }), name), h("dd", null, milliseconds(value)));
  list.replaceChildren(...shown.map(([name, value], index) => entry(name.replaceAll("_", " "), value, colour(name, index))), entry("all", roundTrip));
  box.hidden = false;
}
