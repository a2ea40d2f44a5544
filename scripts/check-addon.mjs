// Loads the addon that LAYERSTORE_ADDON_DIR (or the usual places) holds and asks it for its features: shows that a build
// by the other tool gives a working addon too.
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';

const top = resolve(import.meta.dirname, '..');
const folder = resolve(top, process.env.LAYERSTORE_ADDON_DIR ?? 'build/Release');
const addon = createRequire(import.meta.url)(join(folder, 'layerstore.node'));
console.log(`${folder}: ${JSON.stringify(addon.features())}`);
