// Files that a visitor gives: dropped, pasted or picked, single or in folders of classes, or packed in an archive.

import { h } from "./dom.js";
import { isShown, readZip } from "./zip.js";

export const ACCEPT = "image/jpeg,image/png,image/webp,image/gif";
const IMAGE_NAME = /\.(jpe?g|png|webp|gif)$/i;

export const isArchive = (file) => /zip/.test(file.type) || /\.zip$/i.test(file.name);
export const isImage = (file) => file.type.startsWith("image/") || IMAGE_NAME.test(file.name);

export function pastedImages(event) {
  return [...(event.clipboardData?.files ?? [])].filter(isImage);
}

// Dropped files with their paths, folders opened. The list has to be taken before anything is awaited.
export async function dropped(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const found = await Promise.all(entries.filter(Boolean).map((entry) => (entry instanceof File ? [{ path: entry.name, file: entry }] : walk(entry))));
  return found.flat();
}

async function walk(entry) {
  const path = entry.fullPath.replace(/^\//, "");
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => { entry.file(resolve, reject); });
    return isShown(path) ? [{ path, file }] : [];
  }
  const reader = entry.createReader();
  const children = [];
  for (;;) { // a reader gives a hundred at a time, and none at the end
    const some = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
    if (some.length === 0) break;
    children.push(...some);
  }
  return (await Promise.all(children.map(walk))).flat();
}

export function picked(input) {
  return [...input.files].map((file) => ({ path: file.webkitRelativePath || file.name, file })).filter(({ path }) => isShown(path));
}

// What lies in folders of classes: {classes: Map of folder name to [{path, size, file()}], loose: paths without a
// folder, archive: the zip file if it was one and nothing else}.
export async function inFolders(given) {
  const archives = given.filter(({ file }) => isArchive(file));
  const plain = given.filter(({ file }) => !isArchive(file)).map(({ path, file }) => ({ path, size: file.size, file: async () => file }));
  const unpacked = (await Promise.all(archives.map(({ file }) => readZip(file)))).flat();
  const classes = new Map();
  const loose = [];
  for (const entry of [...plain, ...unpacked]) {
    const folder = entry.path.split("/").at(-2);
    if (!folder) loose.push(entry.path);
    else classes.set(folder, [...(classes.get(folder) ?? []), entry]);
  }
  const ordered = new Map([...classes].sort(([one], [other]) => one.localeCompare(other)));
  return { classes: ordered, loose, archive: archives.length === 1 && plain.length === 0 ? archives[0].file : null };
}

// Class names and folder names compare without case, and underscores may stand for blanks.
export const plainName = (name) => name.replaceAll("_", " ").trim().replace(/\s+/g, " ").toLowerCase();

export function matcher(classes) {
  const known = new Map(classes.map((label) => [plainName(label), label]));
  return (folder) => known.get(plainName(folder)) ?? null;
}

// A box to drop files on, with buttons that open the file pickers. `take` gets [{path, file}].
export function dropZone(text, take, { folders = false, archives = false } = {}) {
  const files = h("input", { type: "file", multiple: true, class: "offscreen", accept: archives ? `${ACCEPT},.zip,application/zip` : ACCEPT, tabIndex: -1, "aria-hidden": "true" });
  const folder = h("input", { type: "file", webkitdirectory: true, class: "offscreen", tabIndex: -1, "aria-hidden": "true" });
  for (const input of [files, folder]) input.addEventListener("change", () => { take(picked(input)); input.value = ""; });
  const zone = h("div", { class: "drop slim" }, h("p", null, text),
    h("div", { class: "row" },
      h("button", { type: "button", onclick: () => files.click() }, archives ? "Choose a zip" : "Choose images"),
      folders && h("button", { type: "button", onclick: () => folder.click() }, "Choose a folder")),
    files, folders && folder);
  onDrop(zone, take);
  return zone;
}

export function onDrop(zone, take) {
  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", (event) => { if (!zone.contains(event.relatedTarget)) zone.classList.remove("over"); });
  zone.addEventListener("drop", async (event) => {
    event.preventDefault();
    event.stopPropagation();
    zone.classList.remove("over");
    take(await dropped(event.dataTransfer));
  });
}
