// One label set: its head with state and progress, and the tabs below it.

import * as api from "./api.js";
import { announce, button, h } from "./dom.js";
import { counted, titleOf } from "./format.js";
import { ProgressLine, statusChip } from "./progress.js";
import { comparePanel } from "./set_compare.js";
import { evaluatePanel } from "./set_evaluate.js";
import { historyPanel } from "./set_history.js";
import { overviewPanel } from "./set_overview.js";
import { supportPanel } from "./set_support.js";
import { guarded } from "./words.js";

const TABS = {
  overview: ["Overview", overviewPanel],
  support: ["Images and fit", supportPanel],
  evaluate: ["Evaluate", evaluatePanel],
  compare: ["Compare", comparePanel],
  history: ["History", historyPanel],
};

let current = null;

export async function showSet(page, id, tab = "overview") {
  if (current?.set.id !== id || !page.contains(current.element)) {
    current?.left.abort();
    current = null;
    const problem = h("div");
    page.replaceChildren(h("h1", { tabIndex: -1 }, "Label set"), problem, h("a", { href: "#/label-sets" }, "All label sets"));
    const set = await guarded(problem, () => api.labelSet(id));
    if (!set) return;
    current = new OpenSet(set);
    page.replaceChildren(current.element);
    current.follow();
  }
  current.show(tab in TABS ? tab : "overview");
}

// What the tabs share: the label set as last read, and ways to read it again. Listeners get every new reading.
class OpenSet {
  constructor(set) {
    this.set = set;
    this.left = new AbortController();
    this.panels = new Map();
    this.listeners = [];
    this.line = new ProgressLine();
    this.head = h("div", { class: "stack-s" });
    this.problem = h("div");
    this.tabs = h("nav", { class: "tabs", "aria-label": "Parts of the label set" });
    this.body = h("div", { class: "stack" });
    this.title = h("h1", { tabIndex: -1 }, titleOf(set));
    this.element = h("div", { class: "stack" }, h("div", { class: "stack-s" }, this.title, this.head, this.line.element, this.problem), this.tabs, this.body);
    this.drawHead();
  }

  drawHead() {
    const { set } = this;
    const fitting = set.fit && api.inMotion(set.status);
    this.head.replaceChildren(h("div", { class: "row wrap" },
      this.chip = statusChip(set.status), h("span", { class: "note" }, `${counted(set.class_count, "class", "classes")}, ${set.adapter}`),
      fitting && button("Cancel the fit", (event) => this.cancel(event.target), { class: "quiet" }),
      h("a", { class: "button quiet", href: `#/try/${set.id}` }, "Try it")));
    this.head.append(...(set.error ? [h("p", { class: "error" }, h("strong", null, "It failed"), h("span", null, set.error))] : []));
  }

  show(tab) {
    this.tabs.replaceChildren(...Object.entries(TABS).map(([name, [text]]) => h("a", { href: `#/label-sets/${this.set.id}/${name}`, "aria-current": name === tab ? "page" : null }, text)));
    if (!this.panels.has(tab)) this.panels.set(tab, TABS[tab][1](this));
    this.body.replaceChildren(this.panels.get(tab));
    this.panels.get(tab).dispatchEvent(new Event("shown"));
  }

  listen(listener) {
    this.listeners.push(listener);
  }

  async refresh() {
    this.set = await api.labelSet(this.set.id);
    this.drawHead();
    for (const listener of this.listeners) listener(this.set);
  }

  // Until the label set is ready, failed or in want of images.
  async follow() {
    if (!api.inMotion(this.set.status)) return;
    this.line.reset();
    await guarded(this.problem, async () => {
      await api.watch(this.set.id, (snapshot) => this.showProgress(snapshot), this.left.signal);
      await this.refresh();
    });
    this.line.hide();
    announce(`${titleOf(this.set)}: ${this.set.status}`);
  }

  showProgress(snapshot) {
    this.line.show(snapshot);
    const chip = statusChip(snapshot.status);
    this.chip.replaceWith(chip);
    this.chip = chip;
  }

  async cancel(control) {
    control.disabled = true;
    await guarded(this.problem, async () => {
      await api.cancelFit(this.set.id);
      await this.refresh();
      announce("The fit was cancelled");
    });
  }
}
