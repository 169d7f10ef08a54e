// Every kind of call that a TypeScript client makes, so that the types made from openapi.yaml are held against use.
import createClient from "openapi-fetch";

import type { components, paths } from "./schema";

type Prediction = components["schemas"]["Prediction"];

const client = createClient<paths>({ baseUrl: "http://127.0.0.1:8000" });

export async function classify(image: Blob, labels: string[]): Promise<Prediction[]> {
  const form = new FormData();
  form.append("images", image, "photo.jpg");
  labels.forEach((label) => form.append("labels", label));
  const { data, error, response } = await client.POST("/v1/classify", {
    params: { header: { prefer: "wait=30" } },
    body: { images: [] },
    bodySerializer: () => form,
  });
  if (error) throw new Error(`${error.title} (${response.status}): ${error.detail}`);
  const first = data.results[0];
  if (first === undefined || first.error) throw new Error(first?.error?.detail ?? "no result");
  return first.predictions ?? [];
}

export async function upload(name: string, classes: string[]): Promise<string> {
  const { data, error } = await client.POST("/v1/label-sets", { body: { name, classes } });
  if (error) throw new Error(error.detail);
  return data.id;
}

export async function allLabelSets(): Promise<string[]> {
  const found: string[] = [];
  let after: string | null = "";
  while (after !== null) {
    const page: { data?: components["schemas"]["LabelSetPage"] } = await client.GET("/v1/label-sets", {
      params: { query: { after } },
    });
    if (!page.data) throw new Error("no page");
    found.push(...page.data.label_sets.map((one) => one.id));
    after = page.data.next;
  }
  return found;
}

export async function huggingFace(image: string, labels: string[]): Promise<components["schemas"]["HuggingFaceScore"][]> {
  const { data, error } = await client.POST("/models/{model}", {
    params: { path: { model: "bundled" } },
    body: { inputs: image, parameters: { candidate_labels: labels } },
  });
  if (error) throw new Error(error.detail);
  return data;
}

// @ts-expect-error a score is a number: types that allow everything would hold nothing
export const wrong: Prediction = { label: "cat", score: "high", cosine: 0 };
