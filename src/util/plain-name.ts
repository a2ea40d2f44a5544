const PLAIN_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;

/** What {@link isPlainName} takes, for messages. */
export const PLAIN_NAME_RULE = '1 to 128 letters, digits, "_", "." or "-", a letter or digit first';

/** Whether `text` can name an RW layer or a layer's directory: Docker's pattern, which no path can be made of. */
export function isPlainName(text: unknown): text is string {
  return typeof text === 'string' && PLAIN_NAME.test(text);
}
