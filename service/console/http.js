// Requests, the API key, problem documents and event streams. Knows the network, not the document.

const STORED_KEY = "selftpt-api-key";

export class Problem extends Error {
  constructor(members) {
    super(members.detail);
    Object.assign(this, { title: "Error", status: 0, kind: "", fields: [], requestId: null }, members);
  }
}

let askForKey = null;
let asking = null;

// `ask(problem, refused)` resolves with a key, or null when there is none; `refused`: one was given and is not valid.
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export const apiKey = () => sessionStorage.getItem(STORED_KEY);
export const forgetKey = () => sessionStorage.removeItem(STORED_KEY);

// A key is sent only once the service has asked for one. `background` calls never ask.
export async function send(path, { background = false, ...options } = {}) {
  for (;;) {
    const key = apiKey();
    const response = await attempt(path, options, key);
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (response.status !== 401 || background || !(await renewed(problem, key))) throw problem;
  }
}

async function attempt(path, options, key) {
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  try {
    return await fetch(path, { ...options, headers });
  } catch (cause) {
    if (cause.name === "AbortError") throw cause;
    throw new Problem({ title: "No answer", detail: "The service cannot be reached. Is it still running?", kind: "unreachable" });
  }
}

// Whether there is another key than `tried` to go on with. Many calls that are refused at once ask once.
async function renewed(problem, tried) {
  if (apiKey() !== tried) return true;
  asking ??= askForKey(problem, tried !== null).finally(() => { asking = null; });
  const key = await asking;
  if (key) sessionStorage.setItem(STORED_KEY, key);
  return Boolean(key);
}

async function problemOf(response) {
  const requestId = response.headers.get("X-Request-Id");
  const body = await response.json().catch(() => null);
  const plain = { title: `Error ${response.status}`, detail: response.statusText, status: response.status };
  return fromDocument(body?.title ? body : plain, requestId);
}

export function fromDocument(body, requestId = null) {
  const errors = Array.isArray(body.errors) ? body.errors : [];
  const { type = "", request_id: given, ...members } = body;
  return new Problem({ ...members, kind: type.split("/").pop(), fields: errors.map((one) => `${one.field}: ${one.message}`), requestId: given ?? requestId });
}

export async function getJson(path, options) {
  return (await send(path, options)).json();
}

export function postJson(path, body, options = {}) {
  return getJson(path, { ...options, method: "POST", headers: { "Content-Type": "application/json", ...options.headers }, body: JSON.stringify(body) });
}

// Server-sent events over fetch, because EventSource cannot carry a key. Yields the data of each event.
export async function* events(path, signal) {
  const response = await send(path, { signal, background: true });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (text + value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").find((line) => line.startsWith("data: "));
      if (data) yield JSON.parse(data.slice(6));
    }
  }
}
