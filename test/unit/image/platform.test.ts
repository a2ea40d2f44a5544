import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { formatPlatform, hostPlatform, parsePlatform, platformFit } from '../../../src/image/platform.js';

describe('platforms', () => {
  it('are parsed and written', () => {
    assert.equal(formatPlatform(parsePlatform('linux/arm64/v8')), 'linux/arm64');
    assert.equal(formatPlatform(parsePlatform('Linux/ARM/v6')), 'linux/arm/v6');
    for (const text of ['', 'linux', 'linux/', '/amd64', 'a/b/c/d', 'linux/amd64;x'])
      assert.throws(() => parsePlatform(text), { code: 'ERR_INVALID_ARGUMENT' });
    assert.equal(hostPlatform().os, 'linux');
  });

  const fits: [wanted: string, offered: string, fit: number][] = [
    ['linux/amd64', 'linux/amd64', 2],
    ['linux/amd64', 'linux/arm64', 0],
    ['linux/amd64', 'windows/amd64', 0],
    ['linux/amd64', 'linux/amd64/v3', 0],
    ['linux/amd64/v3', 'linux/amd64', 1],
    ['linux/arm64', 'linux/arm64/v8', 2],
    ['linux/arm', 'linux/arm/v7', 2],
    ['linux/arm', 'linux/arm/v6', 1],
    ['linux/arm/v6', 'linux/arm/v7', 0],
  ];
  for (const [wanted, offered, fit] of fits) {
    it(`${offered} for ${wanted}: ${fit}`, () =>
      assert.equal(platformFit(parsePlatform(wanted), parsePlatform(offered)), fit));
  }
});
