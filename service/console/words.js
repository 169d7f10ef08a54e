// Problem documents in plain words, with the limit named.

import { h } from "./dom.js";
import { Problem } from "./http.js";
import { bytes, counted, seconds } from "./format.js";

const many = (value) => Number(value).toLocaleString("en");
const LIMITS = {
  max_image_bytes: ["An image", bytes],
  max_body_bytes: ["One request", bytes],
  max_held_bytes: ["All requests together", bytes],
  max_pixels: ["An image", (value) => `${many(value)} pixels`],
  max_side_ratio: ["The longer side of an image", (value) => `${many(value)} times the shorter one`],
  max_images: ["One request", (value) => counted(value, "image")],
  max_top_k: ["A list of predictions", (value) => counted(value, "entry", "entries")],
  max_classes: ["A label set", (value) => counted(value, "class", "classes")],
  max_name_characters: ["A class name", (value) => counted(value, "character")],
  max_templates: ["A label set", (value) => counted(value, "template")],
  max_descriptions: ["A class", (value) => counted(value, "description")],
  max_support_images: ["A class", (value) => counted(value, "support image")],
  max_support_total: ["A label set", (value) => counted(value, "support image")],
  max_support_bytes: ["The support images of a label set", bytes],
  max_caption_characters: ["A caption", (value) => counted(value, "character")],
  max_fit_seconds: ["A fit", seconds],
  max_evaluation_images: ["An evaluation", (value) => counted(value, "image")],
  max_archive_bytes: ["What an archive unpacks to", bytes],
  max_archive_ratio: ["A file in an archive", (value) => `${many(value)} times its packed size`],
};

const KINDS = {
  "undecodable-image": "This file cannot be read as an image",
  "unsupported-type": "This kind of file is not served",
  overloaded: "The service has more to do than it can take",
  "shutting-down": "The service is being stopped",
  "not-ready": "The service is still loading",
  "store-unavailable": "The store of the service cannot be reached",
  "deadline-exceeded": "This took longer than the service allows",
  "closed-set-adapter": "This method cannot take classes that it was not fitted to",
};

export function limitSentence(name, allowed, actual) {
  const [what, unit] = LIMITS[name] ?? ["This", many];
  const given = actual === undefined || actual === null ? "" : `; here it is ${unit(actual)}`;
  return `${what} may have at most ${unit(allowed)}${given}.`.replace("What an archive unpacks to may have", "An archive may unpack to");
}

export function explain(failure) {
  if (!(failure instanceof Problem)) return { title: "The page failed", text: String(failure), small: "" };
  const small = [failure.limit && `limit ${failure.limit}`, failure.requestId && `request ${failure.requestId}`].filter(Boolean);
  const said = { small: small.join(", "), fields: failure.fields };
  if (failure.limit) return { ...said, title: "Too large for this service", text: limitSentence(failure.limit, failure.allowed, failure.actual) };
  const again = failure.retry_after ? ` Try again in ${seconds(failure.retry_after)}.` : "";
  const detail = failure.fields.length > 1 ? "" : failure.detail;
  if (failure.status === 401) return { ...said, title: "An API key is needed", text: detail };
  if (failure.status === 403) return { ...said, title: "This API key may not do that", text: detail };
  return { ...said, title: KINDS[failure.kind] ?? failure.title, text: `${detail}${again}`, unknown: failure.unknown };
}

// An alert with everything a caller can act on.
export function problemBox(failure) {
  const { title, text, fields, unknown, small } = explain(failure);
  const list = unknown?.length > 1 ? unknown : fields?.length > 1 ? fields : [];
  return h("div", { class: "error", role: "alert" },
    h("strong", null, title), text && h("p", null, text),
    list.length > 0 && h("ul", null, list.slice(0, 12).map((line) => h("li", null, line))),
    small && h("small", null, small));
}

// Raised before anything is sent, in the same form as the service's own refusals.
export function overLimit(limit, allowed, actual) {
  return new Problem({ title: "Limit exceeded", detail: "", limit, allowed, actual });
}

export function missing(title, detail) {
  return new Problem({ title, detail });
}

// Runs `work`; what fails is shown in `place`, which is emptied first. Superseded work ends quietly.
export async function guarded(place, work) {
  place.replaceChildren();
  try {
    return await work();
  } catch (failure) {
    if (failure.name === "AbortError") return undefined;
    place.replaceChildren(problemBox(failure));
    return undefined;
  }
}
