// Asks for the numbers every step and fills the page. Drawing is in charts.js.

import { Chart } from "/dashboard/charts.js";

const STORED_KEY = "selftpt-api-key";
const THEMES = ["auto", "light", "dark"];
const PATIENCE_MS = 10_000;
const STALE_STEPS = 5;
const MIB = 1024 * 1024;
const MINUTE = 60;

const find = (id) => document.getElementById(id);

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children.filter((child) => child !== null));
  return node;
}

const ms = (value) => {
  if (value >= 1000) return `${(value / 1000).toFixed(value < 10_000 ? 1 : 0)} s`;
  return `${value === 0 || value >= 10 ? Math.round(value) : value.toFixed(value < 1 ? 2 : 1)} ms`;
};
const count = (value) => (Number.isInteger(value) || value >= 100 ? Math.round(value).toLocaleString("en") : value.toFixed(value < 1 ? 2 : 1));
const percent = (value) => `${(100 * value).toFixed(value > 0 && value < 0.1 ? 1 : 0)} %`;
const bytes = (value) => (value >= 1024 * MIB ? `${(value / 1024 / MIB).toFixed(1)} GiB` : `${Math.round(value / MIB)} MiB`);
const or = (value, format) => (value === null || value === undefined ? "–" : format(value));
const seconds = (value) => (value < 120 ? `${value.toFixed(value < 10 ? 1 : 0)} s` : `${Math.round(value / 60)} min`);
const MEANINGS = {
  p50: "Half of the requests were faster",
  p95: "95 of 100 requests were faster",
  p99: "99 of 100 requests were faster",
  Refused: "Requests turned away because too much was waiting, or a quota was used up",
  "Memory hits": "How often the class weights of a label set were at hand, neither read from a store nor computed",
  "Device busy": "Part of the time that the device worked: near 100 % is the most this machine can do",
};
const OWN_PARTS = /^\/(console|dashboard)\/|\.(css|svg)$/; // of these pages: nobody watches them
const words = (name) => name.replaceAll("_", " ");

const CHARTS = {
  latency: [{ floor: 5, format: ms }, (points) => points.latency_ms],
  stages: [{ stacked: true, floor: 5, format: ms }, (points) => points.stages_ms],
  throughput: [{ floor: 4, format: count }, (points) => points.per_second],
  queue: [{ floor: 4, format: count }, (points) => ({ "images waiting": points.queue.images, "requests in flight": points.queue.in_flight })],
  age: [{ floor: 10, format: ms }, (points) => ({ "oldest image": points.queue.oldest_ms })],
  batches: [{ floor: 4, format: count }, (points) => ({ "images per batch": points.images_per_batch })],
  caches: [{ top: 1, format: percent }, (points) => points.cache_hit_ratio],
  busy: [{ stacked: true, top: 1, format: percent }, (points) => points.device_busy_ratio],
};

const charts = Object.fromEntries(Object.entries(CHARTS).map(([id, [options]]) => [id, new Chart(find(id), options)]));

function drawTiles({ latency_ms: latency, ...summary }, device) {
  const tiles = [
    ["p50", or(latency.p50, ms)],
    ["p95", or(latency.p95, ms)],
    ["p99", or(latency.p99, ms)],
    ["Requests", `${count(summary.requests_per_second)} /s`],
    ["Images", `${count(summary.images_per_second)} /s`],
    ["Errors", or(summary.error_ratio, percent), summary.error_ratio > 0.01 && "bad"],
    ["Refused", `${count(summary.refused_per_second)} /s`, summary.refused_per_second > 0 && "warm"],
    ["In the queue", count(device.queue_images), device.queue_oldest_seconds > 1 && "warm"],
    ["Memory hits", or(summary.cache_hit_ratio, percent)],
    ["Device busy", percent(summary.device_busy_ratio), summary.device_busy_ratio > 0.95 && "warm"],
  ];
  find("tiles").replaceChildren(...tiles.map(([name, value, tone]) => {
    const tile = element("div", "tile", element("dt", "", name), element("dd", "", value));
    if (tone) tile.dataset.tone = tone;
    if (MEANINGS[name]) tile.title = MEANINGS[name];
    return tile;
  }));
}

function drawJobs({ running, ready, failed, cancelled, coalesced }) {
  const jobs = running.map((job) => {
    const bar = element("progress");
    bar.max = 1;
    if (job.progress > 0) bar.value = job.progress;
    bar.setAttribute("aria-label", `${job.adapter}, ${job.classes} classes`);
    const note = job.status === "queued" ? "waiting" : percent(job.progress);
    return element("li", "", element("span", "", `${job.adapter}, ${job.classes} ${job.classes === 1 ? "class" : "classes"}`),
      element("span", "note", `${note} · ${seconds(job.seconds)}`), bar);
  });
  find("jobs").replaceChildren(...(jobs.length ? jobs : [element("li", "note", "None under way")]));
  facts("ended", [["ready since start", ready], ["failed", failed], ["cancelled", cancelled], ["requests that waited for one under way", coalesced]]);
}

function facts(id, pairs) {
  find(id).replaceChildren(...pairs.map(([name, value]) => element("div", "", element("dt", "", name), element("dd", "", String(value)))));
}

function drawDevice(device) {
  const { in_use: used, peak, total } = device.memory_bytes;
  facts("device", [
    ["device", `${device.name}, ${device.precision}`],
    ["backbone", device.backbone],
    ["device thread", !device.alive ? "ended" : device.heartbeat_age_seconds > 1 ? `busy for ${seconds(device.heartbeat_age_seconds)}` : "at work"],
    ...(used === undefined ? [] : [["memory in use", `${bytes(used)} of ${bytes(total)}`], ["memory at most", bytes(peak)]]),
  ]);
}

function drawRoutes(routes, window) {
  find("routes-window").textContent = `last ${Math.round(window / 60)} minutes`;
  find("routes").replaceChildren(...routes.filter((one) => !OWN_PARTS.test(one.route)).map((one) => {
    const cells = [one.route, count(one.requests), count(one.errors), ...["p50", "p95", "p99"].map((part) => or(one.latency_ms[part], ms))];
    const row = element("tr", "", ...cells.map((text, at) => element(at ? "td" : "th", "", text)));
    row.firstChild.scope = "row";
    if (one.errors) row.children[2].className = "bad";
    return row;
  }));
}

function draw(stats) {
  drawTiles(stats.summary, stats.device);
  drawJobs(stats.adaptations);
  drawDevice(stats.device);
  drawRoutes(stats.routes, stats.window_seconds);
  const { times } = stats.points;
  const span = Math.max(MINUTE, times.length ? times[times.length - 1] - times[0] : 0);
  for (const [id, [, columns]] of Object.entries(CHARTS)) {
    const shown = Object.entries(columns(stats.points)).map(([name, values]) => ({ name: words(name), values }));
    charts[id].draw(times, shown, span);
  }
  document.body.dataset.drawn = String(times.length);
}

function say(state, text) {
  const dot = find("dot");
  if (dot.dataset.state === state && find("state").textContent === text) return;
  dot.dataset.state = state;
  find("state").textContent = text;
}

async function ask() {
  const key = sessionStorage.getItem(STORED_KEY);
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const response = await fetch("/v1/stats", { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (response.ok) return response.json();
  const problem = await response.json().catch(() => ({}));
  throw Object.assign(new Error(problem.detail ?? response.statusText), { status: response.status });
}

function askForKey(failure) {
  const needed = failure.status === 401 || failure.status === 403;
  find("key-form").hidden = !needed;
  if (needed) find("key-note").textContent = failure.message;
}

let step = 2;
let timer = null;
let last = 0;

async function turn() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    const stats = await ask();
    step = stats.step_seconds;
    last = Date.now();
    find("key-form").hidden = true;
    document.body.classList.remove("stale");
    draw(stats);
    say(stats.device.alive ? "ready" : "down", stats.device.alive ? `live, ${stats.device.backbone}` : "the device thread has ended");
  } catch (failure) {
    askForKey(failure);
    document.body.classList.toggle("stale", Date.now() - last > 1000 * step * STALE_STEPS);
    say("down", failure.status ? failure.message : "no answer: is the service still running?");
  }
  timer = setTimeout(turn, 1000 * step);
}

function followTheme() {
  const button = find("theme");
  const stored = localStorage.getItem("theme");
  let theme = THEMES.includes(stored) ? stored : "auto";
  const apply = () => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
    button.setAttribute("aria-label", `Colour theme: ${theme === "auto" ? "follows the system" : theme}`);
  };
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem("theme", theme);
    apply();
  });
  apply();
}

find("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(STORED_KEY, find("key").value.trim());
  turn();
});
document.addEventListener("visibilitychange", turn);
followTheme();
turn();
