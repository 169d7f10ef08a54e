// How a label set came to be what it is: versions that had its name, and the fits of this one.

import * as api from "./api.js";
import { h } from "./dom.js";
import { counted, moment, seconds, shortId } from "./format.js";
import { statusChip, statusWord } from "./progress.js";
import { optionText } from "./set_overview.js";
import { guarded } from "./words.js";

const VERSIONS = 20;
const NAMED = 6;

export function historyPanel(open) {
  const problem = h("div");
  const versions = h("ol", { class: "timeline" });
  const states = h("ol", { class: "timeline" });
  const drawStates = (set) => states.replaceChildren(...stateEntries(set));
  open.listen(drawStates);
  drawStates(open.set);
  const panel = h("div", { class: "columns" },
    h("section", { class: "card", "aria-labelledby": "versions-title" }, h("h2", { id: "versions-title" }, "Versions"),
      h("p", { class: "note" }, "Label sets never change. Other content under the same name is another version; the earlier ones stay until they are deleted."), problem, versions),
    h("section", { class: "card", "aria-labelledby": "states-title" }, h("h2", { id: "states-title" }, "States of this version"), states));
  panel.addEventListener("shown", () => guarded(problem, async () => versions.replaceChildren(...await versionEntries(open.set))));
  return panel;
}

async function versionEntries(set) {
  const name = set.name ?? set.former_name;
  const { sets } = await api.labelSets();
  const family = sets.filter((one) => one.id === set.id || (name && (one.name === name || one.former_name === name))).slice(0, VERSIONS);
  const whole = await Promise.all(family.map((one) => (one.id === set.id ? set : api.labelSet(one.id))));
  return whole.map((one, place) => h("li", null,
    h("div", { class: "row wrap" }, one.id === set.id ? h("strong", null, shortId(one.id)) : h("a", { href: `#/label-sets/${one.id}/history` }, shortId(one.id)),
      statusChip(one.status), one.name && h("span", { class: "note" }, `has the name ${one.name}`)),
    h("p", { class: "note" }, `${moment(one.created)}, ${counted(one.class_count, "class", "classes")}, ${one.adapter}`),
    changes(one, whole[place + 1])));
}

function changes(now, before) {
  if (!before) return null;
  const had = new Set(before.classes);
  const has = new Set(now.classes);
  const said = [["added", now.classes.filter((name) => !had.has(name))], ["removed", before.classes.filter((name) => !has.has(name))]];
  const lines = said.filter(([, names]) => names.length).map(([word, names]) => `${word} ${names.slice(0, NAMED).join(", ")}${names.length > NAMED ? ` and ${names.length - NAMED} more` : ""}`);
  if (optionText(now.options) !== optionText(before.options)) lines.push("other options");
  return h("p", null, lines.join("; ") || "the same classes, told differently");
}

// Newest first: what it is now, the fits that led there, and its beginning.
function stateEntries(set) {
  const fits = [];
  for (let fit = set.fit; fit; fit = fit.former) fits.push(fit);
  const took = set.seconds === null ? "" : `, computed in ${seconds(set.seconds)}`;
  return [
    h("li", null, h("strong", null, `Now: ${statusWord(set.status)}`), h("p", { class: "note" }, `${set.adapter}${took}`), set.error && h("p", { class: "bad" }, set.error)),
    ...fits.map((fit, place) => h("li", null, h("strong", null, `Fit of ${fit.adapter}`),
      h("p", { class: "note" }, [moment(fit.created), optionText(fit.options), `images ${shortId(fit.support)}`, fit.error && `failed: ${fit.error}`, place > 0 && "served before"].filter(Boolean).join(", ")))),
    h("li", null, h("strong", null, "Stored"), h("p", { class: "note" }, `${moment(set.created)}, ${counted(set.class_count, "class", "classes")}`)),
  ];
}
