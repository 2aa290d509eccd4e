/** What an installation may get wrong, and the program knows. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { describeHiddenPlace } from '../../src/cli/install-place.js';
import { refuseNode } from '../../src/cli/node-floor.js';
import { root } from '../support/tools.js';

const read = (file: string): string => readFileSync(join(root, file), 'utf8');

describe('fault U13: one floor of Node.js, which start-up checks and names', () => {
  const manifest = JSON.parse(read('package.json')) as { readonly engines: { readonly node: string } };
  const floor = Number(/^>=(\d+)$/.exec(manifest.engines.node)?.[1]);

  it('fault U13: is the same everywhere', () => {
    expect(floor).toBeGreaterThanOrEqual(20);
    for (const [, version] of read('README.md').matchAll(/Node\.js (\d+)/g)) expect(Number(version)).toBe(floor);
    for (const [, version] of read('test/support/setup.sh').matchAll(/Node\.js (\d+) or newer/g))
      expect(Number(version)).toBe(floor);
    expect(refuseNode(`${floor}.0.0`)).toBeUndefined();
    expect(refuseNode('18.19.0')).toContain(`expected ${floor} or later`);
  });
});

describe('fault U2, U3: programs that the unit can start', () => {
  it('fault U2: a home directory is named as hidden from the unit', () => {
    expect(describeHiddenPlace('/root/tartan/dist/cli/install-place.js')).toMatch(/below \/root.*203\/EXEC.*\/opt/);
    expect(describeHiddenPlace('/home/a/tartan/dist/x.js')).toContain('below /home');
    expect(describeHiddenPlace('/opt/tartan/dist/x.js')).toBeUndefined();
    expect(describeHiddenPlace('/usr/lib/node_modules/tartan/dist/x.js')).toBeUndefined();
  });

  it('fault U3: the units name no program by a path that an ordinary install misses', () => {
    for (const file of ['tartand.service', 'docker.service.d/tartan.conf', 'redhat/docker.service.d/tartan.conf'])
      for (const [, program] of read(`config/systemd/${file}`).matchAll(/^Exec\w+=[-+!@:]*(\S+)/gm))
        expect(program).not.toMatch(/\//);
  });
});
