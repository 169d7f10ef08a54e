// Hand-drawn charts of an evaluation: reliability diagram and confusion matrix, as SVG with a table or a text beside.

import { h, scrollable, svg } from "./dom.js";
import { counted, percent } from "./format.js";

const SIZE = 200;
const LEFT = 34;
const TOP = 8;
const COUNTS = 34;
const TICKS = [0, 0.25, 0.5, 0.75, 1];

// Bars: share right per bin of score, and the gap to the mean score: above the bar when too sure, inside when too modest.
export function reliabilityDiagram(title, report, kind) {
  const bins = report.reliability;
  const most = Math.max(1, ...bins.map((one) => one.images));
  const x = (value) => LEFT + value * SIZE;
  const y = (value) => TOP + (1 - value) * SIZE;
  const rect = (one, from, to, name) => svg("rect", { x: x(one.lower) + 0.5, width: Math.max(1, x(one.upper) - x(one.lower) - 1), y: y(to), height: Math.max(0, y(from) - y(to)), class: name },
    svg("title", null, `score ${percent(one.lower, 0)} to ${percent(one.upper, 0)}: ${counted(one.images, "image")}, ${percent(one.top1)} right, mean score ${percent(one.confidence)}`));
  const base = TOP + SIZE + 26 + COUNTS;
  const picture = svg("svg", { viewBox: `0 0 ${LEFT + SIZE + 14} ${base + 16}`, class: `chart ${kind}`, role: "img", "aria-label": `Reliability diagram, ${title}: ${summary(report)}` },
    TICKS.map((tick) => [
      svg("line", { x1: x(0), x2: x(1), y1: y(tick), y2: y(tick), class: "grid" }),
      svg("text", { x: LEFT - 5, y: y(tick) + 3.5, "text-anchor": "end" }, tick * 100),
      svg("text", { x: x(tick), y: y(0) + 14, "text-anchor": "middle" }, tick * 100),
    ]),
    bins.map((one) => [rect(one, 0, one.top1, "hit"), rect(one, Math.min(one.top1, one.confidence), Math.max(one.top1, one.confidence), one.confidence > one.top1 ? "gap" : "gap under")]),
    svg("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "ideal" }),
    bins.map((one) => { const height = (one.images / most) * COUNTS; return svg("rect", { x: x(one.lower) + 0.5, width: x(one.upper) - x(one.lower) - 1, y: base - height, height, class: "count" }); }),
    svg("line", { x1: x(0), x2: x(1), y1: base, y2: base, class: "grid" }),
    svg("text", { x: x(0.5), y: base + 12, "text-anchor": "middle" }, "score in %; below: images"));
  return h("figure", { class: "diagram" }, h("figcaption", null, h("strong", null, title), h("span", { class: "note" }, summary(report))), picture, binTable(title, bins));
}

const summary = ({ ece, top1 }) => `calibration error ${percent(ece)}, accuracy ${percent(top1)}`;

function binTable(title, bins) {
  const head = ["Score", "Images", "Mean score", "Right"];
  const rows = bins.map((one) => [`${percent(one.lower, 0)} to ${percent(one.upper, 0)}`, one.images, percent(one.confidence), percent(one.top1)]);
  return h("details", { class: "options" }, h("summary", null, "As a table"), table(`Reliability, ${title}`, head, rows));
}

export function table(caption, head, rows) {
  return scrollable(caption, h("table", null, h("caption", { class: "offscreen" }, caption),
    h("thead", null, h("tr", null, head.map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", null, rows.map(([first, ...rest]) => h("tr", null, h("th", { scope: "row" }, first), rest.map((cell) => h("td", null, cell instanceof Node ? cell : String(cell))))))));
}

const LABELLED = 40;
const NUMBERED = 16;
const short = (text) => (text.length > 16 ? `${text.slice(0, 15)}…` : text);

// Rows are the classes of the images, columns what was found; darker is a larger share of its row.
export function confusionMatrix(labels, matrix, kind) {
  const count = labels.length;
  const cell = count <= NUMBERED ? 30 : count <= LABELLED ? 16 : Math.max(3, Math.floor(600 / count));
  const margin = count <= LABELLED ? 104 : 14;
  const size = margin + count * cell + 2;
  const totals = matrix.map((row) => row.reduce((sum, value) => sum + value, 0));
  const right = matrix.reduce((sum, row, index) => sum + row[index], 0);
  const all = totals.reduce((sum, value) => sum + value, 0);
  const cells = matrix.flatMap((row, r) => row.map((value, c) => value > 0 && oneCell(labels, { value, r, c, total: totals[r] }, { cell, margin, numbered: count <= NUMBERED })));
  const names = count <= LABELLED && labels.map((label, index) => [
    svg("text", { x: margin - 5, y: margin + index * cell + cell / 2 + 3.5, "text-anchor": "end" }, svg("title", null, label), short(label)),
    svg("text", { transform: `translate(${margin + index * cell + cell / 2 + 3.5} ${margin - 5}) rotate(-90)` }, svg("title", null, label), short(label)),
  ]);
  const frame = svg("rect", { x: margin, y: margin, width: count * cell, height: count * cell, class: "frame" });
  const picture = svg("svg", { viewBox: `0 0 ${size} ${size}`, width: size, height: size, class: `chart matrix ${kind}`, role: "img", "aria-label": `Confusion matrix: ${right} of ${all} images on the diagonal. The most frequent mistakes are listed below.` }, frame, names || [], cells);
  return scrollable("Confusion matrix, rows are the true classes", picture);
}

function oneCell(labels, { value, r, c, total }, { cell, margin, numbered }) {
  const share = value / total;
  const x = margin + c * cell;
  const y = margin + r * cell;
  const box = svg("rect", { x: x + 0.5, y: y + 0.5, width: cell - 1, height: cell - 1, class: r === c ? "cell hit" : "cell miss", "fill-opacity": (0.18 + 0.82 * share).toFixed(2) },
    svg("title", null, `${labels[r]} found as ${labels[c]}: ${value} of ${total}`));
  return [box, numbered && svg("text", { x: x + cell / 2, y: y + cell / 2 + 4, "text-anchor": "middle", class: share > 0.5 ? "on" : "over" }, value)].filter(Boolean);
}
