// Choosing a method and its options, from what the service says of its methods.

import * as api from "./api.js";
import { field, h } from "./dom.js";
import { missing } from "./words.js";

// What a method learns from decides where it can be offered.
export const fewShot = (method) => method.needs.support > 0;

// `choices` are [value, text]; the summary of the chosen method stands below.
export function methodSelect(label, choices, methods, { value = "", onchange = () => {} } = {}) {
  const select = h("select", null, choices.map(([one, text]) => h("option", { value: one, selected: one === value }, text)));
  const note = h("p", { class: "note" });
  const options = h("details", { class: "options" });
  const show = () => {
    const method = methods.find((one) => one.name === select.value);
    note.textContent = method?.summary ?? "";
    drawOptions(options, method);
    onchange(select.value);
  };
  select.addEventListener("change", show);
  show();
  return { select, element: h("div", { class: "stack-s" }, field(label, select), note, options), options: () => readOptions(options) };
}

function drawOptions(box, method) {
  const entries = Object.entries(method?.options ?? {});
  box.hidden = entries.length === 0;
  box.replaceChildren(h("summary", null, "Options of the method"), h("div", { class: "grid-fields" }, entries.map(([name, value]) => field(name, optionInput(name, value)))));
}

function optionInput(name, value) {
  const data = { option: name, kind: typeof value };
  if (typeof value === "boolean") return h("input", { type: "checkbox", checked: value, data: { ...data, initial: String(value) } });
  const kind = typeof value === "number" ? { inputMode: "decimal" } : {};
  return h("input", { type: "text", placeholder: String(value), autocomplete: "off", data, ...kind });
}

// Only what was changed, so that defaults of the service stay its own.
function readOptions(box) {
  const given = {};
  for (const input of box.querySelectorAll("[data-option]")) {
    const { option, kind, initial } = input.dataset;
    if (kind === "boolean") {
      if (String(input.checked) !== initial) given[option] = input.checked;
    } else if (input.value.trim()) {
      given[option] = kind === "number" ? numberOf(option, input.value.trim()) : input.value.trim();
    }
  }
  return given;
}

function numberOf(option, text) {
  const value = Number(text);
  if (Number.isNaN(value)) throw missing("Not a number", `The option ${option} is a number, and ${text} is none.`);
  return value;
}

export async function offered(keep) {
  const { default: usual, adapters } = await api.methods();
  return { usual, methods: adapters, names: adapters.filter(keep).map((method) => method.name) };
}
