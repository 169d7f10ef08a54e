// Line and stacked charts in SVG, drawn from columns. Knows nothing of the service.

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 190;
const EDGE = { top: 10, right: 12, bottom: 24, left: 52 };
const MINUTE = 60;

function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function html(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// A round number at or above `value`, and the step between the lines below it.
export function scaleOf(value, floor) {
  const wanted = Math.max(value, floor);
  const power = 10 ** Math.floor(Math.log10(wanted / 3));
  const step = [1, 2, 2.5, 5, 10].map((mark) => mark * power).find((one) => one * 3 >= wanted * 0.999);
  return { step, top: step * Math.ceil(wanted / step - 1e-9) };
}

// `options`: `stacked`, `floor` (the least top of the scale), `top` (a fixed one), `format` (value to text).
export class Chart {
  constructor(figure, options) {
    this.options = { stacked: false, floor: 1, format: String, ...options };
    this.name = figure.querySelector("h2").textContent;
    this.box = html("div", "plot");
    this.legend = html("ul", "legend");
    this.tip = html("div", "tip");
    this.tip.hidden = true;
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "img");
    figure.append(this.box, this.legend);
    this.data = { times: [], columns: [] };
    this.hidden = new Set();
    this.cursor = null;
    new ResizeObserver(() => this.paint()).observe(this.box);
    this.listen();
  }

  listen() {
    this.box.addEventListener("pointermove", (event) => this.point(this.indexAt(event.clientX)));
    this.box.addEventListener("pointerleave", () => this.point(null));
    this.box.addEventListener("blur", () => this.point(null));
    this.box.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const last = this.data.times.length - 1;
      if (!move || last < 0) return;
      event.preventDefault();
      this.point(Math.max(0, Math.min(last, (this.cursor ?? last) + move)));
    });
  }

  // `columns`: [{ name, values }], in the order in which they are stacked and coloured.
  draw(times, columns, span) {
    this.data = { times, columns, span };
    this.drawLegend();
    this.paint();
  }

  drawLegend() {
    const { columns } = this.data;
    const names = columns.map((one) => one.name).join();
    if (this.drawn === names) return;
    this.drawn = names;
    this.legend.replaceChildren(...columns.map((column, index) => {
      const button = html("button", `key series-${index}`, column.name);
      button.type = "button";
      button.setAttribute("aria-pressed", String(!this.hidden.has(column.name)));
      button.addEventListener("click", () => {
        if (!this.hidden.delete(column.name)) this.hidden.add(column.name);
        button.setAttribute("aria-pressed", String(!this.hidden.has(column.name)));
        this.paint();
      });
      const item = html("li");
      item.append(button);
      return item;
    }));
  }

  // The columns that are shown, each with the values below and at its line.
  layers() {
    const { times, columns } = this.data;
    const base = times.map(() => 0);
    return columns.map((column, index) => ({ ...column, index })).filter((one) => !this.hidden.has(one.name)).map((one) => {
      if (!this.options.stacked) return { ...one, low: null, high: one.values };
      const low = [...base];
      one.values.forEach((value, at) => { base[at] += value ?? 0; });
      return { ...one, low, high: one.values.map((value, at) => (value === null ? null : base[at])) };
    });
  }

  paint() {
    const width = this.box.clientWidth;
    if (!width) return;
    const layers = this.layers();
    const highest = Math.max(0, ...layers.flatMap((one) => one.high.filter((value) => value !== null)));
    const scale = this.options.top ? { top: this.options.top, step: this.options.top / 4 } : scaleOf(highest, this.options.floor);
    this.place = this.placing(width, scale.top);
    const picture = svg("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" });
    picture.append(...this.lines(scale, width), ...this.clock(width));
    picture.append(...layers.flatMap((one) => this.shape(one)));
    this.marks = svg("g", { class: "marks" });
    picture.append(this.marks);
    this.box.replaceChildren(picture, this.tip);
    if (!layers.some((one) => one.high.some((value) => value !== null))) this.box.append(html("p", "empty", "Nothing in this window yet"));
    this.box.setAttribute("aria-label", `${this.name}. ${this.latest()}`);
    this.point(this.cursor);
  }

  placing(width, top) {
    const { times, span } = this.data;
    const inner = width - EDGE.left - EDGE.right;
    const end = times.length ? times[times.length - 1] : 0;
    return {
      end,
      x: (moment) => EDGE.left + inner * (1 - (end - moment) / span),
      y: (value) => EDGE.top + (HEIGHT - EDGE.top - EDGE.bottom) * (1 - Math.min(value / top, 1)),
    };
  }

  lines({ top, step }, width) {
    const parts = [];
    for (let value = 0; value <= top * 1.0001; value += step) {
      const y = this.place.y(value);
      parts.push(svg("line", { class: "rule", x1: EDGE.left, x2: width - EDGE.right, y1: y, y2: y }));
      const text = svg("text", { class: "tick", x: EDGE.left - 6, y: y + 4, "text-anchor": "end" });
      text.textContent = this.options.format(value);
      parts.push(text);
    }
    return parts;
  }

  clock(width) {
    const parts = [];
    const every = width < 420 ? 2 : 1;
    for (let back = 0; back * MINUTE <= (this.data.span ?? 0); back += every) {
      const x = this.place.x(this.place.end - back * MINUTE);
      const text = svg("text", { class: "tick", x, y: HEIGHT - 6, "text-anchor": back ? "middle" : "end" });
      text.textContent = back ? `−${back} min` : "now";
      if (x > EDGE.left - 1) parts.push(text);
    }
    return parts;
  }

  shape({ index, low, high }) {
    return runs(high).map(([from, to]) => {
      const points = [];
      for (let at = from; at <= to; at += 1) points.push(this.spot(at, high[at]));
      if (!low) {
        if (from === to) return svg("circle", { class: `line dot series-${index}`, cx: points[0][0], cy: points[0][1], r: 2 });
        return svg("path", { class: `line series-${index}`, d: `M${points.join("L")}` });
      }
      if (from === to) points.push([points[0][0] + 2, points[0][1]]);
      for (let at = to; at >= from; at -= 1) points.push(this.spot(at, low[at]));
      return svg("path", { class: `area series-${index}`, d: `M${points.join("L")}Z` });
    });
  }

  spot(at, value) {
    return [this.place.x(this.data.times[at]), this.place.y(value)].map((number) => Number(number.toFixed(1)));
  }

  indexAt(clientX) {
    const { times } = this.data;
    if (!times.length || !this.place) return null;
    const x = clientX - this.box.getBoundingClientRect().left;
    let best = 0;
    times.forEach((moment, at) => { if (Math.abs(this.place.x(moment) - x) < Math.abs(this.place.x(times[best]) - x)) best = at; });
    return best;
  }

  point(at) {
    const { times } = this.data;
    this.cursor = at !== null && at < times.length ? at : null;
    this.tip.hidden = this.cursor === null;
    this.marks?.replaceChildren();
    if (this.cursor === null || !this.place) return;
    const x = this.place.x(times[at]);
    this.marks.append(svg("line", { class: "cursor", x1: x, x2: x, y1: EDGE.top, y2: HEIGHT - EDGE.bottom }));
    const time = html("strong", "", new Date(times[at] * 1000).toLocaleTimeString());
    this.tip.replaceChildren(time, ...this.readings(at).map(({ name, text, index }) => {
      const line = html("span", `key series-${index}`, `${name} `);
      line.append(html("b", "", text));
      return line;
    }));
    this.tip.classList.toggle("left", x > this.box.clientWidth / 2);
    this.tip.style.left = `${x}px`;
  }

  readings(at) {
    const shown = this.layers().filter((one) => one.values[at] !== null && one.values[at] !== undefined);
    const found = shown.map((one) => ({ name: one.name, index: one.index, text: this.options.format(one.values[at]) }));
    if (!this.options.stacked || !shown.length) return found;
    return [...found.reverse(), { name: "together", index: "none", text: this.options.format(shown.reduce((sum, one) => sum + one.values[at], 0)) }];
  }

  // In words, for those who do not see the picture: the last step in which anything fell.
  latest() {
    const { times } = this.data;
    for (let at = times.length - 1; at >= 0; at -= 1) {
      const found = this.readings(at);
      if (found.length) return found.map(({ name, text }) => `${name} ${text}`).join(", ");
    }
    return "Nothing in this window yet";
  }
}

// From and to of each stretch without null.
function runs(values) {
  const found = [];
  values.forEach((value, at) => {
    if (value === null || value === undefined) return;
    const last = found[found.length - 1];
    if (last && last[1] === at - 1) last[1] = at;
    else found.push([at, at]);
  });
  return found;
}
