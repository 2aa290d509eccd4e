import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { loadNodeId, readBootId } from '../../src/agent/identity.js';
import { StateFile } from '../../src/agent/state-file.js';
import { parsePrefix } from '../../src/model/ipv4.js';
import { nodeIdPattern } from '../../src/model/node.js';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'tartan-state-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const state = { nodeId: 'node-1', network: parsePrefix('10.5.0.0/16'), subnet: parsePrefix('10.5.3.0/24') };

it('the node id is made once and kept', () => {
  const id = loadNodeId(directory);
  expect(id).toMatch(nodeIdPattern);
  expect(loadNodeId(directory)).toBe(id);
  expect(statSync(join(directory, 'node-id')).mode & 0o777).toBe(0o600);
});

it.each(['', 'a b\n', 'x'.repeat(300), '../../etc\n'])('a node id file with %j is refused and kept', text => {
  const path = join(directory, 'node-id');
  writeFileSync(path, text);
  expect(() => loadNodeId(directory)).toThrow(/expected a node id/);
  expect(readFileSync(path, 'utf8')).toBe(text);
});

it('the boot id is a value that a lease can carry', () => {
  expect(readBootId()).toMatch(nodeIdPattern);
});

it('the state file gives back what was written, to its own node only', () => {
  const file = new StateFile(directory);
  expect(file.read('node-1')).toEqual({ kind: 'absent' });
  file.write(state);
  expect(file.read('node-1')).toMatchObject({ kind: 'found', state });
  expect(file.read('node-2')).toMatchObject({
    kind: 'refused',
    reason: expect.stringContaining('belongs to node node-1'),
  });
  expect(statSync(file.path).mode & 0o777).toBe(0o600);
});

it('the state file remembers what was written outside, for cleanup', () => {
  expect(new StateFile(directory).writtenFiles()).toEqual([]);
  new StateFile(directory, ['/run/x/subnet.env']).write(state);
  expect(new StateFile(directory).writtenFiles()).toEqual(['/run/x/subnet.env']);
});

it('any single changed byte of the state file refuses it as a whole', () => {
  const file = new StateFile(directory);
  file.write(state);
  const good = readFileSync(file.path);
  for (let index = 0; index < good.length - 1; index++) {
    const bad = Buffer.from(good);
    bad[index] = (bad[index] ?? 0) ^ 1;
    writeFileSync(file.path, bad);
    expect(file.read('node-1').kind, `byte ${index}`).toBe('refused');
  }
});
