// What a label set is and what was learnt for it; more classes; deletion.

import * as api from "./api.js";
import { button, facts, field, h, whileBusy } from "./dom.js";
import { bytes, counted, moment, seconds, shortId, titleOf } from "./format.js";
import { asEntries, namesOf } from "./label_text.js";
import { toldGone } from "./sets_page.js";
import { guarded, missing } from "./words.js";

const SHOWN = 100;

export function overviewPanel(open) {
  const about = h("section", { class: "card", "aria-labelledby": "about-title" });
  const classes = h("section", { class: "card", "aria-labelledby": "class-title" });
  const draw = (set) => {
    about.replaceChildren(h("h2", { id: "about-title" }, "State"), ...aboutSet(set));
    classes.replaceChildren(h("h2", { id: "class-title" }, counted(set.class_count, "class", "classes")), classList(set), addForm(set));
  };
  open.listen(draw);
  draw(open.set);
  return h("div", { class: "stack" }, h("div", { class: "columns" }, about, classes), deletion(open));
}

function aboutSet(set) {
  const learnt = Object.entries(set.info);
  return [
    facts([
      ["Method", set.adapter + (set.info.chosen && set.info.chosen !== set.adapter ? `, which chose ${set.info.chosen}` : "")],
      ["Why", set.info.auto_reason],
      ["Stored", moment(set.created)],
      ["Adapted in", set.seconds === null ? null : seconds(set.seconds)],
      ["Class state", set.bytes === null ? null : bytes(set.bytes)],
      ["Options", optionText(set.options)],
      ["Templates", set.templates.join("  ·  ")],
      ["Id", h("code", { title: set.id }, shortId(set.id))],
      ["Method version", set.version && h("code", null, set.version)],
      ["Backbone", h("code", null, shortId(set.fingerprint))],
    ]),
    learnt.length > 0 && h("details", { class: "options" }, h("summary", null, "All that the method tells"), facts(learnt.map(([name, value]) => [name.replaceAll("_", " "), String(value)]))),
  ].filter(Boolean);
}

export const optionText = (options) => Object.entries(options).map(([name, value]) => `${name} ${value}`).join(", ");

function classList(set) {
  const list = h("ul", { class: "tags" });
  const draw = (names) => list.replaceChildren(...names.map((name) => h("li", null, name)));
  draw(set.classes.slice(0, SHOWN));
  const rest = set.classes.length - SHOWN;
  const more = rest > 0 && button(`Show the other ${rest}`, () => { draw(set.classes); more.remove(); }, { class: "quiet" });
  return h("div", { class: "stack-s" }, list, more);
}

function addForm(set) {
  const problem = h("div");
  const area = h("textarea", { rows: 3, spellcheck: false });
  const add = button("Add", () => guarded(problem, () => whileBusy(add, async () => {
    const { classes } = namesOf(area.value);
    if (!classes.length) throw missing("No classes", "Type the classes to add first.");
    const longer = await api.addClasses(set.id, asEntries(classes));
    location.hash = `#/label-sets/${longer.id}/history`;
  })));
  return h("details", { class: "options" }, h("summary", null, "Add classes"),
    h("div", { class: "stack-s" }, field("More classes, one per line", area, "Label sets never change: this makes a new version, which takes over the name and the support images."), problem, h("div", { class: "row end" }, add)));
}

function deletion(open) {
  const problem = h("div");
  const name = () => titleOf(open.set);
  const cancel = button("Keep it", () => dialog.close());
  const confirm = button("Delete for good", () => guarded(problem, () => whileBusy(confirm, async () => {
    await api.removeLabelSet(open.set.id);
    dialog.close();
    open.left.abort();
    toldGone(name());
    location.hash = "#/label-sets";
  })), { class: "danger" });
  const text = h("p");
  const dialog = h("dialog", { "aria-labelledby": "delete-title" }, h("div", { class: "stack-s" }, h("h2", { id: "delete-title" }, "Delete this label set?"), text, problem, h("div", { class: "row end" }, cancel, confirm)));
  const ask = () => {
    text.textContent = `${name()}, its ${counted(open.set.class_count, "class", "classes")}, support images and everything that was learnt for it will be gone. Requests that name it will be answered with “not found”.`;
    dialog.showModal();
    cancel.focus();
  };
  return h("div", { class: "row end" }, button("Delete …", ask, { class: "danger quiet" }), dialog);
}
