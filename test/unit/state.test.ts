import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadNodeId, readBootId } from '../../src/agent/local-node.js';
import {
  holdDownsHere,
  unconfirmedLimitMs,
  refuseSavedState,
  renewedHereMs,
  type SavedState,
} from '../../src/agent/saved-state.js';
import { StateFile, type State } from '../../src/agent/state-file.js';
import { parseIpv4, parsePrefix } from '../../src/model/ip.js';
import { leaseValueOf, parseLeaseValue, type Lease } from '../../src/model/lease.js';
import { formatNetworkConfig, parseNetworkConfig } from '../../src/model/network.js';
import { nodeIdPattern, type Node } from '../../src/model/node.js';
import { fakeLease } from '../support/fakes.js';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'tartan-state-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const address = parseIpv4('192.0.2.1');
const saved: SavedState = {
  network: parseNetworkConfig('{"Network":"10.5.0.0/16","Backend":{"Type":"udp","Port":9999}}'),
  lease: { ...fakeLease('10.5.3.0/24', '192.0.2.1', 'node-1'), leaseId: '7587' },
  address,
  ttlSeconds: 60,
  renewedAtMs: 500_000,
  renewedAtWallMs: 1_800_000_000_000,
  peers: [fakeLease('10.5.4.0/24', '192.0.2.4', 'node-4'), fakeLease('10.5.6.0/24', '192.0.2.6', 'node-6')],
};
const state: State = { nodeId: 'node-1', subnet: saved.lease.subnet, saved };

/** A file with a sound checksum over any content. */
function writeSealed(path: string, version: number, body: unknown): void {
  const sha256 = createHash('sha256').update(JSON.stringify(body)).digest('hex');
  writeFileSync(path, JSON.stringify({ version, sha256, body }));
}

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

describe('the state file', () => {
  it('gives back who was held down, in the same boot only', () => {
    const file = new StateFile(directory);
    const heldDown = [{ subnet: parsePrefix('10.5.4.0/24'), untilMs: 560_000 }];
    const lease = { ...saved.lease, bootId: 'this' };
    file.write({ ...state, saved: { ...saved, lease, holdDowns: heldDown } });
    const read = file.read('node-1');
    const found = read.kind === 'found' ? read.state.saved : undefined;
    expect(found && holdDownsHere(found, { bootId: 'this' })).toEqual(heldDown);
    expect(found && holdDownsHere(found, { bootId: 'other' })).toEqual([]);
    // Earlier versions read what has none.
    file.write({ ...state, saved: { ...saved, holdDowns: [] } });
    expect(readFileSync(file.path, 'utf8')).not.toContain('heldDown');
  });

  it('gives back what was written, to its own node only', () => {
    const file = new StateFile(directory);
    expect(file.read('node-1')).toEqual({ kind: 'absent' });
    file.write(state);
    const read = file.read('node-1');
    // Revisions are of the store's history, which may be another one by the next start.
    const bare = { createRevision: 0n, revision: 0n };
    expect(read).toEqual({
      kind: 'found',
      state: {
        ...state,
        saved: {
          ...saved,
          lease: { ...saved.lease, ...bare },
          peers: saved.peers.map(peer => ({
            ...peer,
            ...leaseValueOf({ ...peer, bootId: undefined }),
            ...bare,
            leaseId: '',
          })),
        },
      },
    });
    expect(file.read('node-2')).toEqual({ kind: 'refused', reason: `${file.path} belongs to node node-1` });
    expect(statSync(file.path).mode & 0o777).toBe(0o600);
  });

  it('names what was written outside, for cleanup', () => {
    expect(new StateFile(directory).writtenFiles()).toEqual([]);
    new StateFile(directory, ['/run/x/subnet.env']).write(state);
    expect(new StateFile(directory).writtenFiles()).toEqual(['/run/x/subnet.env']);
  });

  it('is refused as a whole for any single changed byte, and for any part of it', () => {
    const file = new StateFile(directory);
    file.write(state);
    const good = readFileSync(file.path);
    for (let index = 0; index < good.length - 1; index++) {
      const bad = Buffer.from(good);
      bad[index] = (bad[index] ?? 0) ^ 1;
      writeFileSync(file.path, bad);
      expect(file.read('node-1').kind, `byte ${index}`).toBe('refused');
      writeFileSync(file.path, good.subarray(0, index));
      expect(file.read('node-1').kind, `cut at ${index}`).toBe('refused');
    }
  }, 60_000);

  it.each([
    ['an unknown version', 0, (body: object) => body, /is damaged, or not a state file of version 1 to 2/],
    ['a newer version', 3, (body: object) => body, /state\.json was written by a newer version \(3\)$/],
    ['a member missing', 2, (body: object) => change(body, { address: undefined }), /memory\.address/],
    ['a bad peer', 2, (body: object) => change(body, { peers: [['10.5.4.0-24', '{}']] }), /memory\.peers\.0/],
    ['a bad network', 2, (body: object) => change(body, { network: '{"Network":"10.5.0.0"}' }), /memory\.network/],
    ['a bad lease id', 2, (body: object) => change(body, { leaseId: '-1' }), /memory\.leaseId/],
    [
      '65,537 peers',
      2,
      (body: object) => change(body, { peers: Array.from({ length: 65_537 }, () => peerText) }),
      /memory\.peers/,
    ],
  ])('with %s and a sound checksum is refused with its place', (_, version, alter, reason) => {
    const file = new StateFile(directory);
    file.write(state);
    const { body } = JSON.parse(readFileSync(file.path, 'utf8')) as { body: object };
    writeSealed(file.path, version, alter(body));
    expect(file.read('node-1')).toMatchObject({ kind: 'refused', reason: expect.stringMatching(reason) as unknown });
  });

  it('with members of a later version everywhere is used, and they are ignored', () => {
    const file = new StateFile(directory);
    const holdDowns = [{ subnet: parsePrefix('10.5.4.0/24'), untilMs: 560_000 }];
    file.write({ ...state, saved: { ...saved, holdDowns } });
    const plain = file.read('node-1');
    const { body } = JSON.parse(readFileSync(file.path, 'utf8')) as { body: { memory: Record<string, string[][]> } };
    const more = { later: { x: [1] }, '': null };
    const { lease = [], peers = [], heldDown = [], network = '' } = body.memory;
    const added = (text: unknown): string => `{"later":{"x":1e400,"s":"\u2022"},${String(text).slice(1)}`;
    const memory = {
      ...more,
      ...body.memory,
      network: added(network),
      lease: [...lease, more],
      peers: peers.map(([name, text]) => [name, added(text), more, 7]),
      heldDown: heldDown.map(entry => [...entry, more]),
    };
    const whole = { ...more, ...body, memory };
    const sha256 = createHash('sha256').update(JSON.stringify(whole)).digest('hex');
    writeFileSync(file.path, JSON.stringify({ ...more, version: 2, sha256, body: whole, ...more }));
    const read = file.read('node-1');
    expect(read).toMatchObject({ kind: 'found', state: { saved: { peers: [{}, {}], holdDowns } } });
    expect(JSON.stringify(textless(read))).toBe(JSON.stringify(textless(plain)));
    writeSealed(file.path, 1, { ...more, nodeId: 'node-1', network: '', subnet: '10.5.3.0/24', files: [] });
    expect(file.read('node-1')).toEqual({ kind: 'found', state: { ...state, saved: undefined } });
  });

  it('of a newer version is left as it is until there is something to write, or the subnet is lost', () => {
    const file = new StateFile(directory, ['/x']);
    for (const text of ['{"version":3}', '{"version":12,"sha256":"?","body":{"nodeId":"node-1"},"more":1}']) {
      writeFileSync(file.path, text);
      const version = text.includes('12') ? 12 : 3;
      const reason = `${file.path} was written by a newer version (${version})`;
      expect(file.read('node-1')).toEqual({ kind: 'refused', reason });
      expect(file.writtenFiles()).toEqual([]);
      expect(readFileSync(file.path, 'utf8')).toBe(text);
      file.write(state);
      expect(file.read('node-1')).toMatchObject({ kind: 'found' });
      // Its saved state could be of the lost subnet, and be used after an upgrade.
      writeFileSync(file.path, text);
      file.forget();
      expect(file.read('node-1')).toEqual({ kind: 'absent' });
    }
  });

  it('is, byte for byte, what earlier versions write', () => {
    const at = (subnet: string, text: string): Lease => {
      return { ...fakeLease(subnet, '192.0.2.9'), ...parseLeaseValue(text), leaseId: '7587' };
    };
    const file = new StateFile(directory, ['/run/x/subnet.env']);
    file.write({
      ...state,
      saved: {
        ...saved,
        network: parseNetworkConfig(
          '{"Network":"10.5.0.0/16","Backend":{"Type":"udp","Port":9999,"Later":1},"EnableNFTables":true}',
        ),
        lease: at('10.5.3.0/24', '{"PublicIP":"192.0.2.1","PublicIPv6":null,"nodeId":"node-1","bootId":"boot"}'),
        peers: [
          at('10.5.4.0/24', '{"PublicIP":"192.0.2.4","PublicIPv6":null,"nodeId":"node-4","bootId":"b","x":1}'),
          at(
            '10.5.6.0/24',
            '{"PublicIP":"192.0.2.6","BackendType":"vxlan","BackendData":{"VtepMAC":"02:AA:00:00:00:01"}}',
          ),
          at('10.5.7.0/24', '{"PublicIP":"192.0.2.7","PublicIPv6":null,"BackendType":"Host-GW"}'),
        ],
        holdDowns: [{ subnet: parsePrefix('10.5.4.0/24'), untilMs: 560_000 }],
      },
    });
    expect(createHash('sha256').update(readFileSync(file.path)).digest('hex')).toBe(
      '475a427ff8cf76147a393ecc07d03547ffbc717547bba16b3ca0229e410a11cf',
    );
  });

  it('that is a symbolic link is refused', () => {
    const file = new StateFile(directory);
    file.write(state);
    rmSync(file.path);
    symlinkSync(join(directory, 'elsewhere'), file.path);
    expect(file.read('node-1').kind).toBe('absent');
    writeFileSync(join(directory, 'elsewhere'), '{}');
    expect(file.read('node-1').kind).toBe('refused');
  });

  it('of version 1 gives its subnet and no saved state', () => {
    const file = new StateFile(directory);
    writeSealed(file.path, 1, { nodeId: 'node-1', network: '10.5.0.0/16', subnet: '10.5.3.0/24', files: ['/x'] });
    expect(file.read('node-1')).toEqual({ kind: 'found', state: { ...state, saved: undefined } });
    expect(file.writtenFiles()).toEqual(['/x']);
  });

  it('forgets what may not be used again, and keeps the rest', () => {
    new StateFile(directory).forget();
    const file = new StateFile(directory, ['/x']);
    expect(file.read('node-1').kind).toBe('absent');
    file.write(state);
    new StateFile(directory).forget();
    expect(file.read('node-1')).toEqual({ kind: 'found', state: { ...state, saved: undefined } });
    expect(file.writtenFiles()).toEqual(['/x']);
  });

  it('is removed when what must be forgotten cannot be written', () => {
    const file = new StateFile(directory);
    file.write(state);
    // The name of the new file before it is moved is taken.
    mkdirSync(join(directory, `.state.json.${process.pid}`, 'x'), { recursive: true });
    file.forget();
    expect(file.read('node-1').kind).toBe('absent');
  });

  it('holds 65,536 peers', () => {
    const file = new StateFile(directory);
    const peers = Array.from({ length: 65_536 }, (_, index) => {
      const subnet = `10.${128 + (index >> 14)}.${(index >> 6) & 255}.${(index & 63) * 4}/30`;
      return fakeLease(subnet, '192.0.2.2', '0b8f3a52-7a0e-4f2e-9b59-5b0c1e0f4f11');
    });
    file.write({ ...state, saved: { ...saved, peers } });
    const read = file.read('node-1');
    expect(read.kind === 'found' && read.state.saved?.peers.length).toBe(65_536);
  });
});

/** What was read, without the exact text of the leases. */
function textless(read: unknown): unknown {
  return JSON.parse(
    JSON.stringify(read, (name, value: unknown) =>
      name === 'text' ? undefined : typeof value === 'bigint' ? String(value) : value,
    ),
  );
}

const peerText = ['10.5.4.0-24', '{"PublicIP":"192.0.2.4"}'];

function change(body: object, memoryChange: object): object {
  const { memory: before } = body as { memory: object };
  return { ...body, memory: { ...before, ...memoryChange } };
}

it.each(['{"Network":"10.5.0.0/16"}', '{"Network":"10.5.0.0/28"}', '{"Network":"10.0.0.0/8","SubnetLen":22}'])(
  'the network %s survives the file',
  text => {
    const network = parseNetworkConfig(text);
    expect(parseNetworkConfig(formatNetworkConfig(network))).toEqual(network);
  },
);

describe('a saved state is used', () => {
  const node: Node = {
    id: 'node-1',
    bootId: 'boot',
    publicIp: address,
    interface: { name: 'eth0', address, mtu: 1500 },
  };
  const wall = saved.renewedAtWallMs;
  const limit = unconfirmedLimitMs(60);
  const here = { node, nowMs: saved.renewedAtMs + 1000, wallNowMs: wall + 1000, forwardUntilMs: 0 };
  const reboot = { node: { ...node, bootId: 'later' }, nowMs: 3000 };
  const elsewhere = { ...node, publicIp: parseIpv4('192.0.2.9') };
  const moved = { ...node, interface: { ...node.interface, address: parseIpv4('192.0.2.9') } };

  it.each<readonly [string, Partial<typeof here>, Partial<SavedState>, RegExp | undefined]>([
    ['just after the last KeepAlive', {}, {}, undefined],
    ['at another public address', { node: elsewhere }, {}, /was written for the address 192\.0\.2\.1/],
    ['from another address of the interface', { node: moved }, {}, /this host has 192\.0\.2\.1 at 192\.0\.2\.9/],
    ['with a subnet outside its network', {}, { lease: fakeLease('10.6.3.0/24', '192.0.2.1') }, /no subnet of its/],
    ['with all of its network', {}, { lease: fakeLease('10.5.0.0/16', '192.0.2.1') }, /no subnet of its network/],
    ['one moment before six TTLs', { nowMs: saved.renewedAtMs + limit - 1 }, {}, undefined],
    ['after six TTLs', { nowMs: saved.renewedAtMs + limit }, {}, /last confirmed 360 s ago, .* kept for 360 s/],
    ['later, but forwarding was never stopped', { nowMs: 1e9, forwardUntilMs: 1e9 + 9000 }, {}, undefined],
    ['later, and forwarding had stopped', { nowMs: 1e9, forwardUntilMs: 1e9 }, {}, /last confirmed/],
    ['in one boot, whatever the wall clock says', { wallNowMs: 0 }, {}, undefined],
    ['after a reboot', reboot, {}, undefined],
    ['after a long time off', { ...reboot, wallNowMs: wall + limit + 1 }, {}, /360 s ago by the wall clock/],
    ['by a wall clock that lags a little', { ...reboot, wallNowMs: wall - 59_000 }, {}, undefined],
    ['by a wall clock that knows nothing', { ...reboot, wallNowMs: 0 }, {}, /its age cannot be told/],
    ['of a reservation, for ever', { ...reboot, wallNowMs: 0 }, { lease: { ...saved.lease, leaseId: '0' } }, undefined],
  ])('%s', (_, place, content, reason) => {
    const refusal = refuseSavedState({ ...saved, ...content }, { ...here, ...place });
    if (reason) expect(refusal).toMatch(reason);
    else expect(refusal).toBeUndefined();
  });

  it('and no time is granted to a data process left alone after a reboot', () => {
    expect(renewedHereMs(saved, { node, ttlSeconds: 60, nowMs: 600_000 })).toBe(500_000);
    expect(renewedHereMs(saved, { ...reboot, ttlSeconds: 60 }) + limit).toBe(reboot.nowMs);
    expect(renewedHereMs(saved, { node, ttlSeconds: 90, nowMs: 600_000 }) + unconfirmedLimitMs(90)).toBe(600_000);
  });
});
