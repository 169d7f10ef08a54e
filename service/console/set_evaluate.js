// Measures a label set on labelled images, adapted beside plain.

import { button, h, announce, whileBusy } from "./dom.js";
import { counted, percent } from "./format.js";
import { LabelledImages, measured } from "./labelled_images.js";
import { reportView } from "./report_view.js";
import { guarded, missing, problemBox } from "./words.js";

export function evaluatePanel(open) {
  open.labelled ??= new LabelledImages();
  const problem = h("div");
  const state = h("p", { class: "state", role: "status" });
  const results = h("div", { class: "stack", tabIndex: -1 });
  const start = button("Evaluate", () => guarded(problem, () => whileBusy(start, async () => {
    if (!open.labelled.material) throw missing("No images", "Choose a zip of class folders, or folders, first.");
    state.textContent = "Measuring …";
    results.setAttribute("aria-busy", "true");
    try {
      const answer = await measured(open.set.id, open.labelled.material, { signal: open.left.signal, told: (status) => { state.textContent = `Measuring; the label set is ${status} …`; } });
      results.replaceChildren(reportView(answer, open.set.classes, (name) => open.labelled.imageOf(name)));
      announce(`${percent(answer.served.top1)} of ${counted(answer.images, "image")} right, plain ${percent(answer.zero_shot.top1)}`);
    } finally {
      state.textContent = "";
      results.removeAttribute("aria-busy");
    }
  })), { class: "primary" });
  const zone = open.labelled.zone(open, (failure) => problem.replaceChildren(...(failure ? [problemBox(failure)] : [])));
  return h("div", { class: "stack" },
    h("section", { class: "card", "aria-labelledby": "evaluate-title" }, h("h2", { id: "evaluate-title" }, "Evaluate on labelled images"),
      h("p", { class: "note" }, "Use images that nothing was learnt from. Every folder is named after a class. None of them is kept."),
      zone, problem, h("div", { class: "row end" }, state, start)),
    results);
}
