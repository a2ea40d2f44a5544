/** A text from outside, short enough for a message: of more than 200 characters the first 110 and the last 40. */
export function shorten(text: string): string {
  return text.length <= 200 ? text : `${text.slice(0, 110)}…${text.slice(-40)}`;
}

/** A text from outside, for a message: in quotes, control characters escaped, {@link shorten}ed. */
export function quote(text: string): string {
  return shorten(JSON.stringify(text));
}

/** A value that a caller passed, for a message: a string {@link quote}d, an object by its type. */
export function formatValue(value: unknown): string {
  if (typeof value === 'string') return quote(value);
  if (value === null || typeof value !== 'object') return String(value);
  return `a value of type ${Array.isArray(value) ? 'array' : (value.constructor?.name ?? 'object')}`;
}
