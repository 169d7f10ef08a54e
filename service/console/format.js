// Numbers, times and sizes as people read them.

const MINUTE = 60;
const UNITS = ["B", "KB", "MB", "GB"];

export function percent(share, digits = 1) {
  if (share === null || share === undefined) return "none";
  const value = share * 100;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  return `${value.toFixed(digits)} %`;
}

export function points(difference) {
  const value = (difference * 100).toFixed(1);
  if (value === "0.0" || value === "-0.0") return "no difference";
  return `${difference > 0 ? "+" : "−"}${value.replace("-", "")} points`;
}

export function bytes(count) {
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) { value /= 1024; unit += 1; }
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

export function seconds(value) {
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 2 * MINUTE) return `${Math.round(value)} s`;
  return value < 90 * MINUTE ? `${Math.round(value / MINUTE)} min` : `${(value / 3600).toFixed(1)} h`;
}

export function milliseconds(value) {
  return value >= 1000 ? seconds(value / 1000) : `${value.toFixed(value < 10 ? 1 : 0)} ms`;
}

export function moment(stamp) {
  return new Date(stamp * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

export function ago(stamp) {
  const passed = Date.now() / 1000 - stamp;
  if (passed < 45) return "just now";
  if (passed < 90 * MINUTE) return `${Math.round(passed / MINUTE)} min ago`;
  if (passed < 36 * 3600) return `${Math.round(passed / 3600)} h ago`;
  return new Date(stamp * 1000).toLocaleDateString(undefined, { dateStyle: "medium" });
}

export function counted(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

export const shortId = (id) => id.slice(0, 12);

// What to call a label set.
export const titleOf = (set) => set.name ?? (set.former_name ? `${set.former_name} (earlier)` : shortId(set.id));

// 95 % interval of a share of `count` trials (Wilson), so that small test sets do not look precise.
export function interval(share, count) {
  const z = 1.96;
  const spread = 1 + (z * z) / count;
  const centre = (share + (z * z) / (2 * count)) / spread;
  const half = (z / spread) * Math.sqrt((share * (1 - share)) / count + (z * z) / (4 * count * count));
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}
