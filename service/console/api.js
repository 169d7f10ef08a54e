// Speaks the HTTP contract. Knows the network, not the document.

export class Problem extends Error {
  constructor({ title, detail, fields = [], requestId = null }) {
    super(detail);
    Object.assign(this, { title, detail, fields, requestId });
  }
}

async function send(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (cause) {
    if (cause.name === "AbortError") throw cause;
    throw new Problem({ title: "No answer", detail: "The service cannot be reached. Is it still running?" });
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function problemOf(response) {
  const requestId = response.headers.get("X-Request-Id");
  const body = await response.json().catch(() => null);
  if (!body?.title) return new Problem({ title: `Error ${response.status}`, detail: response.statusText, requestId });
  return fromDocument(body, requestId);
}

export function fromDocument(body, requestId = null) {
  const errors = Array.isArray(body.errors) ? body.errors : [];
  const fields = errors.map((error) => [error.field ?? error.loc?.join("."), error.detail ?? error.message ?? error.msg].filter(Boolean).join(": "));
  return new Problem({ title: body.title, detail: body.detail, fields, requestId: body.request_id ?? requestId });
}

// Where the labels come from is either {labels: [...]} or {labelSet: "id"}.
export async function classify(image, source, { adapter, wait, topK = 8, signal } = {}) {
  const form = new FormData();
  form.append("images", image, image.name || "image");
  if (source.labelSet) form.append("label_set", source.labelSet);
  for (const label of source.labels ?? []) form.append("labels", label);
  form.append("top_k", String(topK));
  if (adapter) form.append("adapter", adapter);
  const headers = wait ? { Prefer: `wait=${wait}` } : {};
  const response = await send("/v1/classify", { method: "POST", body: form, headers, signal });
  const answer = await response.json();
  const [result] = answer.results;
  if (result.error) throw fromDocument(result.error, response.headers.get("X-Request-Id"));
  return answer;
}

export async function createLabelSet(classes, name) {
  const response = await send("/v1/label-sets", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(name ? { classes, name } : { classes }),
  });
  return response.json();
}

export async function labelSet(id) {
  return (await send(`/v1/label-sets/${encodeURIComponent(id)}`)).json();
}

export async function labelSets() {
  const all = [];
  for (let after = ""; after !== null;) {
    const page = await (await send(`/v1/label-sets?limit=100&after=${encodeURIComponent(after)}`)).json();
    all.push(...page.label_sets);
    after = page.next;
  }
  return all.sort((a, b) => b.created - a.created);
}

const FINAL = ["ready", "failed", "awaiting-support"];

// Calls `onProgress(status, fraction)` until the label set is ready, failed or in want of images; resolves with the last status.
export function watch(id, onProgress, signal) {
  return new Promise((resolve) => {
    const events = new EventSource(`/v1/label-sets/${encodeURIComponent(id)}/events`);
    const finish = (status) => { events.close(); resolve(status); };
    const handle = (event) => {
      const { status, progress } = JSON.parse(event.data);
      onProgress(status, progress);
      if (FINAL.includes(status)) finish(status);
    };
    for (const kind of ["progress", ...FINAL]) events.addEventListener(kind, handle);
    events.onerror = () => finish("unknown");
    signal?.addEventListener("abort", () => finish("aborted"));
  });
}

export async function readiness() {
  const response = await fetch("/readyz").catch(() => null);
  return response ? response.json().catch(() => ({ status: "unready", checks: [] })) : { status: "down", checks: [] };
}

export async function model() {
  return (await (await send("/v1/models")).json()).models[0];
}
