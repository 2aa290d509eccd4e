/** Receiving a data process's descriptors: what is not exactly a hello is refused and leaves nothing open. */
import { openSync, readFileSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { adoptProcess } from '../../src/datapath/tun/process.js';
import type { Log } from '../../src/lib/log.js';
import { native, type NativeHello } from '../../src/lib/native.js';
import { root } from '../support/tools.js';
import { perl, until, useScratch } from './datapath-lab.js';

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

/** An entry of the second message; `bytes` of it are more than a reader knows. */
function entry(type: number, descriptors: number, bytes = 8): Buffer {
  const message = Buffer.alloc(Math.max(8, bytes), 0xee);
  message.writeUInt16LE(type, 0);
  message.writeUInt16LE(bytes, 2);
  message.writeUInt32LE(descriptors, 4);
  return message;
}

/** The second message with its head; `count` says how many entries there are. */
function list(entries: readonly Buffer[], count = entries.length): Buffer {
  const head = Buffer.alloc(12);
  for (const [i, word] of [magic, 4, count].entries()) head.writeUInt32LE(word, i * 4);
  return Buffer.concat([head, ...entries]);
}

const magic = 0x4e545254;
const sendmsgCall = { x64: 46, arm64: 211 }[process.arch as 'x64' | 'arm64'];

interface Message {
  readonly bytes: Buffer;
  readonly descriptors: number;
  /** What the first descriptors are of; the others are of /dev/null. */
  readonly files?: readonly string[];
}

/** Answers one connection on datapath.sock with these messages. */
function answerOnce(...messages: readonly Message[]): void {
  perl(
    String.raw`my ($path, $sendmsg, @messages) = @ARGV; socket(S, AF_UNIX, SOCK_SEQPACKET, 0) or die $!;
      bind(S, pack_sockaddr_un($path)) or die $!; listen(S, 1); exit if fork; alarm 5; accept(C, S);
      for (@messages) {
        my ($hex, $count, @files) = split / /; my @open;
        for (@files) { open(my $file, '+<', $_) or die "$_: $!"; push @open, $file; }
        my @fds = map { fileno($_) } @open; push @fds, 0 while @fds < $count;
        my $data = pack('H*', $hex); my $iov = pack('P Q', $data, length $data);
        my $rights = pack('Q l l l*', 16 + 4 * $count, 1, 1, @fds); $rights .= "\0" x (-length($rights) % 8);
        my $header = pack('Q L x4 P Q P Q l x4', 0, 0, $iov, 1, $rights, $count ? length $rights : 0, 0);
        syscall($sendmsg, fileno(C), $header, 0) >= 0 or die $!;
      }
      sleep 1;`,
    `${scratch.directory}/datapath.sock`,
    String(sendmsgCall),
    ...messages.map(({ bytes, descriptors, files = [] }) => [bytes.toString('hex'), descriptors, ...files].join(' ')),
  );
}

const adopt = (): NativeHello => native().adopt(`${scratch.directory}/datapath.sock`, 2000);

/** Closes all descriptors of a hello; how many there are of each kind, the connection left out. */
function closeHello(got: NativeHello): readonly number[] {
  const kinds = [[got.routesFd], [got.countersFd], [got.listenFd], got.tunFds, got.udpFds, got.wakeFds];
  const all = [got.connectionFd, ...kinds.flat()];
  expect(new Set(all).size).toBe(all.length);
  for (const fd of all) native().closeFd(fd);
  return kinds.map(fds => fds.length);
}

const earlier: Message = { bytes: hello(magic, 1, 77, 1, 1, 2, 7), descriptors: 7 };
const first: Message = { bytes: hello(magic, 4, 77, 1, 1, 2, 7), descriptors: 7 };
/** Routes, counters, listener, TUN, UDP, doorbells. */
const known = [entry(1, 1), entry(2, 1), entry(3, 1), entry(4, 1), entry(5, 1), entry(6, 2)];

test('adopt: a whole hello of an earlier layout comes with its descriptors', () => {
  answerOnce(earlier);
  const got = adopt();
  expect(got).toMatchObject({ version: 1, pid: 77, build: 'test' });
  expect(closeHello(got)).toEqual([1, 1, 1, 1, 1, 2]);
});

test('adopt: from layout 4 on the second message counts, and the descriptors of the first are closed', () => {
  const more = [entry(1, 1), entry(2, 1), entry(3, 1), entry(4, 8), entry(5, 8), entry(6, 16)];
  answerOnce(first, { bytes: list(more), descriptors: 35 });
  const got = adopt();
  expect(got).toMatchObject({ version: 4, pid: 77, build: 'test' });
  expect(closeHello(got)).toEqual([1, 1, 1, 8, 8, 16]);
});

test('fault N15: more queues and threads than this build makes are taken over', () => {
  const { lanesMax, queuesMax, threadsMax } = native().limits;
  const made = { queues: lanesMax + 1, threads: 2 * lanesMax + 1 };
  expect([queuesMax, threadsMax]).toEqual([8, 16]);
  for (const [queues, threads] of [
    [made.queues + 1, made.threads + 2],
    [queuesMax, threadsMax],
  ] as const) {
    const count = 3 + 2 * queues + threads;
    const more = [entry(1, 1), entry(2, 1), entry(3, 1), entry(4, queues), entry(5, queues), entry(6, threads)];
    answerOnce(
      { bytes: hello(magic, 5, 77, queues, queues, threads, count), descriptors: count },
      { bytes: list(more), descriptors: count },
    );
    expect(closeHello(adopt())).toEqual([1, 1, 1, queues, queues, threads]);
    rmSync(`${scratch.directory}/datapath.sock`);
  }
});

test('adopt: what a later build adds is ignored: types, longer entries, another order', () => {
  const later = [
    entry(99, 3),
    entry(6, 2, 40),
    entry(5, 1),
    entry(4, 1),
    entry(3, 1, 9),
    entry(0, 1),
    ...known.slice(0, 2),
  ];
  answerOnce({ ...first, bytes: hello(magic, 6, 77, 1, 1, 2, 7) }, { bytes: list(later), descriptors: 11 });
  const got = adopt();
  expect(got.version).toBe(6);
  expect(closeHello(got)).toEqual([1, 1, 1, 1, 1, 2]);
});

test('adopt: a message as long as there may be descriptors in one', () => {
  answerOnce(first, { bytes: list([...known, entry(7, 246)]), descriptors: 253 });
  expect(closeHello(adopt())).toEqual([1, 1, 1, 1, 1, 2]);
});

test.each([
  ['routes', 0],
  ['counters', 1],
  ['listening socket', 2],
  ['TUN queue', 3],
  ['UDP socket', 4],
  ['doorbell', 5],
])('adopt: a second message without %s names it', (name, missing) => {
  const entries = known.filter((_, i) => i !== missing);
  answerOnce(first, { bytes: list([...entries, entry(99, 1)]), descriptors: missing === 5 ? 6 : 7 });
  expect(adopt).toThrow(
    expect.objectContaining({ code: 'EPROTO', message: expect.stringContaining(`which sends no ${name}'`) }),
  );
});

test.each<readonly [string, readonly Buffer[], number]>([
  ['two memories of routes', [...known, entry(1, 1)], 8],
  ['nine TUN queues', [...known, entry(4, 8)], 15],
  ['seventeen doorbells', [...known, entry(6, 15)], 22],
])('adopt: a second message with %s is EPROTO that says so', (_, entries, descriptors) => {
  answerOnce(first, { bytes: list(entries), descriptors });
  expect(adopt).toThrow(expect.objectContaining({ code: 'EPROTO', message: expect.stringContaining('more than') }));
});

test.each<readonly [string, Buffer, number]>([
  ['fewer descriptors than it says', list(known), 6],
  ['more descriptors than it says', list(known), 8],
  ['an entry of no length', list([...known, entry(99, 0, 0)]), 7],
  ['an entry longer than the message', list([...known, entry(99, 0, 500).subarray(0, 60)]), 7],
  ['more entries than there are', list(known, 7), 7],
  ['fewer entries than there are', list(known, 5), 7],
  ['a count that wraps around', list([...known, entry(99, 0xffffffff)]), 7],
  ['another magic', Buffer.concat([Buffer.alloc(4), list(known).subarray(4)]), 7],
  ['half a head', list(known).subarray(0, 11), 7],
  ['more bytes than a reader takes', list([...known, entry(99, 0, 5000)]), 7],
])('adopt: a second message with %s is EPROTO and no descriptor stays', (_, bytes, descriptors) => {
  answerOnce(first, { bytes, descriptors });
  expect(adopt).toThrow(expect.objectContaining({ code: 'EPROTO' }));
});

test('adopt: a hello of layout 4 without a second message is not waited for without end', () => {
  answerOnce(first);
  expect(() => native().adopt(`${scratch.directory}/datapath.sock`, 50)).toThrow(
    expect.objectContaining({ code: 'ETIMEDOUT' }),
  );
});

test('an earlier tartand reads the first message only: its watch of the connection drops the second one', async () => {
  // 60 bytes are what this build sends; a later one sends more than the watch has room for.
  answerOnce(earlier, { bytes: list(known), descriptors: 7 }, { bytes: list([...known, entry(7, 1)]), descriptors: 8 });
  const got = adopt();
  const before = readdirSync('/proc/self/fd').length;
  const seen: (string | undefined)[] = [];
  const watch = native().watch(got.connectionFd, 64, error => seen.push(error));
  await until(
    'both messages',
    () => seen,
    all => all.length >= 2,
  );
  expect(seen.slice(0, 2)).toEqual([undefined, 'EMSGSIZE']);
  // Of the watch itself, and none of those that came.
  expect(readdirSync('/proc/self/fd').length).toBe(before + 1);
  watch.close();
  closeHello(got);
});

test('the recorded memory of layout 3 is foreign: only its control words are read, and they are written where it looks', async () => {
  const recorded = JSON.parse(readFileSync(join(root, 'test/vectors/layout-3.json'), 'utf8'));
  const [routes, counters] = (['routes', 'counters'] as const).map(name => {
    const path = `${scratch.directory}/${name}`;
    writeFileSync(path, '');
    truncateSync(path, recorded.sizes[name]);
    return path;
  });
  const file = openSync(routes ?? '', 'r+');
  for (const [at, hex] of Object.entries<string>(recorded.head)) {
    const bytes = Buffer.from(hex, 'hex');
    writeSync(file, bytes, 0, bytes.length, Number(at));
  }
  const before = readFileSync(routes ?? '');
  answerOnce({
    bytes: Buffer.from(recorded.hello, 'hex'),
    descriptors: recorded.descriptors,
    files: [routes ?? '', counters ?? ''],
  });
  const adopted = await adoptProcess(scratch.directory, logOf([]));
  const { process, tunFds = [], udpFds = [] } = adopted ?? {};
  expect([tunFds.length, udpFds.length]).toEqual([2, 2]);
  expect(process?.hasOurLayout).toBe(false);
  expect(process?.buildDifference).toMatch(
    /^it is of an older layout 3 and of build b17fe5e4e0d2, and this is layout \d+ of build [0-9a-f]{12}$/,
  );
  const { table } = process ?? {};
  expect(table?.control()).toEqual({ generation: 2, fence: true, forwardUntil: 123_456_789 });
  expect([table?.identity(), table?.rows(), table?.counters()]).toEqual(Array.from({ length: 3 }, () => undefined));
  table?.setFence(false);
  table?.setDrain(true);
  table?.setForwardUntil(1);
  table?.setMtu(1400);
  // Of layout 3: MTU at 40, fence at 44, drain at 48, the deadline at 56. Nothing else has changed.
  const expected = Buffer.from(before);
  for (const [at, word] of [
    [40, 1400],
    [44, 0],
    [48, 1],
    [56, 1_000_000],
    [60, 0],
  ] as const)
    expected.writeUInt32LE(word, at);
  expect(readFileSync(routes ?? '').equals(expected)).toBe(true);
  process?.release();
  for (const fd of [file, ...tunFds, ...udpFds]) native().closeFd(fd);
});

/** What a log was told, in the order of telling. */
function logOf(told: string[]): Log {
  const tell = (event: string, text: string): void => void told.push(`${event}: ${text}`);
  return { debug: tell, info: tell, warn: tell, error: tell };
}

test('a data process of another layout whose memories cannot be used is not used, its link and socket are', async () => {
  const later = { ...first, bytes: hello(magic, native().layoutVersion + 1, 77, 1, 1, 2, 7) };
  answerOnce(later, { bytes: list(known), descriptors: 7 });
  const adopted = await adoptProcess(scratch.directory, logOf([]));
  expect(adopted).toMatchObject({ process: undefined });
  const kept = [...(adopted?.tunFds ?? []), ...(adopted?.udpFds ?? [])];
  expect(kept).toHaveLength(2);
  for (const fd of kept) native().closeFd(fd);
});

test('a data process that does not send what is needed is told in the log', async () => {
  const told: string[] = [];
  expect(await adoptProcess(scratch.directory, logOf(told))).toBeUndefined();
  expect(told).toEqual([]);
  answerOnce(first, { bytes: list(known.slice(1)), descriptors: 6 });
  expect(await adoptProcess(scratch.directory, logOf(told))).toBeUndefined();
  expect(told).toEqual([expect.stringMatching(/^datapath\.hello-refused: .*datapath\.sock, which sends no routes'/)]);
});

test.each([
  ['another magic', hello(magic + 1, 1, 77, 1, 1, 2, 7), 7],
  ['fewer descriptors than it says', hello(magic, 1, 77, 1, 1, 2, 7), 6],
  ['more descriptors than it says', hello(magic, 1, 77, 1, 1, 2, 7), 9],
  ['more descriptors than anybody has', hello(magic, 1, 77, 1, 1, 2, 7), 100],
  ['counts that do not add up', hello(magic, 1, 77, 1, 1, 1, 7), 7],
  ['counts that wrap around', hello(magic, 1, 77, 0xffffffff, 3, 2, 7), 7],
  ['no queue', hello(magic, 1, 77, 0, 0, 4, 7), 7],
  ['a longer message', Buffer.concat([hello(magic, 1, 77, 1, 1, 2, 7), Buffer.alloc(1)]), 7],
  ['a shorter message', hello(magic, 1, 77, 1, 1, 2, 7).subarray(0, 63), 7],
])('adopt: a hello with %s is EPROTO and no descriptor stays', (_, bytes, descriptors) => {
  answerOnce({ bytes, descriptors });
  expect(adopt).toThrow(expect.objectContaining({ code: 'EPROTO' }));
});
