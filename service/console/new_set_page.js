// The page that makes a label set: classes pasted, from a table, with descriptions, or from folders of images.

import * as api from "./api.js";
import { field, h, whileBusy } from "./dom.js";
import { counted } from "./format.js";
import { dropZone, inFolders } from "./image_files.js";
import { asEntries, describedOf, namesOf, tableOf } from "./label_text.js";
import { fewShot, methodSelect, offered } from "./method_form.js";
import { putFolders } from "./support_upload.js";
import { guarded, missing, overLimit } from "./words.js";

const WAYS = {
  names: { title: "Names", label: "Class names, one per line or separated by commas", hint: "cat\ndog\ncup of coffee", read: namesOf },
  table: { title: "CSV", label: "Table, with a header or the names in its first column", hint: "name,aliases,descriptions\ncat,tabby|kitten,a small domestic cat\ndog,,", read: tableOf },
  described: { title: "Descriptions", label: "Name and description, one per line", hint: "cat: a small animal with whiskers\ncat: sleeps in the sun\ndog: a loyal companion", read: describedOf },
  folders: { title: "Image folders", label: "Folders named after their classes" },
};
const SHOWN = 12;

export async function showNewSet(page) {
  const problem = h("div");
  const state = { way: "names", folders: null };
  const summary = h("p", { class: "note", role: "status" });
  const inputs = h("div", { class: "stack-s" });
  const name = h("input", { type: "text", autocomplete: "off", placeholder: "for example animals", maxLength: 63 });
  const templates = h("textarea", { rows: 3, spellcheck: false, placeholder: "a photo of a {}.\na close-up of a {}." });
  const method = h("div");
  const create = h("button", { type: "submit", class: "primary" }, "Create label set");

  const read = () => (state.way === "folders" ? fromFolders(state.folders) : WAYS[state.way].read(inputs.querySelector("textarea").value));
  const tell = () => { summary.textContent = described(read()); };
  const choose = (way) => {
    state.way = way;
    inputs.replaceChildren(...(way === "folders" ? folderInput(state, tell, problem) : textInput(WAYS[way], way === "table", tell)));
    tell();
  };
  const form = h("form", { class: "stack", novalidate: "", onsubmit: (event) => {
    event.preventDefault();
    guarded(problem, () => whileBusy(create, async () => {
      const one = await send(read(), { name: name.value.trim(), templates: templates.value, choice: form.choice });
      if (state.folders && state.way === "folders") await putFolders(one, state.folders, (text) => { summary.textContent = text; });
      location.hash = `#/label-sets/${one.id}/${state.way === "folders" ? "support" : "overview"}`;
    }));
  } },
    h("div", { class: "columns" },
      h("section", { class: "card", "aria-labelledby": "classes-title" }, h("h2", { id: "classes-title" }, "Classes"), ways(choose), inputs, summary),
      h("section", { class: "card", "aria-labelledby": "settings-title" }, h("h2", { id: "settings-title" }, "Name and method"),
        field("Name", name, "Optional. Requests may use it in place of the id; another label set of this name takes it over."),
        method,
        h("details", { class: "options" }, h("summary", null, "Prompt templates"), field("Templates, one per line", templates, "{} stands for the class name. Without any, those of the backbone are used.")),
        problem,
        h("div", { class: "row end" }, h("a", { class: "button", href: "#/label-sets" }, "Cancel"), create))));
  page.replaceChildren(h("h1", { tabIndex: -1 }, "New label set"), form);
  choose("names");
  await guarded(problem, async () => {
    const { methods } = await offered(() => true);
    form.choice = methodSelect("Method", [["", "chosen by the service"], ...methods.map((one) => [one.name, fewShot(one) ? `${one.name} (learns from images)` : one.name])], methods);
    method.replaceChildren(form.choice.element);
  });
}

function ways(choose) {
  return h("fieldset", { class: "choice" }, h("legend", { class: "offscreen" }, "How the classes are given"),
    Object.entries(WAYS).map(([way, { title }]) => h("label", null, h("input", { type: "radio", name: "way", value: way, checked: way === "names", onchange: () => choose(way) }), ` ${title}`)));
}

function textInput({ label, hint }, withFile, tell) {
  const area = h("textarea", { rows: 12, spellcheck: false, placeholder: hint, oninput: tell });
  if (!withFile) return [field(label, area)];
  const file = h("input", { type: "file", accept: ".csv,.tsv,.txt,text/csv", onchange: async () => { area.value = await file.files[0].text(); tell(); } });
  return [field("CSV file", file), field(label, area)];
}

function folderInput(state, tell, problem) {
  const take = (given) => guarded(problem, async () => { state.folders = await inFolders(given); tell(); });
  return [dropZone("Drop folders of images here, one per class, or a zip of them", take, { folders: true, archives: true }),
    h("p", { class: "note" }, "The folders name the classes; their images are kept as support images to fit a method to.")];
}

const fromFolders = (folders) => namesOf([...(folders?.classes.keys() ?? [])].map((one) => `"${one.replaceAll("_", " ")}"`).join("\n"));

function described({ classes, repeated }) {
  if (!classes.length) return "No classes yet";
  const rich = classes.filter((one) => one.descriptions.length || one.aliases.length).length;
  const names = classes.slice(0, SHOWN).map((one) => one.name).join(", ") + (classes.length > SHOWN ? ", …" : "");
  return [counted(classes.length, "class", "classes"), rich && `${rich} with more than a name`, repeated.length && `${repeated.length} repeated and left out`].filter(Boolean).join(", ") + `: ${names}`;
}

async function send({ classes }, { name, templates, choice }) {
  if (!classes.length) throw missing("No classes", "Give at least one class first.");
  const { max_classes: most } = await api.limits();
  if (classes.length > most) throw overLimit("max_classes", most, classes.length);
  const lines = templates.split("\n").map((line) => line.trim()).filter(Boolean);
  return api.createLabelSet({
    classes: asEntries(classes),
    ...(name ? { name } : {}),
    ...(choice?.select.value ? { adapter: choice.select.value, options: choice.options() } : {}),
    ...(lines.length ? { templates: lines } : {}),
  });
}

