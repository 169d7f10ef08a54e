// The support images of one class as thumbnails, fetched when somebody wants to see them.

import * as api from "./api.js";
import { announce, button, h } from "./dom.js";
import { counted } from "./format.js";
import { guarded } from "./words.js";

const SHOWN = 24;

// A button and the place where the images appear. `problem` is where failures are told.
export function shownImages(set, label, held, problem) {
  const box = h("div", { class: "thumbs", hidden: true });
  const toggle = button("Show", () => guarded(problem, async () => {
    if (box.childElementCount === 0) box.replaceChildren(...await thumbnails(set, label, held));
    box.hidden = !box.hidden;
    toggle.setAttribute("aria-expanded", String(!box.hidden));
    toggle.textContent = box.hidden ? "Show" : "Hide";
    if (!box.hidden) announce(`${counted(held.count, "image")} of ${label} shown`);
  }), { class: "quiet", "aria-label": `Show the images of ${label}`, "aria-expanded": "false" });
  return [toggle, box];
}

async function thumbnails(set, label, held) {
  const pictures = await Promise.all(held.images.slice(0, SHOWN).map(async ({ digest, caption }, place) => {
    const address = URL.createObjectURL(await api.supportImage(set.id, digest));
    const alt = caption || `${label}, image ${place + 1}`;
    const free = () => URL.revokeObjectURL(address); // once drawn it is not read again
    return h("img", { src: address, alt, title: alt, width: 72, height: 72, onload: free, onerror: free });
  }));
  const rest = held.count - pictures.length;
  return rest > 0 ? [...pictures, h("span", { class: "note" }, `and ${rest} more`)] : pictures;
}
