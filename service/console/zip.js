// Reads zip archives in the browser, so that what is in them can be listed and shown. The service reads them by itself.

const END = 0x06054b50;
const ENTRY = 0x02014b50;
const END_SIZE = 22;
const LONGEST_COMMENT = 65535;
const STORED = 0;
const DEFLATED = 8;

// Entries as {path, size, file()}; raises an Error for what is no plain zip archive.
export async function readZip(archive) {
  const start = Math.max(0, archive.size - END_SIZE - LONGEST_COMMENT);
  const tail = new DataView(await archive.slice(start).arrayBuffer());
  let at = tail.byteLength - END_SIZE;
  while (at >= 0 && tail.getUint32(at, true) !== END) at -= 1;
  if (at < 0) throw new Error("This is no zip archive, or it is damaged.");
  const count = tail.getUint16(at + 10, true);
  const from = tail.getUint32(at + 16, true);
  if (from === 0xffffffff) throw new Error("This archive is too large to be listed here.");
  const directory = new DataView(await archive.slice(from, from + tail.getUint32(at + 12, true)).arrayBuffer());
  return [...entries(archive, directory, count)].filter(({ path }) => isShown(path));
}

// What archivers add by themselves, and folders, are no files.
export function isShown(path) {
  return !path.endsWith("/") && !path.split("/").some((part) => part.startsWith(".") || part.startsWith("__MACOSX"));
}

function* entries(archive, view, count) {
  let at = 0;
  for (let index = 0; index < count && at + 46 <= view.byteLength && view.getUint32(at, true) === ENTRY; index += 1) {
    const nameLength = view.getUint16(at + 28, true);
    const path = new TextDecoder().decode(new Uint8Array(view.buffer, at + 46, nameLength));
    const packed = view.getUint32(at + 20, true);
    const place = { method: view.getUint16(at + 10, true), packed, offset: view.getUint32(at + 42, true) };
    yield { path, size: view.getUint32(at + 24, true), file: () => unpack(archive, path, place) };
    at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
}

async function unpack(archive, path, { method, packed, offset }) {
  const header = new DataView(await archive.slice(offset, offset + 30).arrayBuffer());
  const start = offset + 30 + header.getUint16(26, true) + header.getUint16(28, true);
  const data = archive.slice(start, start + packed);
  if (method !== STORED && method !== DEFLATED) throw new Error(`${path} is packed in a way that is not read here.`);
  const content = method === STORED ? data : await new Response(data.stream().pipeThrough(new DecompressionStream("deflate-raw"))).blob();
  return new File([content], path.split("/").pop(), { type: typeOf(path) });
}

function typeOf(path) {
  const ending = path.split(".").pop().toLowerCase();
  return { png: "image/png", webp: "image/webp", gif: "image/gif" }[ending] ?? "image/jpeg";
}
