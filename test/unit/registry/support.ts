/** A registry's client with short pauses, and what it was told. */
import type { TestContext } from 'node:test';
import type { CredentialSource } from '../../../src/registry/credentials.js';
import { Registry, type Caller } from '../../../src/registry/registry.js';
import { registrySettings, type RegistrySettings } from '../../../src/registry/settings.js';
import type { TestRegistry } from '../../support/registry.js';

export const REPOSITORY = 'team/app';

export function testSettings(change: Partial<RegistrySettings> = {}): RegistrySettings {
  return {
    ...registrySettings({ retries: 3 }),
    credentials: async () => undefined,
    hosts: {},
    noProgressTimeout: 300,
    backoffMs: 1,
    ...change,
  };
}

export interface Heard extends Caller {
  readonly pauses: { inMs: number; reason: string }[];
}

export function listener(signal?: AbortSignal): Heard {
  const pauses: { inMs: number; reason: string }[] = [];
  return { pauses, signal, onRetry: (pause) => void pauses.push(pause) };
}

export async function openRegistry(
  t: Pick<TestContext, 'after'>,
  server: TestRegistry,
  access: 'pull' | 'push',
  change: Partial<RegistrySettings> = {},
): Promise<Registry> {
  const hosts = { [server.host]: { plainHTTP: true } };
  const settings = testSettings({ hosts, ...change });
  const registry = await Registry.open({ host: server.host, path: REPOSITORY }, settings, access);
  t.after(() => registry[Symbol.asyncDispose]());
  return registry;
}

/** Counts how often it was asked. */
export function credentialsOf(known: Awaited<ReturnType<CredentialSource>>): CredentialSource & { hosts: string[] } {
  const hosts: string[] = [];
  return Object.assign(
    async (host: string) => {
      hosts.push(host);
      return known;
    },
    { hosts },
  );
}
