/**
 * A configuration for an image from before there were any, made as Docker makes it (moby, image/v1 `MakeConfigFromV1Config`):
 * the top layer's own JSON without what belongs to the layer, keys in byte order, `rootfs` and `history` added.
 */
import type { DiffID } from '../digest.js';
import { isObject, type JsonObject } from './json.js';

const OF_THE_LAYER = new Set(['id', 'parent', 'Size', 'parent_id', 'layer_id', 'throwaway']);

export function legacyConfig(layers: readonly JsonObject[], diffIDs: readonly DiffID[]): Uint8Array {
  const config: Record<string, unknown> = {
    ...Object.fromEntries(Object.entries(layers.at(-1) ?? {}).filter(([key]) => !OF_THE_LAYER.has(key))),
    rootfs: { type: 'layers', diff_ids: diffIDs },
    history: layers.map(history),
  };
  const sorted = Object.fromEntries(Object.entries(config).sort(([a], [b]) => (a < b ? -1 : 1)));
  return Buffer.from(escapeLikeGo(JSON.stringify(sorted)));
}

function history(layer: JsonObject): JsonObject {
  const command = isObject(layer['container_config']) ? layer['container_config']['Cmd'] : undefined;
  return {
    ...text('created', layer['created']),
    ...text('author', layer['author']),
    ...text('created_by', Array.isArray(command) ? command.join(' ') : undefined),
    ...text('comment', layer['comment']),
  };
}

function text(key: string, value: unknown): JsonObject {
  return typeof value === 'string' && value !== '' ? { [key]: value } : {};
}

/** Go's encoder writes these so; they occur only inside of strings. */
function escapeLikeGo(json: string): string {
  return json.replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
