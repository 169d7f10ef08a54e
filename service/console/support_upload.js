// Sends folders of images as the support images of the classes that they are named after.

import * as api from "./api.js";
import { isImage, matcher } from "./image_files.js";
import { missing } from "./words.js";

// Replaces the images of every class that has a folder. `tell` gets a line on how far it is.
export async function putFolders(set, { classes, loose }, tell) {
  const labelOf = matcher(set.classes);
  const unknown = [...classes.keys()].filter((folder) => !labelOf(folder));
  if (unknown.length) throw Object.assign(missing("Folders that are no class", `The label set has no class ${unknown[0]}.`), { unknown });
  if (loose.length) throw missing("Images without a class", `${loose[0]} lies in no folder that would name its class. Choose it at its class below.`);
  let done = 0;
  for (const [folder, entries] of classes) {
    const files = (await Promise.all(entries.map((entry) => entry.file()))).filter(isImage);
    tell(`${labelOf(folder)}: sending ${files.length} images, class ${done + 1} of ${classes.size}`);
    await api.putSupport(set.id, labelOf(folder), files);
    done += 1;
  }
  tell("");
}
