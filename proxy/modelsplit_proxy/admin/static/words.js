// Figures as people read them.

export const NONE = "–";

export function ms(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 1) return `${value.toFixed(1)} ms`;
  if (value < 1000) return `${Math.round(value)} ms`;
  return seconds(value / 1000);
}

export function seconds(value, digits = 2) {
  if (value === null || value === undefined) return NONE;
  if (value < 10) return `${value.toFixed(digits)} s`;
  if (value < 120) return `${value.toFixed(Math.min(1, digits))} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  if (value < 172800) return `${(value / 3600).toFixed(1)} h`;
  return `${(value / 86400).toFixed(1)} d`;
}

export function count(value) {
  return value === null || value === undefined ? NONE : value.toLocaleString("en");
}

// A count where none is the usual: quiet at zero, marked above.
export const rare = (value, kind = "bad") =>
  ({ text: count(value), kind: value ? kind : "zero" });

export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  return value < 1e9 ? `${Math.round(value / 1e6)} MB` : `${(value / 1e9).toFixed(1)} GB`;
}

// As the policy writes the memory of a host.
export const gb = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} GiB`;

export function usd(value) {
  if (value === null || value === undefined) return NONE;
  if (value === 0) return "0 USD";
  return `${value < 0.01 ? value.toPrecision(2) : value.toFixed(2)} USD`;
}

const two = (value) => String(value).padStart(2, "0");

export function clock(moment) {
  const at = new Date(moment);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

// A moment as this place has it; the title says it in UTC.
export function time(moment) {
  const at = new Date(moment);
  const today = new Date().toDateString() === at.toDateString();
  const day = today ? "" : `${two(at.getMonth() + 1)}-${two(at.getDate())} `;
  return { text: day + clock(at), title: at.toISOString() };
}

export const short = (id) => (id.length > 16 ? `${id.slice(0, 15)}…` : id);
export const SPAN = { "15m": "last 15 min", "5h": "last 5 h", "24h": "last 24 h", "7d": "last 7 d" };
