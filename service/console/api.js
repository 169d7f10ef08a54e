// The calls of the HTTP contract that the console makes, one function each.

import { events, fromDocument, getJson, postJson, send } from "./http.js";

const PAUSE = 1500;
export const FINAL = ["ready", "failed", "awaiting-support"];
export const inMotion = (status) => status === "queued" || status === "adapting";

const path = (id, ...rest) => ["/v1/label-sets", ...[id, ...rest].map(encodeURIComponent)].join("/");
const sleep = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });
const waiting = (wait) => (wait ? { Prefer: `wait=${wait}` } : {});

// Where the labels come from is either {labels: [...]} or {labelSet: "id"}. One result per image, each with
// `predictions` or with `problem`.
export async function classify(images, source, { adapter, wait, topK, scores, signal } = {}) {
  const form = new FormData();
  for (const image of images) form.append("images", image, image.name || "image");
  if (source.labelSet) form.append("label_set", source.labelSet);
  for (const label of source.labels ?? []) form.append("labels", label);
  if (topK) form.append("top_k", String(topK));
  if (scores) form.append("scores", scores);
  if (adapter) form.append("adapter", adapter);
  const answer = await getJson("/v1/classify", { method: "POST", body: form, headers: waiting(wait), signal });
  for (const result of answer.results) if (result.error) result.problem = fromDocument(result.error);
  return answer;
}

export const createLabelSet = (body) => postJson("/v1/label-sets", body);
export const labelSet = (id, options) => getJson(path(id), options);
export const removeLabelSet = (id) => send(path(id), { method: "DELETE" });
export const addClasses = (id, classes) => postJson(path(id, "classes"), { classes });

const MOST = 1000;

// Newest first; at most 1000, `more` tells whether there are others.
export async function labelSets(options) {
  const all = [];
  let after = "";
  while (after !== null && all.length < MOST) {
    const page = await getJson(`/v1/label-sets?limit=100&after=${encodeURIComponent(after)}`, options);
    all.push(...page.label_sets);
    after = page.next;
  }
  return { sets: all.sort((a, b) => b.created - a.created), more: after !== null };
}

export const support = (id) => getJson(path(id, "support"));
export const supportImage = async (id, digest) => (await send(path(id, "support-images", digest))).blob();
export const removeSupport = (id, label) => send(path(id, "support", label), { method: "DELETE" });

export function putSupport(id, label, files) {
  const form = new FormData();
  for (const file of files) form.append("images", file, file.name);
  return getJson(path(id, "support", label), { method: "PUT", body: form });
}

export const startFit = (id, body) => postJson(path(id, "fit"), body);
export const cancelFit = (id) => send(path(id, "fit"), { method: "DELETE" });

// `material` is {archive: File} or {images: [{path, file}]}, or null for the stored support images.
export function evaluate(id, material, { adapter, wait, signal } = {}) {
  const query = new URLSearchParams({ ...(adapter ? { adapter } : {}), ...(material ? {} : { source: "support" }) });
  const options = { method: "POST", headers: waiting(wait), signal };
  if (material?.archive) {
    options.body = material.archive;
    options.headers["Content-Type"] = "application/zip";
  } else if (material) {
    options.body = new FormData();
    for (const { path: name, file } of material.images) options.body.append("images", file, name);
  }
  return getJson(`${path(id, "evaluate")}?${query}`, options);
}

// Calls `onChange({status, progress, error})` until the label set is ready, failed or in want of images; resolves with
// the last one. A connection that breaks is made up for by asking.
export async function watch(id, onChange, signal) {
  for (;;) {
    try {
      for await (const one of events(path(id, "events"), signal)) {
        onChange(one);
        if (FINAL.includes(one.status)) return one;
      }
    } catch (failure) {
      if (failure.name === "AbortError" || failure.status === 404) throw failure;
    }
    await sleep(PAUSE);
    const now = await labelSet(id, { signal, background: true });
    onChange(now);
    if (FINAL.includes(now.status)) return now;
  }
}

export async function readiness() {
  const response = await fetch("/readyz").catch(() => null);
  return response ? response.json().catch(() => ({ status: "unready", checks: [] })) : { status: "down", checks: [] };
}

export const model = async (options) => (await getJson("/v1/models", options)).models[0];

// Facts that do not change while the service runs are asked for once.
const known = new Map();
function once(address) {
  if (!known.has(address)) known.set(address, getJson(address).catch((failure) => { known.delete(address); throw failure; }));
  return known.get(address);
}
export const methods = () => once("/v1/adapters");
export const limits = async () => (await once("/v1/limits")).limits;
