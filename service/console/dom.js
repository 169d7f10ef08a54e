// Builds and finds nodes. Knows nothing of the service.

const SVG = "http://www.w3.org/2000/svg";

const PROPERTIES = new Set(["htmlFor", "value"]); // texts that are no attributes, or not only

export const find = (id) => document.getElementById(id);

// `on…` are listeners, texts are attributes, everything else is a property; undefined, null and false are left out.
export function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") node.className = value;
    else if (key === "data") Object.assign(node.dataset, value);
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (PROPERTIES.has(key)) node[key] = value;
    else if (typeof value === "string" || key.includes("-")) node.setAttribute(key, value);
    else node[key] = value;
  }
  node.append(...filled(children));
  return node;
}

export function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes ?? {})) node.setAttribute(key, value);
  node.append(...filled(children));
  return node;
}

const filled = (children) => children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== "");

// A visible label with its control, and an optional hint that screen readers read with it.
let labelled = 0;
export function field(text, control, hint) {
  labelled += 1;
  control.id ||= `field-${labelled}`;
  const note = hint && h("span", { class: "note", id: `${control.id}-hint` }, hint);
  if (note) control.setAttribute("aria-describedby", note.id);
  return h("div", { class: "field" }, h("label", { htmlFor: control.id }, text), control, note);
}

export function button(text, onclick, props) {
  return h("button", { type: "button", onclick, ...props }, text);
}

export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { class: "facts" }, shown.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
}

// Read out by screen readers, seen by nobody.
export function announce(text) {
  find("live").textContent = text;
}

// Disables `control` while `work` runs, so that nothing is asked for twice.
export async function whileBusy(control, work) {
  control.disabled = true;
  try {
    return await work();
  } finally {
    control.disabled = false;
  }
}

// A wide thing in a box of its own that scrolls sideways, also by keyboard.
export function scrollable(label, ...children) {
  return h("div", { class: "scroll", role: "region", tabIndex: 0, "aria-label": label }, ...children);
}
