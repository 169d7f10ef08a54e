// Draws answers into the page. Knows the document, not the network.

const STAGE_COLOURS = 6;
const REST = "network and browser";

export const find = (id) => document.getElementById(id);

export function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

export function percent(score) {
  const value = score * 100;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  return `${value.toFixed(1)} %`;
}

function move(rank, before) {
  if (before === undefined || before === rank) return null;
  const steps = Math.abs(before - rank);
  const node = element("span", "move", `${before > rank ? "▲" : "▼"} ${steps}`);
  node.title = `${steps} ${steps === 1 ? "place" : "places"} ${before > rank ? "higher" : "lower"} than plain`;
  return node;
}

// `ranks` maps a label to its place in the list that this one is compared with.
export function drawBars(list, predictions, ranks = new Map()) {
  list.replaceChildren(...predictions.map((prediction, rank) => {
    const row = element("li");
    const name = element("span", "name", prediction.label);
    const moved = move(rank, ranks.get(prediction.label));
    if (moved) name.append(moved);
    const score = element("span", "score", percent(prediction.score));
    score.title = `cosine ${prediction.cosine.toFixed(4)}`;
    const track = element("span", "track");
    const fill = element("div", "fill");
    fill.style.width = `${Math.max(0, Math.min(1, prediction.score)) * 100}%`;
    track.append(fill);
    row.append(name, score, track);
    return row;
  }));
}

export function ranksOf(predictions) {
  return new Map(predictions.map((prediction, rank) => [prediction.label, rank]));
}

export function drawTimings(timings, roundTrip) {
  const total = timings.total ?? Object.values(timings).reduce((sum, value) => sum + value, 0);
  const stages = Object.entries(timings).filter(([name]) => name !== "total");
  const shown = [...stages];
  if (roundTrip > total) shown.push([REST, roundTrip - total]);
  const sum = shown.reduce((all, [, value]) => all + value, 0) || 1;
  const colour = (name, index) => (name === REST ? "stage-rest" : `stage-${index % STAGE_COLOURS}`);
  find("timing-bar").replaceChildren(...shown.map(([name, value], index) => {
    const part = element("span", colour(name, index));
    part.style.flexGrow = String(value / sum);
    return part;
  }));
  const entries = shown.map(([name, value], index) => timingEntry(name.replaceAll("_", " "), value, colour(name, index)));
  find("timing-list").replaceChildren(...entries, timingEntry("all", roundTrip));
  find("timing").hidden = false;
}

function timingEntry(name, milliseconds, colour) {
  const entry = element("div");
  if (colour) entry.append(element("span", `swatch ${colour}`));
  entry.append(element("dt", "", name), element("dd", "", `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`));
  return entry;
}

export function drawState(kind, text) {
  const state = find("state");
  state.dataset.state = kind;
  state.textContent = text;
}

export function drawAdapting(active, progress) {
  find("adapting").hidden = !active;
  const bar = find("adapting-bar");
  if (progress > 0) bar.value = progress;
  else bar.removeAttribute("value");
}

// An answer that no longer belongs to what was asked last.
export function drawStale(stale) {
  for (const id of ["answers", "timing"]) find(id).classList.toggle("stale", stale);
}

export function drawError(failure) {
  const box = find("error");
  box.hidden = !failure;
  if (!failure) return box.replaceChildren();
  const parts = [element("strong", "", failure.title), element("span", "", failure.detail)];
  if (failure.fields?.length) {
    const list = element("ul");
    list.append(...failure.fields.map((line) => element("li", "", line)));
    parts.push(list);
  }
  if (failure.requestId) parts.push(element("br"), element("small", "", `Request ${failure.requestId}`));
  return box.replaceChildren(...parts);
}
