/** The addon's tables: what is published and read back, refused, adopted, damaged, and how much memory it takes. */
import { execFileSync } from 'node:child_process';
import {
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { expect, test } from 'vitest';
import { native, type NativeRows, type NativeTable } from '../../src/lib/native.js';
import { peerEngineKernel, probeFeature } from '../../src/model/plan.js';
import { useScratch } from './datapath-lab.js';

const endpoint = 0xc0000202;
const net = (third: number): number => 10 * 2 ** 24 + 5 * 2 ** 16 + third * 256;

const scratch = useScratch();

/** A row of a peer with an IPv4 endpoint (NativeRows). */
const peerRow = (identity: number, address = endpoint, port = 8285): readonly number[] =>
  [
    [0, 0, 0, identity, 0, 0, 0, 0],
    [address, port, 0, 0, 0, 0, 0, 0, 0, 0],
  ].flat();
const routeRow = (network: number, length: number, peer: number): readonly number[] => [
  network,
  0,
  0,
  0,
  length,
  4,
  peer,
];

const concatenated = (rows: readonly (readonly number[])[]): Uint32Array => new Uint32Array(rows.flat());

/** Network, length, endpoint and port of a route to a peer of its own. */
type Route = readonly [network: number, length: number, endpoint: number, port: number];

function rowsOf(...routes: readonly Route[]): NativeRows {
  return {
    peers: concatenated(routes.map(([, , address, port], i) => peerRow(i + 1, address, port))),
    routes: concatenated(routes.map(([network, length], i) => routeRow(network, length, i))),
  };
}

/** That many peers with a route each, and with one more of IPv6 when they are asked for. */
function manyRows(count: number, withIpv6 = false): NativeRows {
  const peers = new Uint32Array(18 * count);
  const routes = new Uint32Array(7 * count * (withIpv6 ? 2 : 1));
  for (let i = 0; i < count; i++) {
    peers.set(peerRow(i + 1, endpoint + i), i * 18);
    routes.set(routeRow((11 * 2 ** 24 + i * 256) >>> 0, 24, i), i * 7);
    if (withIpv6) routes.set([0xfd000000, i, 0, 0, 64, 6, i], (count + i) * 7);
  }
  return { peers, routes };
}

const noRows = rowsOf();
const oneRoute = rowsOf([net(1), 24, endpoint, 8285]);
const publish = (table: NativeTable, { peers, routes }: NativeRows): number => table.publish(peers, routes);
const reserved = (fd: number): number => fstatSync(fd).blocks * 512;

function withTable(use: (table: NativeTable) => void): void {
  const table = native().createTable(scratch.directory);
  try {
    use(table);
  } finally {
    table.close();
  }
}

test('a table is private, empty at first, and of one size for ever', () => {
  withTable(table => {
    for (const fd of [table.routesFd, table.countersFd]) {
      const { mode, size } = fstatSync(fd);
      expect(mode & 0o777).toBe(0o600);
      expect(() => ftruncateSync(fd, size - 4096)).toThrow(expect.objectContaining({ code: 'EPERM' }));
      expect(() => ftruncateSync(fd, size + 4096)).toThrow(expect.objectContaining({ code: 'EPERM' }));
    }
    expect(readdirSync(scratch.directory)).toEqual([]);
    expect(table.control()).toEqual({ generation: 0, fence: false, forwardUntil: 0 });
    expect(table.rows()).toEqual(noRows);
    expect(table.identity()).toMatchObject({ mtu: 0 });
    expect(readFileSync(`/proc/self/fdinfo/${table.routesReadOnlyFd}`, 'latin1')).toMatch(/flags:\t0\d*0$/m);
    expect(readlinkSync(`/proc/self/fd/${table.routesFd}`)).toBe(`/memfd:routes:${scratch.directory} (deleted)`);
  });
});

const identity = {
  network: net(0),
  networkLength: 16,
  subnet: net(9),
  subnetLength: 24,
  publicIp: endpoint,
  port: 8285,
  flags: 3,
  mtu: 1472,
};

test('publish switches and keeps what the rows say; control words and identity come back', () => {
  withTable(table => {
    const rows = {
      // Number 1 is free. The last peer has endpoints of both families and all that is reserved.
      peers: concatenated([
        peerRow(1),
        Array.from({ length: 18 }, () => 0),
        [1, 2, 3, 4, 0xfd000000, 0, 0, 9, endpoint, 8285, 4790, 0x8000_0001, 255, 2, 5, 6, 7, 8],
      ]),
      routes: concatenated([
        routeRow(net(1), 24, 0),
        routeRow(net(2), 25, 2),
        [0xfd000000, 5, 0, 0, 64, 6, 0],
        [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 128, 6, 2],
      ]),
    };
    expect(publish(table, rows)).toBe(1);
    expect(publish(table, noRows)).toBe(2);
    expect(publish(table, rows)).toBe(3);
    expect(table.rows()).toEqual(rows);
    table.setIdentity(identity);
    table.setMtu(1400);
    table.setFence(true);
    table.setForwardUntil(12_345);
    expect(table.identity()).toEqual({ ...identity, mtu: 1400 });
    expect(table.control()).toEqual({ generation: 3, fence: true, forwardUntil: 12_345 });
    // The addresses of the identity stand in the head again, each with a family and room for IPv6.
    const head = readFileSync(`/proc/self/fd/${table.routesFd}`).subarray(64, 124);
    const words = Array.from({ length: 15 }, (_, i) => head.readUInt32LE(i * 4));
    expect(words).toEqual([net(0), 0, 0, 0, 4, net(9), 0, 0, 0, 4, endpoint, 0, 0, 0, 4]);
  });
});

test('a full table is taken: 65536 peers with a route of either family each; one more of either is not', () => {
  const { peersMax, routesMax, featureProbe } = native().limits;
  expect([peersMax, routesMax, featureProbe]).toEqual([65_536, 65_536, probeFeature]);
  expect(native().limits.peerEngineKernel).toBe(peerEngineKernel);
  withTable(table => {
    const full = manyRows(65_536, true);
    expect(publish(table, full)).toBe(1);
    expect(table.rows()).toEqual(full);
    const { peers, routes } = manyRows(65_536);
    const oneMore = new Uint32Array([...routes, ...routeRow(0xf0000000, 24, 0)]);
    expect(() => table.publish(peers, oneMore)).toThrow(/^route 65536, 240\.0\.0\.0\/24 .*65536 routes/);
    expect(() => table.publish(new Uint32Array(18 * 65_537), new Uint32Array(0))).toThrow(/65536 peers/);
    expect(table.control().generation).toBe(1);
  });
});

test.each<readonly [string, readonly Route[], string]>([
  ['host bits', [[net(1) + 1, 24, endpoint, 8285]], 'route 0, 10.5.1.1/24 via 192.0.2.2:8285: host bits'],
  ['length 0', [[0, 0, endpoint, 8285]], 'prefix length'],
  ['length 33', [[net(1), 33, endpoint, 8285]], 'prefix length'],
  ['no hop', [[net(1), 24, 0, 8285]], 'route 0, 10.5.1.0/24 via 0.0.0.0:8285: the hop'],
  ['no port', [[net(1), 24, endpoint, 0]], 'port'],
  ['port 65536', [[net(1), 24, endpoint, 65_536]], 'port'],
  [
    'unsorted',
    [
      [net(2), 24, endpoint, 1],
      [net(1), 24, endpoint, 1],
    ],
    'route 1, 10.5.1.0/24',
  ],
  [
    'twice',
    [
      [net(1), 24, endpoint, 1],
      [net(1), 24, endpoint, 1],
    ],
    'overlaps',
  ],
  [
    'overlap',
    [
      [net(0), 16, endpoint, 1],
      [net(1), 24, endpoint, 1],
    ],
    'overlaps',
  ],
  [
    'overlap at the end of the address space',
    [
      [0xffffff00, 24, endpoint, 1],
      [0xffffffff, 32, endpoint, 1],
    ],
    'overlaps',
  ],
])('publish refuses a route with %s and changes nothing', (_, routes, message) => {
  withTable(table => {
    const rows = rowsOf(...routes);
    publish(table, oneRoute);
    expect(() => publish(table, rows)).toThrow(
      expect.objectContaining({ name: 'RangeError', message: expect.stringContaining(message) }),
    );
    expect(() => native().checkTable(rows.peers, rows.routes)).toThrow(RangeError);
    expect(table.control().generation).toBe(1);
    expect(table.rows()).toEqual(oneRoute);
  });
});

test('a refusal names the peer of a route, over IPv6 too, or the peer alone', () => {
  const check = (peers: readonly number[], routes: readonly number[]): void =>
    native().checkTable(new Uint32Array(peers), new Uint32Array(routes));
  const wide = [0, 0, 0, 1, 0xfd000000, 0, 0, 9, 0, 0, 4790, 0, 0, 0, 0, 0, 0, 0];
  expect(() => check(wide, [0xfd000000, 5, 0, 1, 64, 6, 0])).toThrow(
    'route 0, fd00:0:0:5::1/64 via [fd00::9]:4790: host bits',
  );
  expect(() => check(wide, routeRow(net(1), 24, 0))).toThrow('route 0, 10.5.1.0/24 via [fd00::9]:4790: the hop is');
  expect(() => check(wide, [0xfd000000, 0, 0, 0, 129, 6, 0])).toThrow('1 to 128');
  expect(() => check(peerRow(1), routeRow(net(1), 24, 1))).toThrow(
    'route 0, 10.5.1.0/24 via 0.0.0.0:0: there is no peer of its number',
  );
  expect(() => check(peerRow(0), [])).toThrow('peer 0: it has no identity');
  expect(() => check(wide, [0xfd000000, 0, 0, 0, 64, 6, 0])).not.toThrow();
});

test('publish takes nothing but whole rows of 32 bits', () => {
  withTable(table => {
    const none = new Uint32Array(0);
    expect(() => table.publish(new Uint32Array(17), none)).toThrow('18 numbers a peer');
    expect(() => table.publish(none, new Uint32Array(4))).toThrow('7 numbers a route');
    expect(() => Reflect.apply(table.publish, table, [none])).toThrow(TypeError);
    expect(() => Reflect.apply(table.publish, table, [new Uint8Array(18), none])).toThrow(TypeError);
    expect(() => Reflect.apply(table.publish, {}, [none, none])).toThrow(TypeError);
  });
});

test('the memory of a table grows with its peers', () => {
  const sizes = [3, 5000, 65_536].map(count => {
    let bytes = 0;
    withTable(table => {
      expect(reserved(table.routesFd) + reserved(table.countersFd)).toBeLessThan(100_000);
      for (let slot = 0; slot < 2; slot++) publish(table, manyRows(count));
      bytes = reserved(table.routesFd) + reserved(table.countersFd);
    });
    return bytes;
  });
  process.stdout.write(
    `of 3, 5000, 65536 peers: ${sizes.map(bytes => `${Math.round(bytes / 1024)} KiB`).join(', ')}\n`,
  );
  for (const [i, count] of [3, 5000, 65_536].entries()) {
    // In each of two slots a peer and a route, beside a block of what is learnt; indexes of at most 32 bytes a peer.
    const rows = count * (2 * (64 + 24) + 256);
    expect(sizes[i]).toBeGreaterThanOrEqual(rows);
    expect(sizes[i]).toBeLessThan(100_000 + rows + count * 2 * 32);
  }
});

/** A table in files of a file system of that size, as a daemon would adopt it. */
function withSmallMemory(megabytes: number, use: (table: NativeTable, enlarge: () => void) => void): void {
  const directory = `${scratch.directory}/small`;
  const mount = (...options: readonly string[]): unknown => execFileSync('mount', [...options, directory]);
  mkdirSync(directory);
  mount('-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs');
  try {
    withTable(made => {
      const [routesFd = -1, countersFd = -1] = [made.routesFd, made.countersFd].map(fd => {
        // Sparse as the original is.
        const file = `${directory}/${fd}`;
        execFileSync('cp', ['--sparse=always', '/proc/self/fd/3', file], { stdio: ['ignore', 'pipe', 'pipe', fd] });
        return openSync(file, 'r+');
      });
      const table = native().adoptTable(routesFd, countersFd, native().layoutVersion);
      try {
        use(table, () => mount('-o', 'remount,size=64m'));
      } finally {
        table.close();
      }
    });
  } finally {
    execFileSync('umount', [directory]);
  }
}

test('publish when memory is full is ENOSPC: the older table stays, and with memory it goes on', () => {
  withSmallMemory(2, (table, enlarge) => {
    const few = manyRows(3);
    expect(publish(table, few)).toBe(1);
    for (let attempt = 0; attempt < 3; attempt++)
      expect(() => publish(table, manyRows(65_536))).toThrow(
        expect.objectContaining({ code: 'ENOSPC', message: expect.stringContaining("'a table of 65536 peers'") }),
      );
    expect(table.rows()).toEqual(few);
    expect(publish(table, manyRows(5))).toBe(2);
    enlarge();
    expect(publish(table, manyRows(65_536))).toBe(3);
  });
});

test('isBlockZeroed reads what the data process keeps, and takes no memory for it', () => {
  withTable(table => {
    publish(table, manyRows(2));
    const before = reserved(table.countersFd);
    expect(table.isBlockZeroed(0)).toBe(true);
    expect(table.isBlockZeroed(65_535)).toBe(true);
    expect(reserved(table.countersFd)).toBe(before);
    expect(() => table.isBlockZeroed(65_536)).toThrow(TypeError);
    // The blocks are the last part of the memory, 256 bytes each, and begin with the identity.
    const at = fstatSync(table.countersFd).size - 65_535 * 256;
    writeSync(table.countersFd, Buffer.from([1]), 0, 1, at + 15);
    expect([0, 1, 2].map(number => table.isBlockZeroed(number))).toEqual([true, false, true]);
  });
});

test('a closed table throws and closes again', () => {
  const table = native().createTable(scratch.directory);
  table.close();
  table.close();
  expect(() => table.control()).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
});

/** As a data process hands them over: the routes read-only. */
function handedOver(table: NativeTable): readonly [number, number] {
  return [openSync(`/proc/self/fd/${table.routesFd}`, 'r'), openSync(`/proc/self/fd/${table.countersFd}`, 'r+')];
}

test('an adopted table shares the memory; the descriptor handed over may be read-only', () => {
  withTable(table => {
    publish(table, oneRoute);
    const adopted = native().adoptTable(...handedOver(table), native().layoutVersion);
    expect(adopted.rows()).toEqual(oneRoute);
    adopted.setMtu(1300);
    expect(table.identity()?.mtu).toBe(1300);
    adopted.close();
  });
});

test('of another layout only the control words are there', () => {
  withTable(table => {
    table.setIdentity(identity);
    const adopted = native().adoptTable(...handedOver(table), native().layoutVersion + 1);
    expect([adopted.identity(), adopted.rows(), adopted.counters()]).toEqual(
      Array.from({ length: 3 }, () => undefined),
    );
    expect(adopted.isBlockZeroed(0)).toBe(false);
    expect(publish(adopted, oneRoute)).toBe(0);
    adopted.setFence(true);
    adopted.setForwardUntil(77);
    adopted.setDrain(true);
    expect(table.control()).toMatchObject({ generation: 0, fence: true, forwardUntil: 77 });
    expect(table.identity()).toMatchObject({ mtu: 1472 });
    adopted.close();
  });
});

test('a damaged table has no identity, a short one is not mapped', () => {
  withTable(table => {
    publish(table, oneRoute);
    const file = openSync(`/proc/self/fd/${table.routesFd}`, 'r+');
    const counters = openSync(`/proc/self/fd/${table.countersFd}`, 'r+');
    writeFileSync(file, 'XXXX');
    expect(table.identity()).toBeUndefined();
    expect(table.rows()).toBeUndefined();
    table.setDrain(true);
    const short = openSync(`${scratch.directory}/short`, 'w+');
    ftruncateSync(short, 4095);
    for (const version of [native().layoutVersion, native().layoutVersion + 1])
      expect(() => native().adoptTable(short, counters, version)).toThrow(expect.objectContaining({ code: 'EPROTO' }));
    for (const fd of [file, counters, short]) native().closeFd(fd);
  });
});

test('a label too long for the kernel is an error and leaves nothing open', () => {
  expect(() => native().createTable('x'.repeat(300))).toThrow(expect.objectContaining({ code: 'ENAMETOOLONG' }));
});
