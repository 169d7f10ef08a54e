// The list of label sets, kept up to date while anything in it is on its way.

import * as api from "./api.js";
import { announce, field, h } from "./dom.js";
import { ago, counted, moment, shortId, titleOf } from "./format.js";
import { statusChip } from "./progress.js";
import { guarded } from "./words.js";

const EVERY = 1500;
let timer = null;

export function leaveSets() {
  clearTimeout(timer);
  timer = null;
}

export async function showSets(page) {
  const problem = h("div");
  const filter = h("input", { type: "search", placeholder: "name, method or id", oninput: () => draw() });
  const list = h("ul", { class: "sets", "aria-label": "Label sets" });
  const note = h("p", { class: "note", role: "status" });
  let found = { sets: [], more: false };

  const draw = () => {
    const text = filter.value.trim().toLowerCase();
    const shown = found.sets.filter((one) => [one.name, one.former_name, one.adapter, one.id].some((value) => value?.toLowerCase().includes(text)));
    list.replaceChildren(...shown.map(row));
    note.textContent = summary(found, shown.length);
    const none = found.sets.length === 0;
    empty.hidden = !none;
    list.hidden = none;
    filter.parentElement.hidden = none;
  };
  const empty = h("div", { class: "empty", hidden: true },
    h("p", null, "There is no label set yet."),
    h("p", null, "A label set is the list of classes that images are to be told apart by. It is adapted once; then every image costs one pass."));
  const read = async (options) => {
    found = await api.labelSets(options);
    draw();
    if (found.sets.some((one) => api.inMotion(one.status))) timer = setTimeout(() => read({ background: true }).catch(() => {}), EVERY);
  };
  page.replaceChildren(
    h("div", { class: "heading" }, h("h1", { tabIndex: -1 }, "Label sets"), h("a", { class: "button primary", href: "#/label-sets/new" }, "New label set")),
    h("section", { class: "card", "aria-label": "All label sets" }, field("Find", filter), problem, note, list, empty));
  await guarded(problem, () => read());
}

function summary({ sets, more }, shown) {
  if (!sets.length) return "";
  const all = `${counted(sets.length, "label set")}${more ? ", the first that there are" : ""}`;
  return shown === sets.length ? all : `${shown} of ${all}`;
}

function row(one) {
  const version = one.former_name ? `earlier version of ${one.former_name}` : shortId(one.id);
  return h("li", null,
    h("a", { class: "set-name", href: `#/label-sets/${one.id}` }, titleOf(one)),
    h("span", { class: "note" }, version),
    h("span", null, counted(one.class_count, "class", "classes")),
    h("span", null, one.adapter),
    h("span", { class: "set-state" }, statusChip(one.status), api.inMotion(one.status) && h("progress", { max: 1, value: one.progress, "aria-label": `Progress of ${titleOf(one)}` })),
    h("time", { class: "note", title: moment(one.created) }, ago(one.created)));
}

export function toldGone(name) {
  announce(`${name} was deleted`);
}
