/** The addon's own promises, one system call at a time; loopback and a temporary directory are all it needs. */
import {
  existsSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { expect, test } from 'vitest';
import { native, type NativeTable } from '../../src/lib/native.js';
import { perl, until, useScratch } from './datapath-lab.js';

const loopback = 0x7f000001;
const endpoint = 0xc0000202;
const net = (third: number): number => 10 * 2 ** 24 + 5 * 2 ** 16 + third * 256;

const scratch = useScratch();

function withTable(use: (table: NativeTable) => void): void {
  const table = native().createTable(scratch.directory);
  try {
    use(table);
  } finally {
    table.close();
  }
}

test('an error has the shape of Node', () => {
  expect(() => native().closeFd(100_000)).toThrow(
    expect.objectContaining({ code: 'EBADF', errno: -9, syscall: 'close', message: expect.stringContaining('EBADF') }),
  );
  expect(() => native().closeFd(-1)).toThrow(TypeError);
  expect(() => native().openUdp(1.5, 0, 1, false)).toThrow(TypeError);
  expect(() => native().tunName(NaN)).toThrow(TypeError);
});

test('a table is private, of full size, empty at first, and of that size for ever', () => {
  withTable(table => {
    for (const fd of [table.routesFd, table.countersFd]) {
      const { mode, size, blocks } = fstatSync(fd);
      expect(mode & 0o777).toBe(0o600);
      expect(blocks * 512).toBeGreaterThanOrEqual(size);
      expect(() => ftruncateSync(fd, size - 4096)).toThrow(expect.objectContaining({ code: 'EPERM' }));
      expect(() => ftruncateSync(fd, size + 4096)).toThrow(expect.objectContaining({ code: 'EPERM' }));
    }
    expect(readdirSync(scratch.directory)).toEqual([]);
    expect(table.generation()).toBe(0);
    expect(table.routes()).toEqual(new Uint32Array(0));
    expect(table.identity()).toMatchObject({ mtu: 0 });
    expect(readFileSync(`/proc/self/fdinfo/${table.routesReadOnlyFd}`, 'latin1')).toMatch(/flags:\t0\d*0$/m);
    expect(readlinkSync(`/proc/self/fd/${table.routesFd}`)).toBe(`/memfd:routes:${scratch.directory} (deleted)`);
  });
});

test('publish switches and keeps what the routes say; words and identity come back', () => {
  withTable(table => {
    const routes = new Uint32Array([net(1), 24, endpoint, 8285, net(2), 25, endpoint, 1]);
    const [subnet, publicIp] = [net(9), endpoint];
    const identity = {
      network: net(0),
      networkLength: 16,
      subnet,
      subnetLength: 24,
      publicIp,
      port: 8285,
      flags: 3,
      mtu: 1472,
    };
    expect(table.publish(routes)).toBe(1);
    expect(table.publish(new Uint32Array(0))).toBe(2);
    expect(table.publish(routes)).toBe(3);
    expect(table.routes()).toEqual(routes);
    table.setIdentity(identity);
    table.setMtu(1400);
    table.setFence(true);
    table.setForwardUntil(12_345);
    expect(table.identity()).toEqual({ ...identity, mtu: 1400 });
    expect(table.words()).toEqual({ generation: 3, fence: true, forwardUntil: 12_345 });
  });
});

test('a full table of 65536 routes is taken, one more is not', () => {
  withTable(table => {
    const full = new Uint32Array(4 * 65_536);
    for (let i = 0; i < 65_536; i++) full.set([(11 * 2 ** 24 + i * 256) >>> 0, 24, endpoint + i, 8285], i * 4);
    expect(table.publish(full)).toBe(1);
    expect(table.routes()).toEqual(full);
    expect(() => table.publish(new Uint32Array(4 * 65_537))).toThrow(/65536/);
  });
});

test.each([
  ['host bits', [net(1) + 1, 24, endpoint, 8285], 'route 0, 10.5.1.1/24 via 192.0.2.2:8285: host bits'],
  ['length 0', [0, 0, endpoint, 8285], 'prefix length'],
  ['length 33', [net(1), 33, endpoint, 8285], 'prefix length'],
  ['no hop', [net(1), 24, 0, 8285], 'hop'],
  ['no port', [net(1), 24, endpoint, 0], 'port'],
  ['port 65536', [net(1), 24, endpoint, 65_536], 'port'],
  ['unsorted', [net(2), 24, endpoint, 1, net(1), 24, endpoint, 1], 'route 1, 10.5.1.0/24'],
  ['twice', [net(1), 24, endpoint, 1, net(1), 24, endpoint, 1], 'overlaps'],
  ['overlap', [net(0), 16, endpoint, 1, net(1), 24, endpoint, 1], 'overlaps'],
  ['overlap at the end of the address space', [0xffffff00, 24, endpoint, 1, 0xffffffff, 32, endpoint, 1], 'overlaps'],
])('publish refuses a route with %s and changes nothing', (_, words, message) => {
  withTable(table => {
    table.publish(new Uint32Array([net(7), 24, endpoint, 1]));
    expect(() => table.publish(new Uint32Array(words))).toThrow(
      expect.objectContaining({ name: 'RangeError', message: expect.stringContaining(message) }),
    );
    expect(() => native().checkRoutes(new Uint32Array(words))).toThrow(RangeError);
    expect(table.generation()).toBe(1);
    expect(table.routes()?.[0]).toBe(net(7));
  });
});

test('publish takes nothing but whole routes of 32 bits', () => {
  withTable(table => {
    expect(() => table.publish(new Uint32Array(3))).toThrow(TypeError);
    expect(() => Reflect.apply(table.publish, table, [new Uint8Array(16)])).toThrow(TypeError);
    expect(() => Reflect.apply(table.publish, {}, [new Uint32Array(0)])).toThrow(TypeError);
  });
});

test('a closed table throws and closes again', () => {
  const table = native().createTable(scratch.directory);
  table.close();
  table.close();
  expect(() => table.generation()).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
});

/** As a data process hands them over: the routes read-only. */
function handedOver(table: NativeTable): readonly [number, number] {
  return [openSync(`/proc/self/fd/${table.routesFd}`, 'r'), openSync(`/proc/self/fd/${table.countersFd}`, 'r+')];
}

test('an adopted table shares the memory; the descriptor handed over may be read-only', () => {
  withTable(table => {
    table.publish(new Uint32Array([net(1), 24, endpoint, 8285]));
    const adopted = native().adoptTable(...handedOver(table), native().layoutVersion);
    expect(adopted.routes()).toEqual(table.routes());
    adopted.setMtu(1300);
    expect(table.identity()?.mtu).toBe(1300);
    adopted.close();
  });
});

test('of another layout only the words of the head are there', () => {
  withTable(table => {
    table.setIdentity({
      network: net(0),
      networkLength: 16,
      subnet: net(9),
      subnetLength: 24,
      publicIp: endpoint,
      port: 8285,
      flags: 0,
      mtu: 1472,
    });
    const adopted = native().adoptTable(...handedOver(table), native().layoutVersion + 1);
    expect([adopted.identity(), adopted.routes(), adopted.counters()]).toEqual([undefined, undefined, undefined]);
    expect(adopted.publish(new Uint32Array([net(1), 24, endpoint, 8285]))).toBe(0);
    adopted.setFence(true);
    adopted.setForwardUntil(77);
    adopted.setDrain(true);
    expect(table.words()).toMatchObject({ generation: 0, fence: true, forwardUntil: 77 });
    expect(table.identity()).toMatchObject({ mtu: 1472 });
    adopted.close();
  });
});

test('a damaged table has no identity, a short one is not mapped', () => {
  withTable(table => {
    table.publish(new Uint32Array([net(1), 24, endpoint, 8285]));
    const file = openSync(`/proc/self/fd/${table.routesFd}`, 'r+');
    const counters = openSync(`/proc/self/fd/${table.countersFd}`, 'r+');
    writeFileSync(file, 'XXXX');
    expect(table.identity()).toBeUndefined();
    expect(table.routes()).toBeUndefined();
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

test('openUdp: address and port as asked, a taken port is EADDRINUSE', () => {
  const first = native().openUdp(loopback, 0, 65_536, false);
  const { address, port } = native().udpName(first.fd);
  expect(address).toBe(loopback);
  expect(first.receiveBuffer).toBeGreaterThanOrEqual(65_536);
  expect(() => native().openUdp(loopback, port, 65_536, false)).toThrow(
    expect.objectContaining({ code: 'EADDRINUSE', message: expect.stringContaining(`127.0.0.1:${port}`) }),
  );
  native().closeFd(first.fd);
});

test('lockFile: one holder at a time, no symbolic link', () => {
  const fd = native().lockFile(`${scratch.directory}/lock`);
  expect(fd).toBeTypeOf('number');
  expect(native().lockFile(`${scratch.directory}/lock`)).toBeUndefined();
  native().closeFd(fd ?? -1);
  const again = native().lockFile(`${scratch.directory}/lock`);
  expect(again).toBeTypeOf('number');
  native().closeFd(again ?? -1);
  symlinkSync(`${scratch.directory}/lock`, `${scratch.directory}/link`);
  expect(() => native().lockFile(`${scratch.directory}/link`)).toThrow(expect.objectContaining({ code: 'ELOOP' }));
});

test.each(['path', 'abstract'])('notify sends one datagram (%s)', async kind => {
  const address = kind === 'path' ? `${scratch.directory}/notify` : `@tartan-test-${process.pid}`;
  perl(
    String.raw`my ($name, $file) = @ARGV; $name =~ s/^@/\0/; socket(S, AF_UNIX, SOCK_DGRAM, 0) or die $!;
      bind(S, pack_sockaddr_un($name)) or die $!; exit if fork; alarm 5; recv(S, my $got, 100, 0);
      open(F, '>', "$file.new"); print F $got; close F; rename "$file.new", $file;`,
    address,
    `${scratch.directory}/got`,
  );
  native().notify(address, 'READY=1\nSTATUS=ok');
  await until(
    'a notification',
    () => existsSync(`${scratch.directory}/got`),
    seen => seen,
  );
  expect(readFileSync(`${scratch.directory}/got`, 'utf8')).toBe('READY=1\nSTATUS=ok');
  expect(() => native().notify(`${scratch.directory}/nobody`, 'READY=1')).toThrow(
    expect.objectContaining({ code: 'ENOENT' }),
  );
});

test('bootMs counts on, hasCapability says what is effective', () => {
  const now = native().bootMs();
  expect(Math.abs(now - Number(readFileSync('/proc/uptime', 'latin1').split(' ')[0]) * 1000)).toBeLessThan(1000);
  const effective = /CapEff:\t([0-9a-f]+)/.exec(readFileSync('/proc/self/status', 'latin1'))?.[1];
  const bits = { CAP_NET_ADMIN: 12n, CAP_SETGID: 6n, CAP_SETUID: 7n } as const;
  for (const name of ['CAP_NET_ADMIN', 'CAP_SETGID', 'CAP_SETUID'] as const)
    expect(native().hasCapability(name)).toBe(((BigInt(`0x${effective}`) >> bits[name]) & 1n) === 1n);
  expect(() => Reflect.apply(native().hasCapability, undefined, ['CAP_CHOWN'])).toThrow(TypeError);
});
