/** Quotes a name that came from outside, for a message: as JSON, cut at 200 characters. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text);
}

/** A value that a caller passed, for a message: short, quoted where it is a string, and by its type where it is an object. */
export function formatValue(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 100 ? `${value.slice(0, 100)}…` : value);
  if (value === null || typeof value !== 'object') return String(value);
  return `a value of type ${Array.isArray(value) ? 'array' : (value.constructor?.name ?? 'object')}`;
}
