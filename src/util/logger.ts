/** The shape of a logger: pino's, which `console` has too. */
export interface LoggerLike {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

const nothing = (): void => undefined;

/** Drops every line. */
export const silentLogger: LoggerLike = { debug: nothing, info: nothing, warn: nothing, error: nothing };

/** The fields that a log line about a failure carries. */
export function errorFields(error: unknown): { code?: string; error: string } {
  if (!(error instanceof Error)) return { error: String(error) };
  const { code } = error as { code?: unknown };
  return { ...(typeof code === 'string' ? { code } : {}), error: error.message };
}
