/** The addon's single system calls; loopback and a temporary directory are all it needs. */
import { existsSync, readFileSync, symlinkSync } from 'node:fs';
import { expect, test } from 'vitest';
import { native } from '../../src/lib/native.js';
import { perl, until, useScratch } from './datapath-lab.js';

const loopback = 0x7f000001;

const scratch = useScratch();

test('an error has the shape of Node', () => {
  expect(() => native().closeFd(100_000)).toThrow(
    expect.objectContaining({ code: 'EBADF', errno: -9, syscall: 'close', message: expect.stringContaining('EBADF') }),
  );
  expect(() => native().closeFd(-1)).toThrow(TypeError);
  expect(() => native().openUdp(1.5, 0, 1, false)).toThrow(TypeError);
  expect(() => native().tunName(NaN)).toThrow(TypeError);
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
