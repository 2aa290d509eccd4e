/** Receiving a data process's descriptors: what is not exactly a hello is refused and leaves nothing open. */
import { statSync } from 'node:fs';
import { expect, test } from 'vitest';
import { adoptProcess } from '../../src/datapath/tun/process.js';
import { native } from '../../src/lib/native.js';
import { perl, useScratch } from './datapath-lab.js';

const scratch = useScratch();

test('adopt: nobody there, a stranger that says nothing, a path that is too long', () => {
  const path = `${scratch.directory}/datapath.sock`;
  expect(() => native().adopt(path, 50)).toThrow(expect.objectContaining({ code: 'ENOENT' }));
  const listening = native().listenSeqpacket(path);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(() => native().adopt(path, 50)).toThrow(expect.objectContaining({ code: 'ETIMEDOUT' }));
  native().closeFd(listening);
  expect(() => native().adopt(path, 50)).toThrow(expect.objectContaining({ code: 'ECONNREFUSED' }));
  expect(() => native().adopt(`${scratch.directory}/${'x'.repeat(108)}`, 50)).toThrow(
    expect.objectContaining({ code: 'ENAMETOOLONG' }),
  );
});

/** A hello with the words of struct hello before the build id. */
function hello(...words: readonly number[]): Buffer {
  const message = Buffer.alloc(64);
  for (const [i, word] of words.entries()) message.writeUInt32LE(word, i * 4);
  message.write('test', 28);
  return message;
}

const magic = 0x4e545254;
const sendmsgCall = { x64: 46, arm64: 211 }[process.arch as 'x64' | 'arm64'];

/** Answers one connection on datapath.sock with the message and that many descriptors. */
function answerOnce(message: Buffer, descriptorCount: number): void {
  perl(
    String.raw`my ($path, $hex, $count, $sendmsg) = @ARGV; socket(S, AF_UNIX, SOCK_SEQPACKET, 0) or die $!;
      bind(S, pack_sockaddr_un($path)) or die $!; listen(S, 1); exit if fork; alarm 5; accept(C, S);
      my $data = pack('H*', $hex); my $iov = pack('P Q', $data, length $data);
      my $rights = pack('Q l l l*', 16 + 4 * $count, 1, 1, (0) x $count); $rights .= "\0" x (-length($rights) % 8);
      my $header = pack('Q L x4 P Q P Q l x4', 0, 0, $iov, 1, $rights, $count ? length $rights : 0, 0);
      syscall($sendmsg, fileno(C), $header, 0) >= 0 or die $!; sleep 1;`,
    `${scratch.directory}/datapath.sock`,
    message.toString('hex'),
    String(descriptorCount),
    String(sendmsgCall),
  );
}

test('adopt: a whole hello comes with its descriptors', () => {
  answerOnce(hello(magic, 1, 77, 1, 1, 2, 7), 7);
  const got = native().adopt(`${scratch.directory}/datapath.sock`, 2000);
  expect(got).toMatchObject({ version: 1, pid: 77, build: 'test' });
  expect([got.tunFds.length, got.udpFds.length, got.wakeFds.length]).toEqual([1, 1, 2]);
  const all = [
    got.routesFd,
    got.countersFd,
    got.listenFd,
    got.connectionFd,
    ...got.tunFds,
    ...got.udpFds,
    ...got.wakeFds,
  ];
  expect(new Set(all).size).toBe(8);
  for (const fd of all) native().closeFd(fd);
});

test('adopt: a data process of another layout is not used, its link and socket are', async () => {
  answerOnce(hello(magic, native().layoutVersion + 1, 77, 1, 1, 2, 7), 7);
  const adopted = await adoptProcess(scratch.directory);
  expect(adopted).toMatchObject({ process: undefined });
  const kept = [...(adopted?.tunFds ?? []), ...(adopted?.udpFds ?? [])];
  expect(kept).toHaveLength(2);
  for (const fd of kept) native().closeFd(fd);
});

test.each([
  ['another magic', hello(magic + 1, 1, 77, 1, 1, 2, 7), 7],
  ['fewer descriptors than it says', hello(magic, 1, 77, 1, 1, 2, 7), 6],
  ['more descriptors than it says', hello(magic, 1, 77, 1, 1, 2, 7), 9],
  ['more descriptors than anybody has', hello(magic, 1, 77, 1, 1, 2, 7), 100],
  ['counts that do not add up', hello(magic, 1, 77, 1, 1, 1, 7), 7],
  ['counts that wrap around', hello(magic, 1, 77, 0xffffffff, 3, 2, 7), 7],
  ['a longer message', Buffer.concat([hello(magic, 1, 77, 1, 1, 2, 7), Buffer.alloc(1)]), 7],
  ['a shorter message', hello(magic, 1, 77, 1, 1, 2, 7).subarray(0, 63), 7],
])('adopt: a hello with %s is EPROTO and no descriptor stays', (_, message, count) => {
  answerOnce(message, count);
  expect(() => native().adopt(`${scratch.directory}/datapath.sock`, 2000)).toThrow(
    expect.objectContaining({ code: 'EPROTO' }),
  );
});
