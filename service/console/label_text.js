// Class names out of what people type, paste or keep in tables. Each class is {name, aliases, descriptions}.

const tidy = (text) => text.trim().replace(/\s+/g, " ");

// Names by line or comma. A line in double quotes may have commas.
export function namesOf(text) {
  const parts = text.split("\n").flatMap((line) => (/^\s*".*"\s*$/.test(line) ? [line.trim().slice(1, -1)] : line.split(",")));
  return merged(parts.map((name) => ({ name })));
}

// `name: description` by line; a name that comes again has several.
export function describedOf(text) {
  return merged(text.split("\n").map((line) => {
    const [name, ...rest] = line.split(":");
    return { name, descriptions: [rest.join(":")] };
  }));
}

// A table with a header that names the columns `name`, `aliases` and `descriptions`, or without one: the first column
// is the name. Several aliases or descriptions are divided by | or ;.
export function tableOf(text) {
  const rows = cells(text);
  if (rows.length === 0) return merged([]);
  const head = rows[0].map((cell) => tidy(cell).toLowerCase());
  const column = (...names) => head.findIndex((cell) => names.includes(cell));
  const name = column("name", "class", "label", "class_name");
  const others = [column("aliases", "alias"), column("descriptions", "description")];
  const body = name >= 0 ? rows.slice(1) : rows;
  const several = (row, place) => (place < 0 ? [] : (row[place] ?? "").split(/[|;]/));
  return merged(body.map((row) => ({ name: row[Math.max(0, name)] ?? "", aliases: name < 0 ? [] : several(row, others[0]), descriptions: name < 0 ? [] : several(row, others[1]) })));
}

function cells(text) {
  const divider = /^[^\n]*\t/.test(text) ? "\t" : /^[^\n,]*;/.test(text) ? ";" : ",";
  const rows = [];
  let row = [];
  let cell = "";
  let quoted = false;
  const endRow = () => { row.push(cell); if (row.some((one) => one.trim())) rows.push(row); row = []; cell = ""; };
  for (let at = 0; at < text.length; at += 1) {
    const sign = text[at];
    if (quoted && sign === '"' && text[at + 1] === '"') { cell += '"'; at += 1; }
    else if (sign === '"' && (quoted || cell.trim() === "")) { quoted = !quoted; if (quoted) cell = ""; }
    else if (quoted) cell += sign;
    else if (sign === divider) { row.push(cell); cell = ""; }
    else if (sign === "\n") endRow();
    else if (sign !== "\r") cell += sign;
  }
  endRow();
  return rows;
}

// Classes in order, each name once; `repeated` are the names that came again.
function merged(given) {
  const classes = new Map();
  const repeated = [];
  for (const { name: raw, aliases = [], descriptions = [] } of given) {
    const name = tidy(raw);
    if (!name) continue;
    const key = name.toLowerCase();
    const one = classes.get(key) ?? { name, aliases: [], descriptions: [] };
    const before = one.descriptions.length;
    one.aliases.push(...aliases.map(tidy).filter(Boolean));
    one.descriptions.push(...descriptions.map(tidy).filter(Boolean));
    if (classes.has(key) && one.descriptions.length === before) repeated.push(name);
    classes.set(key, one);
  }
  return { classes: [...classes.values()], repeated };
}

// As the service takes them: a name alone where there is nothing else to say.
export function asEntries(classes) {
  return classes.map((one) => (one.aliases.length || one.descriptions.length ? one : one.name));
}
