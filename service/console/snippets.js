// What the page asked, as a curl command and as Python, ready to be copied.

import { announce, button, h } from "./dom.js";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const python = (text) => JSON.stringify(text);

// `asked` is {image, source: {labels} or {labelSet}, adapter, topK, scores, rejectBelow, needsKey}.
export function curl(asked, origin) {
  const lines = [`curl ${quoted(`${origin}/v1/classify`)}`];
  if (asked.needsKey) lines.push('-H "Authorization: Bearer $SELFTPT_API_KEY"');
  lines.push(`-F ${quoted(`images=@"${asked.image}"`)}`);
  const fields = [["label_set", asked.source.labelSet], ...(asked.source.labels ?? []).map((label) => ["labels", label]), ...options(asked)];
  for (const [name, value] of fields) if (value !== undefined) lines.push(`--form-string ${quoted(`${name}=${value}`)}`);
  return lines.join(" \\\n  ");
}

function options({ adapter, topK, scores, rejectBelow }) {
  return [["adapter", adapter || undefined], ["top_k", topK === 5 ? undefined : topK], ["scores", scores === "softmax" ? undefined : scores], ["reject_below", rejectBelow || undefined]];
}

export function pythonCode(asked, origin) {
  const { labels, labelSet } = asked.source;
  const given = [python(asked.image), labelSet ? `label_set=${python(labelSet)}` : `labels=[${labels.map(python).join(", ")}]`];
  for (const [name, value] of options(asked)) if (value !== undefined) given.push(`${name}=${typeof value === "string" ? python(value) : value}`);
  const key = asked.needsKey ? ', api_key=os.environ["SELFTPT_API_KEY"]' : "";
  return `${asked.needsKey ? "import os\n\n" : ""}from service.client import Client

with Client(${python(origin)}${key}) as client:
    answer = client.classify(
        ${given.join(",\n        ")},
    )

for prediction in answer.results[0].predictions:
    print(f"{prediction.score:6.1%}  {prediction.label}")`;
}

export function drawSnippets(box, asked, origin = location.origin) {
  box.replaceChildren(snippet("curl", curl(asked, origin)), snippet("Python", pythonCode(asked, origin)));
}

function snippet(name, text) {
  const copy = button("Copy", async () => {
    await toClipboard(text);
    copy.textContent = "Copied";
    announce(`Copied as ${name}`);
    setTimeout(() => { copy.textContent = "Copy"; }, 2000);
  }, { class: "quiet", "aria-label": `Copy as ${name}` });
  return h("figure", { class: "snippet" }, h("figcaption", null, name, copy), h("pre", { tabIndex: 0, "aria-label": `${name} code`, role: "region" }, h("code", null, text)));
}

// The clipboard is closed to pages that do not come over https or from this machine; there a selection is copied.
async function toClipboard(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = h("textarea", { class: "offscreen", value: text });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  return area.remove();
}
