// The support images of a label set by class, and fits of few-shot methods to them.

import * as api from "./api.js";
import { announce, button, facts, field, h, whileBusy } from "./dom.js";
import { bytes, counted, moment, percent, points, seconds } from "./format.js";
import { ACCEPT, dropZone, inFolders } from "./image_files.js";
import { fewShot, methodSelect, offered } from "./method_form.js";
import { optionText } from "./set_overview.js";
import { shownImages } from "./set_support_images.js";
import { putFolders } from "./support_upload.js";
import { guarded, missing } from "./words.js";

const AUTO = "auto";
const ROWS = 200;

export function supportPanel(open) {
  const problem = h("div");
  const note = h("p", { class: "note", role: "status" });
  const rows = h("ul", { class: "class-rows", "aria-label": "Support images by class" });
  const changed = async () => drawRows(rows, note, await api.support(open.set.id), { open, problem, changed });
  const take = (given) => guarded(problem, async () => {
    await putFolders(open.set, await inFolders(given), (text) => { note.textContent = text; });
    await changed();
    announce("Support images stored");
  });
  const panel = h("div", { class: "columns" },
    h("section", { class: "card", "aria-labelledby": "support-title" }, h("h2", { id: "support-title" }, "Support images"),
      h("p", { class: "note" }, "A few labelled images per class, from which few-shot methods learn. New images replace those of their class."),
      dropZone("Drop folders named after the classes here, or a zip of them", take, { folders: true, archives: true }), problem, note, rows),
    fitCard(open));
  guarded(problem, changed);
  return panel;
}

function drawRows(rows, note, { images, fewest, classes }, context) {
  const held = new Map(classes.map((one) => [one.label, one]));
  const { set } = context.open;
  note.textContent = images ? `${counted(images, "image")}, at least ${fewest} in each class` : "No images yet";
  rows.replaceChildren(...set.classes.slice(0, ROWS).map((label) => classRow(label, held.get(label), context)));
  if (set.classes.length > ROWS) rows.append(h("li", null, `and ${set.classes.length - ROWS} more classes: drop folders to give them images`));
}

function classRow(label, held, { open, problem, changed }) {
  const input = h("input", { type: "file", multiple: true, accept: ACCEPT, class: "offscreen", tabIndex: -1, "aria-hidden": "true", onchange: () => guarded(problem, async () => {
    await api.putSupport(open.set.id, label, [...input.files]);
    await changed();
  }) });
  const remove = held && button("Delete", () => guarded(problem, () => whileBusy(remove, async () => {
    await api.removeSupport(open.set.id, label);
    await changed();
  })), { class: "quiet", "aria-label": `Delete the images of ${label}` });
  const size = held ? `${counted(held.count, "image")}, ${bytes(held.images.reduce((sum, one) => sum + one.bytes, 0))}` : "none";
  const [show, pictures] = held ? shownImages(open.set, label, held, problem) : [];
  return h("li", null, h("span", { class: "name" }, label), h("span", { class: "note" }, size), show, remove,
    button(held ? "Replace" : "Choose", () => input.click(), { class: "quiet", "aria-label": `${held ? "Replace" : "Choose"} the images of ${label}` }), input, pictures);
}

// ---- fits -----------------------------------------------------------------------------------------------------------

function fitCard(open) {
  const problem = h("div");
  const outcome = h("div", { class: "stack-s" });
  const deadline = h("input", { type: "number", min: 1, placeholder: "as long as the service allows" });
  const method = h("div");
  let choice = null;
  const start = button("Start the fit", () => guarded(problem, () => whileBusy(start, async () => {
    const limit = Number(deadline.value);
    if (deadline.value && !(limit > 0)) throw missing("No such time", "The deadline is a number of seconds above 0.");
    await api.startFit(open.set.id, { adapter: choice.select.value, options: choice.options(), ...(limit ? { deadline_seconds: limit } : {}) });
    await open.refresh();
    open.follow();
  })), { class: "primary" });
  const draw = (set) => outcome.replaceChildren(...shownFit(open, set, problem));
  open.listen(draw);
  draw(open.set);
  guarded(problem, async () => {
    const { methods, names } = await offered(fewShot);
    choice = methodSelect("Method", [[AUTO, "auto (tries those that suit, keeps the best)"], ...names.map((name) => [name, name])], methods, { value: names.includes(open.set.adapter) ? open.set.adapter : AUTO });
    method.replaceChildren(choice.element);
  });
  return h("section", { class: "card", "aria-labelledby": "fit-title" }, h("h2", { id: "fit-title" }, "Fit"),
    h("p", { class: "note" }, "A method learns from the support images. Until it is ready, what served before goes on serving."),
    method, field("Deadline in seconds", deadline), problem, h("div", { class: "row end" }, start), outcome);
}

function shownFit(open, set, problem) {
  const { fit, info } = set;
  if (!fit) return [];
  const done = set.status === "ready";
  const drop = button("Drop this fit", () => guarded(problem, () => whileBusy(drop, () => open.cancel(drop))), { class: "quiet" });
  return [
    h("h3", null, done ? "This fit serves" : set.status === "failed" ? "This fit failed" : "This fit is on its way"),
    facts([
      ["Method", fit.adapter + (done && info.chosen ? `, which chose ${info.chosen}` : "")],
      ["Asked for", moment(fit.created)],
      ["Options", optionText(fit.options)],
      ["Took", done && set.seconds !== null ? seconds(set.seconds) : null],
      ["Held-out accuracy", done && info.heldout_top1 !== undefined ? `${percent(info.heldout_top1)}, plain ${percent(info.heldout_top1_zero_shot)} (${points(info.heldout_top1 - info.heldout_top1_zero_shot)})` : null],
      ["Why", done ? info.auto_reason : null],
      ["Before it", fit.former ? fit.former.adapter : null],
    ]),
    done && h("div", { class: "row end" }, drop),
  ].filter(Boolean);
}
