// The images that are to be classified: kept in order, shown as a preview, handed out in requests of bearable size.

import { find } from "./dom.js";
import { bytes, counted } from "./format.js";
import { limits } from "./api.js";
import { isImage } from "./image_files.js";
import { missing, overLimit } from "./words.js";

const TOGETHER = 16;
const FULLEST = 0.9; // of the body limit, for what a form adds
const NOTE = "JPEG, PNG, WebP or GIF. They go to this service only.";

export const kept = []; // {file, address, answers}

export async function add(files) {
  const wrong = files.find((file) => !isImage(file));
  if (wrong) throw missing("Not an image", `${wrong.name || "This"} is ${wrong.type || "of an unknown type"}. JPEG, PNG, WebP and GIF are read.`);
  const { max_image_bytes: most, max_images: together } = await limits();
  const large = files.find((file) => file.size > most);
  if (large) throw overLimit("max_image_bytes", most, large.size);
  if (kept.length + files.length > 4 * together) throw missing("Too many images for this page", `It takes up to ${4 * together} at once. For folders there is the command selftpt classify.`);
  kept.push(...files.map((file) => ({ file, address: URL.createObjectURL(file), answers: null })));
}

export function remove(one) {
  URL.revokeObjectURL(one.address);
  kept.splice(kept.indexOf(one), 1);
}

export function clear() {
  for (const one of [...kept]) remove(one);
}

// Groups of images that go into one request each.
export async function* groups() {
  const { max_body_bytes: most, max_images: together } = await limits();
  let group = [];
  let size = 0;
  for (const one of kept) {
    if (group.length === Math.min(TOGETHER, together) || (group.length && size + one.file.size > FULLEST * most)) {
      yield group;
      group = [];
      size = 0;
    }
    group.push(one);
    size += one.file.size;
  }
  if (group.length) yield group;
}

export function drawPreview(selected) {
  const preview = find("preview");
  preview.hidden = !selected;
  find("drop-text").hidden = Boolean(selected);
  find("clear").hidden = kept.length === 0;
  if (!selected) {
    preview.removeAttribute("src");
    find("image-note").textContent = NOTE;
    return;
  }
  preview.src = selected.address;
  preview.alt = `Your image ${selected.file.name}`;
  const others = kept.length > 1 ? ` (${counted(kept.length, "image")} in all)` : "";
  find("image-note").textContent = `${selected.file.name || "Pasted image"}, ${bytes(selected.file.size)}${others}. Choose, drop or paste more to add them.`;
}
