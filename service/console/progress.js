// Progress of an adaptation: a bar, how long it has taken, and about how long it still takes.

import { announce, h } from "./dom.js";
import { seconds } from "./format.js";

const ENOUGH = 0.03;
const WORDS = { queued: "Waiting for its turn", adapting: "Adapting", ready: "Ready", failed: "Failed", "awaiting-support": "Waiting for support images" };

export const statusWord = (status) => WORDS[status] ?? status;

export function statusChip(status) {
  return h("span", { class: "chip", data: { state: status } }, statusWord(status));
}

export class ProgressLine {
  constructor(label = "Adaptation") {
    this.bar = h("progress", { max: 1, "aria-label": label });
    this.text = h("p", { class: "note" });
    this.element = h("div", { class: "adapting", hidden: true }, this.bar, this.text);
    this.reset();
  }

  reset() {
    this.began = performance.now();
    this.first = null;
    this.status = null;
  }

  show({ status, progress = 0 }) {
    if (status !== this.status) announce(statusWord(status));
    this.status = status;
    const active = status === "queued" || status === "adapting";
    this.element.hidden = !active;
    if (!active) return;
    if (progress > 0) this.bar.value = progress;
    else this.bar.removeAttribute("value");
    const passed = (performance.now() - this.began) / 1000;
    this.text.textContent = [statusWord(status), progress > 0 && `${Math.round(progress * 100)} %`, passed >= 1 && `${seconds(passed)} so far`, this.left(progress)].filter(Boolean).join(", ");
  }

  // Judged by the pace since the first report, so that waiting in line does not count.
  left(progress) {
    const now = performance.now() / 1000;
    this.first ??= progress > 0 ? { progress, at: now } : null;
    const done = this.first ? progress - this.first.progress : 0;
    return done > ENOUGH && `about ${seconds(((1 - progress) * (now - this.first.at)) / done)} left`;
  }

  hide() {
    this.element.hidden = true;
    this.reset();
  }
}
