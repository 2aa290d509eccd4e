/** The addon's watch threads: what is delivered, what ends them, and that nothing of them stays. */
import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { openSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { builtFile, native } from '../../src/lib/native.js';
import { until, useScratch } from './datapath-lab.js';

const loopback = 0x7f000001;
const scratch = useScratch();

/** An RTM_GETLINK dump: the kernel answers with one or more datagrams. */
function linkDump(): Buffer {
  const message = Buffer.alloc(32);
  message.writeUInt32LE(32, 0);
  message.writeUInt16LE(18, 4);
  message.writeUInt16LE(0x301, 6);
  return message;
}

test('watch: datagrams arrive, a full buffer is ENOBUFS and reading goes on, close is final', async () => {
  const fd = native().netlinkOpen(0, [1], 4096);
  const errors: string[] = [];
  let bytes = 0;
  const watch = native().watch(fd, 65_536, (error, message) => {
    if (error === undefined) bytes += message?.length ?? 0;
    else errors.push(error);
  });
  // While this loop is busy nothing is delivered: first the queue of the watch fills, then the socket.
  for (let i = 0; i < 3000; i++) native().netlinkSend(fd, linkDump());
  await until(
    'an overrun',
    () => errors,
    seen => seen.includes('ENOBUFS'),
  );
  await until(
    'quiet',
    () => bytes,
    seen => seen > 0,
  );
  const soFar = bytes;
  native().netlinkSend(fd, linkDump());
  await until(
    'an answer after it',
    () => bytes,
    seen => seen > soFar,
  );
  expect(new Set(errors)).toEqual(new Set(['ENOBUFS']));
  watch.close();
  watch.close();
  const closed = bytes;
  native().netlinkSend(fd, linkDump());
  await new Promise(resolve => setImmediate(resolve));
  expect(bytes).toBe(closed);
  native().closeFd(fd);
});

test('watch: a datagram longer than the buffer is EMSGSIZE and reading goes on', async () => {
  const socket = createSocket('udp4');
  const { fd } = native().openUdp(loopback, 0, 65_536, false);
  const { port } = native().udpName(fd);
  const seen: string[] = [];
  const watch = native().watch(fd, 4, (error, message) => seen.push(error ?? String(message)));
  socket.send('too long', port, '127.0.0.1');
  await until(
    'the error',
    () => seen,
    all => all.length === 1,
  );
  socket.send('fits', port, '127.0.0.1');
  await until(
    'the next',
    () => seen,
    all => all.length === 2,
  );
  expect(seen).toEqual(['EMSGSIZE', 'fits']);
  watch.close();
  native().closeFd(fd);
  await new Promise<void>(resolve => socket.close(resolve));
});

test('watch: the end of a file is EOF, once and last', async () => {
  writeFileSync(`${scratch.directory}/file`, 'text');
  const fd = openSync(`${scratch.directory}/file`, 'r');
  const seen: string[] = [];
  const watch = native().watch(fd, 64, (error, message) => seen.push(error ?? String(message)));
  await until(
    'the end',
    () => seen,
    all => all.includes('EOF'),
  );
  expect(seen).toEqual(['text', 'EOF']);
  watch.close();
  native().closeFd(fd);
});

/** Runs a script with the addon as `addon` in a Node of its own. */
function script(text: string): string {
  const load = `const addon = require(${JSON.stringify(builtFile('tartan.node'))});`;
  return execFileSync(process.execPath, ['--expose-gc', '-e', `${load}\n${text}`], {
    encoding: 'utf8',
    timeout: 10_000,
  });
}

test('watch: an unref-ed one lets the process end, and a live one does not stop process.exit', () => {
  expect(script('globalThis.w = addon.watch(addon.eventFd(), 8, () => {}); w.unref(); console.log("end")')).toBe(
    'end\n',
  );
  expect(script('globalThis.w = addon.watch(addon.eventFd(), 8, () => {}); console.log("exit"); process.exit(0)')).toBe(
    'exit\n',
  );
});

test('watch: what the listener throws is an uncaught exception', () => {
  const text = `process.on('uncaughtException', error => { console.log(error.message); w.close(); });
    const fd = addon.eventFd(); const w = addon.watch(fd, 8, () => { throw new Error('from the listener'); });
    addon.ring(fd);`;
  expect(script(text)).toBe('from the listener\n');
});

test('what is forgotten is closed by garbage collection: threads, mappings, descriptors', () => {
  const text = `const fs = require('fs'), directory = ${JSON.stringify(scratch.directory)};
    const mapped = () => fs.readFileSync('/proc/self/maps', 'latin1').split(directory).length;
    const count = () => String([fs.readdirSync('/proc/self/fd').length, fs.readdirSync('/proc/self/task').length, mapped()]);
    const eventFds = Array.from({ length: 20 }, () => addon.eventFd());
    const first = count();
    (() => { for (const fd of eventFds) { addon.watch(fd, 8, () => {}); addon.createTable(directory); } })();
    if (count() === first) console.log('nothing was opened');
    const settle = tries => {
      gc();
      if (count() !== first && tries > 0) return setTimeout(settle, 10, tries - 1);
      console.log(count() === first);
      process.exit();
    };
    setTimeout(settle, 10, 200);`;
  expect(script(text)).toBe('true\n');
});
