/** What can be wrong with an archive, the code that must say so, and how to build one that is so. */
import type { ImageLimits } from '../../../src/image/index.js';
import {
  descriptor,
  dockerFolders,
  entries,
  hex,
  INDEX,
  MANIFEST,
  oci,
  rootFileSystem,
  sampleConfig,
  tar,
} from './archives.js';
import { changed, dockerWith, sampleLayerTars as layers, withManifest } from './broken-builders.js';

export interface Case {
  code: 'ERR_BAD_IMAGE' | 'ERR_DIGEST_MISMATCH' | 'ERR_LIMIT_EXCEEDED';
  message?: RegExp;
  limits?: ImageLimits;
  archive: () => Promise<Buffer>;
}

const blob = (content: Uint8Array | string | undefined): string => `blobs/sha256/${hex(content ?? '')}`;
export const sample = (): Promise<Buffer> => tar(entries(oci(layers).files));

export const CASES: Readonly<Record<string, Case>> = {
  'a layer blob is missing': {
    code: 'ERR_BAD_IMAGE',
    message: /missing/,
    archive: changed((files) => files.delete(blob(layers[1]))),
  },
  'the manifest is missing': {
    code: 'ERR_BAD_IMAGE',
    message: /missing/,
    archive: changed((files) => files.delete(blob(oci(layers).manifest))),
  },
  'the configuration is missing': {
    code: 'ERR_BAD_IMAGE',
    message: /missing/,
    archive: changed((files) => files.delete(blob(oci(layers).config))),
  },
  'a layer blob has other bytes': {
    code: 'ERR_DIGEST_MISMATCH',
    archive: changed((files) => files.set(blob(layers[1]), Buffer.from(layers[1] as Buffer).fill(0x41, 600, 610))),
  },
  'the manifest has other bytes': {
    code: 'ERR_DIGEST_MISMATCH',
    archive: changed((files) =>
      files.set(blob(oci(layers).manifest), oci(layers).manifest.replace('"schemaVersion":2', '"schemaVersion":3')),
    ),
  },
  'the configuration has other bytes': {
    code: 'ERR_DIGEST_MISMATCH',
    archive: changed((files) => files.set(blob(oci(layers).config), oci(layers).config.replace('/bin/sh', '/bin/sx'))),
  },
  'the configuration of a docker archive has other bytes': {
    code: 'ERR_DIGEST_MISMATCH',
    archive: changed(
      (files) => files.set(`${hex(sampleConfig(layers))}.json`, sampleConfig(layers).replace('/bin/sh', '/bin/sx')),
      () => dockerFolders(layers),
    ),
  },
  'a layer blob is longer than its descriptor says': {
    code: 'ERR_DIGEST_MISMATCH',
    archive: changed((files) => files.set(blob(layers[1]), Buffer.concat([layers[1] as Buffer, Buffer.alloc(512)]))),
  },
  'the manifest is longer than its descriptor says': {
    code: 'ERR_DIGEST_MISMATCH',
    message: /bytes/,
    archive: changed((files) => files.set(blob(oci(layers).manifest), `${oci(layers).manifest} `)),
  },
  'a descriptor has the wrong size': {
    code: 'ERR_DIGEST_MISMATCH',
    archive: withManifest((manifest) => {
      const [layer] = manifest['layers'] as { size: number }[];
      if (layer !== undefined) layer.size += 1;
    }),
  },
  'a diff id is that of another tar': {
    code: 'ERR_DIGEST_MISMATCH',
    archive: async () =>
      tar(
        entries(
          oci(layers, { config: sampleConfig([layers[0] as Buffer, Buffer.from('other'), layers[2] as Buffer]) }).files,
        ),
      ),
  },
  'the configuration has more layers than the manifest': {
    code: 'ERR_BAD_IMAGE',
    message: /2 layers, .* 3 diff ids/,
    archive: withManifest((manifest) => void (manifest['layers'] as unknown[]).pop()),
  },
  'the configuration has fewer layers than the manifest': {
    code: 'ERR_BAD_IMAGE',
    message: /3 layers, .* 1 diff ids/,
    archive: async () => tar(entries(oci(layers, { config: sampleConfig(layers.slice(0, 1)) }).files)),
  },
  'manifest.json has fewer layers than the configuration': {
    code: 'ERR_BAD_IMAGE',
    message: /1 layers/,
    archive: dockerWith((names) => [{ Config: 'config.json', RepoTags: null, Layers: names.slice(0, 1) }]),
  },
  'a name that leads out': {
    code: 'ERR_BAD_IMAGE',
    message: /leads out/,
    archive: async () => tar([['../evil', 'x'], ...entries(oci(layers).files)]),
  },
  'a name that leads out in the middle': {
    code: 'ERR_BAD_IMAGE',
    message: /leads out/,
    archive: async () => tar([['blobs/../../evil', 'x'], ...entries(oci(layers).files)]),
  },
  'an absolute name': {
    code: 'ERR_BAD_IMAGE',
    message: /leads out/,
    archive: async () => tar([['/etc/passwd', 'x'], ...entries(oci(layers).files)]),
  },
  'a symbolic link that leads out': {
    code: 'ERR_BAD_IMAGE',
    message: /outside/,
    archive: dockerWith(
      () => [{ Config: 'config.json', RepoTags: null, Layers: ['evil', '1.tar', '2.tar'] }],
      [[{ name: 'evil', type: 'symlink', linkname: '../../etc/passwd' }]],
    ),
  },
  'an absolute symbolic link': {
    code: 'ERR_BAD_IMAGE',
    message: /outside/,
    archive: dockerWith(
      () => [{ Config: 'config.json', RepoTags: null, Layers: ['evil', '1.tar', '2.tar'] }],
      [[{ name: 'evil', type: 'symlink', linkname: '/etc/passwd' }]],
    ),
  },
  'a hard link that leads out': {
    code: 'ERR_BAD_IMAGE',
    message: /leads out/,
    archive: dockerWith(
      () => [{ Config: 'config.json', RepoTags: null, Layers: ['evil', '1.tar', '2.tar'] }],
      [[{ name: 'evil', type: 'link', linkname: '../etc/passwd' }]],
    ),
  },
  'links that lead round': {
    code: 'ERR_BAD_IMAGE',
    message: /circle/,
    archive: dockerWith(
      () => [{ Config: 'config.json', RepoTags: null, Layers: ['a', '1.tar', '2.tar'] }],
      [[{ name: 'a', type: 'symlink', linkname: 'b' }], [{ name: 'b', type: 'symlink', linkname: 'a' }]],
    ),
  },
  'a layer that is a device': {
    code: 'ERR_BAD_IMAGE',
    message: /not a regular file/,
    archive: dockerWith(
      () => [{ Config: 'config.json', RepoTags: null, Layers: ['dev', '1.tar', '2.tar'] }],
      [[{ name: 'dev', type: 'character-device', devmajor: 1, devminor: 3 }]],
    ),
  },
  'a layer name that leads out': {
    code: 'ERR_BAD_IMAGE',
    message: /leads out/,
    archive: dockerWith((names) => [{ Config: 'config.json', RepoTags: null, Layers: ['../x', ...names.slice(1)] }]),
  },
  'a configuration name that leads out': {
    code: 'ERR_BAD_IMAGE',
    message: /leads out/,
    archive: dockerWith((Layers) => [{ Config: '/etc/passwd', RepoTags: null, Layers }]),
  },
  'a name twice': {
    code: 'ERR_BAD_IMAGE',
    message: /twice/,
    archive: async () => tar([...entries(oci(layers).files), ['index.json', '{}']]),
  },
  'a name twice in other spelling': {
    code: 'ERR_BAD_IMAGE',
    message: /twice/,
    archive: async () => tar([...entries(oci(layers).files), [`./blobs//sha256/${hex(layers[0] as Buffer)}`, 'x']]),
  },
  'a tag that is no name': {
    code: 'ERR_BAD_IMAGE',
    message: /not a name/,
    archive: dockerWith((Layers) => [{ Config: 'config.json', RepoTags: ['../../x:1'], Layers }]),
  },
  'the archive ends in a layer': {
    code: 'ERR_BAD_IMAGE',
    message: /truncated/,
    archive: async () => (await tar(entries(oci(layers).files).reverse())).subarray(0, -20_000),
  },
  'the archive ends in a header': {
    code: 'ERR_BAD_IMAGE',
    message: /truncated/,
    archive: async () => (await tar(entries(dockerFolders(layers)))).subarray(0, 512 + 512 + 100),
  },
  'the archive ends after its first blob': {
    code: 'ERR_BAD_IMAGE',
    archive: async () => (await tar(entries(oci(layers).files))).subarray(0, 512 + (layers[0]?.length ?? 0)),
  },
  'a header is damaged': {
    code: 'ERR_BAD_IMAGE',
    message: /checksum/,
    archive: async () => {
      const archive = await tar(entries(oci(layers).files));
      archive[10] = 0x7a;
      return archive;
    },
  },
  'a layer is a truncated tar': {
    code: 'ERR_BAD_IMAGE',
    message: /cannot be unpacked/,
    archive: async () => {
      const truncated = [layers[0], layers[1]?.subarray(0, 700), layers[2]] as Buffer[];
      return tar(entries(oci(truncated).files));
    },
  },
  'index.json is no JSON': {
    code: 'ERR_BAD_IMAGE',
    message: /JSON/,
    archive: changed((files) => files.set('index.json', '{')),
  },
  'index.json is no UTF-8': {
    code: 'ERR_BAD_IMAGE',
    archive: changed((files) => files.set('index.json', Buffer.from([0x22, 0xff, 0x22]))),
  },
  'index.json is a list': { code: 'ERR_BAD_IMAGE', archive: changed((files) => files.set('index.json', '[]')) },
  'index.json names nothing': {
    code: 'ERR_BAD_IMAGE',
    message: /no image/,
    archive: changed((files) => files.set('index.json', '{"schemaVersion":2,"manifests":[]}')),
  },
  'manifest.json names nothing': { code: 'ERR_BAD_IMAGE', archive: dockerWith(() => []) },
  'manifest.json has numbers for layers': {
    code: 'ERR_BAD_IMAGE',
    archive: dockerWith(() => [{ Config: 'config.json', Layers: [1, 2, 3] }]),
  },
  'index.json names null, and nothing is beside it': {
    code: 'ERR_BAD_IMAGE',
    message: /no image/,
    archive: changed((files) => files.set('index.json', '{"schemaVersion":2,"manifests":null}')),
  },
  'an archive with nothing in it': { code: 'ERR_BAD_IMAGE', message: /no image/, archive: async () => tar([]) },
  'the tar of a root file system': {
    code: 'ERR_BAD_IMAGE',
    message: /not an image archive.*taken in with "register"/,
    archive: rootFileSystem,
  },
  'the tar of a layer with whiteouts': {
    code: 'ERR_BAD_IMAGE',
    message: /not an image archive.*taken in with "register"/,
    archive: async () => tar([['etc/.wh.hosts', '']]),
  },
  'the tar of a root file system with more entries than an archive may have': {
    code: 'ERR_BAD_IMAGE',
    message: /not an image archive/,
    limits: { maxArchiveEntries: 4 },
    archive: rootFileSystem,
  },
  'a digest of another kind': {
    code: 'ERR_BAD_IMAGE',
    message: /sha256/,
    archive: withManifest((manifest) => {
      (manifest['config'] as { digest: string }).digest = `sha512:${'0'.repeat(128)}`;
    }),
  },
  'a digest that is a path': {
    code: 'ERR_BAD_IMAGE',
    message: /sha256/,
    archive: withManifest((manifest) => {
      (manifest['config'] as { digest: string }).digest = 'sha256:../../../etc/passwd';
    }),
  },
  'a negative size': {
    code: 'ERR_BAD_IMAGE',
    message: /size/,
    archive: withManifest((manifest) => {
      (manifest['config'] as { size: number }).size = -1;
    }),
  },
  'a manifest that is an index too': {
    code: 'ERR_BAD_IMAGE',
    message: /at once/,
    archive: withManifest((manifest) => {
      manifest['manifests'] = [];
    }),
  },
  'a manifest that calls itself something else': {
    code: 'ERR_BAD_IMAGE',
    message: /calls itself/,
    archive: withManifest((manifest) => {
      manifest['mediaType'] = INDEX;
    }),
  },
  'an artifact that is no image': {
    code: 'ERR_BAD_IMAGE',
    message: /not a container image/,
    archive: withManifest((manifest) => {
      manifest['config'] = descriptor('{}', 'application/vnd.example+json');
    }),
  },
  'a layer of an unknown type': {
    code: 'ERR_BAD_IMAGE',
    message: /not a layer/,
    archive: withManifest((manifest) => {
      manifest['layers'] = [descriptor(layers[0] as Buffer, 'application/x-iso')];
    }),
  },
  'a layout of another version': {
    code: 'ERR_BAD_IMAGE',
    message: /version/,
    archive: async () => tar(entries(oci(layers).files.set('oci-layout', '{"imageLayoutVersion":"9.0.0"}')).reverse()),
  },
  'a configuration without rootfs': {
    code: 'ERR_BAD_IMAGE',
    message: /rootfs/,
    archive: async () => tar(entries(oci(layers, { config: '{"os":"linux"}' }).files)),
  },
  'indexes that lie too deep in each other': {
    code: 'ERR_BAD_IMAGE',
    message: /deep/,
    archive: async () => {
      const { files, manifest } = oci(layers);
      let child = descriptor(manifest, MANIFEST);
      for (let depth = 0; depth < 10; depth++) {
        const index = JSON.stringify({ schemaVersion: 2, manifests: [child] });
        files.set(`blobs/sha256/${hex(index)}`, index);
        child = descriptor(index, INDEX);
      }
      return tar(entries(files.set('index.json', JSON.stringify({ schemaVersion: 2, manifests: [child] }))));
    },
  },
  'JSON nested too deep': {
    code: 'ERR_LIMIT_EXCEEDED',
    message: /maxJsonDepth/,
    archive: changed((files) => files.set('index.json', '['.repeat(100_000))),
  },
  'JSON too large': {
    code: 'ERR_LIMIT_EXCEEDED',
    message: /maxJsonBytes/,
    limits: { maxJsonBytes: 50 },
    archive: sample,
  },
  'too many layers': { code: 'ERR_LIMIT_EXCEEDED', message: /maxLayers/, limits: { maxLayers: 2 }, archive: sample },
  'too many layers in manifest.json': {
    code: 'ERR_LIMIT_EXCEEDED',
    message: /maxLayers/,
    limits: { maxLayers: 2 },
    archive: dockerWith((Layers) => [{ Config: 'config.json', Layers }]),
  },
  'too many entries': {
    code: 'ERR_LIMIT_EXCEEDED',
    message: /maxArchiveEntries/,
    limits: { maxArchiveEntries: 4 },
    archive: sample,
  },
  'too many images': {
    code: 'ERR_LIMIT_EXCEEDED',
    message: /maxImages/,
    limits: { maxImages: 1 },
    archive: dockerWith((Layers) => [
      { Config: 'config.json', Layers },
      { Config: 'config.json', Layers },
    ]),
  },
};
