/** The sentences of registry/: how an answer that is no success, or none at all, becomes a LayerStoreError. */
import { LayerStoreError, type LayerStoreErrorDetails } from '../errors.js';
import { quote } from '../util/quote.js';

export function registryError(message: string, details: LayerStoreErrorDetails): LayerStoreError {
  return new LayerStoreError('ERR_REGISTRY', message, details);
}

/** The first error of a registry's JSON body: https://github.com/opencontainers/distribution-spec, "Error Codes". */
export function readErrorBody(text: string): { registryCode?: string; message?: string } {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return {}; // a page of a proxy, say: the status alone speaks
  }
  const errors = (body as { errors?: unknown } | null)?.errors;
  const first = (Array.isArray(errors) ? errors[0] : undefined) as { code?: unknown; message?: unknown } | undefined;
  return {
    ...(typeof first?.code === 'string' ? { registryCode: first.code.slice(0, 100) } : {}),
    ...(typeof first?.message === 'string' ? { message: first.message } : {}),
  };
}

/** What a failed answer means. `action`: what was tried, `read the manifest of "x"`. */
export function answerError(
  action: string,
  answer: { host: string; status: number; body: string; retryAfter: number | undefined },
): LayerStoreError {
  const { host, status, retryAfter } = answer;
  const { registryCode, message } = readErrorBody(answer.body);
  const said = message === undefined || message === '' ? '' : ` (${quote(message)})`;
  const details = { host, status, registryCode, retryAfter };
  if (status === 401 || status === 403) {
    return new LayerStoreError(
      'ERR_UNAUTHORIZED',
      `cannot ${action}: ${host} refuses it with status ${status}${said}; log in, or ask for access`,
      details,
    );
  }
  if (status === 429) {
    const wait = retryAfter === undefined ? 'later' : `in ${Math.ceil(retryAfter)} s`;
    return registryError(`cannot ${action}: ${host} has had too many requests${said}; try again ${wait}`, details);
  }
  const code = registryCode === undefined ? '' : ` ${registryCode}`;
  return registryError(`cannot ${action}: ${host} answers with status ${status}${code}${said}`, details);
}

/** A failure without an answer: no connection, a broken one, a certificate that is not trusted. */
export function connectionError(action: string, host: string, error: unknown): LayerStoreError {
  const { code, message } = rootCause(error);
  const advice = certificateAdvice(code);
  return registryError(`cannot ${action}: ${host}: ${code ?? message}${advice}`, { host, cause: error });
}

/** The error below those that only say that something failed; a connection tried at several addresses has one for each. */
export function rootCause(error: unknown): { code: string | undefined; message: string } {
  let found = error;
  for (;;) {
    const next: unknown =
      found instanceof AggregateError ? found.errors[0] : found instanceof Error ? found.cause : undefined;
    if (!(next instanceof Error)) break;
    found = next;
  }
  const code = (found as { code?: unknown } | undefined)?.code;
  return {
    code: typeof code === 'string' ? code : undefined,
    message: found instanceof Error ? found.message : String(found),
  };
}

const CERTIFICATE_FAULTS = /CERT|SELF_SIGNED|UNABLE_TO_(?:VERIFY|GET_ISSUER)/;

/** Whether the other side speaks TLS, but with a certificate that is not trusted. */
export function isCertificateFault(error: unknown): boolean {
  return CERTIFICATE_FAULTS.test(rootCause(error).code ?? '');
}

/** Whether trying the same again is useless: the name, the certificate or the protocol is wrong, not the moment. */
export function isPermanent(error: unknown): boolean {
  const { code } = rootCause(error);
  return (
    code !== undefined &&
    (code === 'ENOTFOUND' || code.startsWith('ERR_SSL') || code === 'EPROTO' || CERTIFICATE_FAULTS.test(code))
  );
}

function certificateAdvice(code: string | undefined): string {
  if (code === undefined) return '';
  if (CERTIFICATE_FAULTS.test(code)) return '; its certificate is not trusted: give its authority with "ca" or certs.d';
  if (code.startsWith('ERR_SSL') || code === 'EPROTO')
    return '; it does not speak TLS: set "plainHTTP" if that is meant';
  return '';
}
