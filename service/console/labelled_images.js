// Labelled images that a visitor gives for measuring: checked against the classes, kept for evaluation and comparison.

import * as api from "./api.js";
import { h } from "./dom.js";
import { bytes, counted } from "./format.js";
import { dropZone, inFolders, matcher } from "./image_files.js";
import { missing, overLimit } from "./words.js";

const FULLEST = 0.95; // of the body limit, for what a form adds

// `material` is what api.evaluate takes; `entries` maps the name that the service tells to the file.
export class LabelledImages {
  constructor() {
    this.material = null;
    this.entries = new Map();
    this.note = "";
  }

  async take(given, classes) {
    const { classes: folders, loose, archive } = await inFolders(given);
    const labelOf = matcher(classes);
    const unknown = [...folders.keys()].filter((folder) => !labelOf(folder));
    if (unknown.length) throw Object.assign(missing("Folders that are no class", `The label set has no class ${unknown[0]}.`), { unknown });
    if (loose.length) throw missing("Images without a class", `${loose[0]} lies in no folder that would name its class.`);
    const entries = [...folders.values()].flat();
    if (!entries.length) throw missing("No images", "There are no files in what was given.");
    await checkLimits(entries, archive);
    this.entries = new Map(entries.map((entry) => [entry.path, entry]));
    this.material = archive ? { archive } : { images: await Promise.all(entries.map(async (entry) => ({ path: entry.path, file: await entry.file() }))) };
    const size = archive?.size ?? entries.reduce((sum, entry) => sum + entry.size, 0);
    this.note = `${counted(entries.length, "image")} of ${counted(folders.size, "class", "classes")}, ${bytes(size)}`;
  }

  async imageOf(filename) {
    return (await this.entries.get(filename)?.file()) ?? null;
  }

  // The box to drop them on. `changed` is called with a problem, or with nothing.
  zone(open, changed) {
    const note = h("p", { class: "note", role: "status" }, this.note);
    const take = async (given) => {
      try {
        await this.take(given, open.set.classes);
        note.textContent = this.note;
        changed();
      } catch (failure) {
        changed(failure instanceof Error && failure.detail ? failure : missing("This cannot be used", failure.message));
      }
    };
    return h("div", { class: "stack-s" }, dropZone("Drop a zip of class folders, or the folders themselves", take, { folders: true, archives: true }), note);
  }
}

async function checkLimits(entries, archive) {
  const limits = await api.limits();
  if (entries.length > limits.max_evaluation_images) throw overLimit("max_evaluation_images", limits.max_evaluation_images, entries.length);
  const size = archive ? archive.size : entries.reduce((sum, entry) => sum + entry.size, 0) / FULLEST;
  if (size > limits.max_body_bytes) throw overLimit("max_body_bytes", limits.max_body_bytes, size);
}

// Asks until the state that is meant serves. `told` gets the latest answer's status while it does not.
export async function measured(id, material, { adapter, signal, told = () => {} }) {
  for (;;) {
    const answer = await api.evaluate(id, material, { adapter, wait: 30, signal });
    if (answer.adapted || !api.inMotion(answer.status)) return answer;
    told(answer.status);
  }
}
