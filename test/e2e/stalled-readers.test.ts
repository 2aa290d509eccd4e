/** Readers that stall: of the log, of the status socket. Nothing of the daemon waits for them. */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { errnoOf } from '../../src/lib/errors.js';
import { openLog } from '../../src/lib/log.js';
import { openLogWriter } from '../../src/lib/log-output.js';
import { Scope } from '../../src/lib/scope.js';
import { ended, startService, until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a'] });
let scope: Scope;
beforeEach(() => {
  scope = new Scope();
});
afterEach(() => scope.close());

/** A pipe: the end to write to blocks, the other one does not. */
function openPipe(name: string): { readonly writer: number; readonly fill: () => void; readonly read: () => string } {
  const path = join(lab().spaces.directory, name);
  execFileSync('mkfifo', [path]);
  const reader = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  const writer = openSync(path, constants.O_WRONLY);
  const read = (): string => {
    const part = Buffer.alloc(1 << 20);
    try {
      return part.toString('latin1', 0, readSync(reader, part));
    } catch (error) {
      if (errnoOf(error) === 'EAGAIN') return '';
      throw error;
    }
  };
  return { writer, fill: () => fill(reader), read };
}

/** Node does not tell it of a socket. */
function descriptorOf(socket: Socket): number {
  const handle: unknown = Reflect.get(socket, '_handle');
  return Number(typeof handle === 'object' && handle !== null && Reflect.get(handle, 'fd'));
}

function fill(fd: number): void {
  for (const size of [4096, 1])
    try {
      for (;;) writeSync(fd, Buffer.alloc(size, '\n'));
    } catch (error) {
      if (errnoOf(error) !== 'EAGAIN') throw error;
    }
}

describe('fault C13: the reader of the log stops reading', () => {
  test('fault C13: lines are dropped, counted, and the count is told when it reads again', async () => {
    const { writer, read } = openPipe('dropping');
    scope.defer('pipe', () => closeSync(writer));
    const output = openLogWriter(writer);
    const log = openLog('info', output);
    const begun = performance.now();
    for (let line = 0; line < 2000; line++) log.info('test.line', 'x'.repeat(100), { line });
    output.flush(100);
    expect(performance.now() - begun).toBeLessThan(3000);
    let text = '';
    await until('the dropped lines are told', () => (text += read()).includes('log.dropped'));
    const events = text
      .trim()
      .split('\n')
      .map(line => JSON.parse(line) as Record<string, unknown>);
    const told = events.find(({ event }) => event === 'log.dropped');
    const lines = events.flatMap(({ line }) => (typeof line === 'number' ? [line] : []));
    // Whole lines, in order, without a gap before the first that was dropped; every other one is counted.
    expect(lines).toEqual(lines.map((_, index) => index));
    expect(lines.length).toBeGreaterThan(300);
    expect(told).toMatchObject({ level: 'warn', lines: 2000 - lines.length });
    log.info('test.line', 'after', { line: -1 });
    await until('the log goes on', () => read().includes('"line":-1'));
  });

  test('fault C13: a reader that is gone does not end the log, and a socket that is full does not stop it', async () => {
    const listener = createServer({ pauseOnConnect: true }).listen(join(lab().spaces.directory, 'journal'));
    scope.defer('listener', () => void listener.close());
    await once(listener, 'listening');
    const accepted = once(listener, 'connection') as Promise<[Socket]>;
    const client = connect(String(listener.address()));
    scope.defer('client', () => void client.destroy());
    const [journal] = await accepted;
    const log = openLog('info', openLogWriter(descriptorOf(client)));
    const begun = performance.now();
    for (let line = 0; line < 20_000; line++) log.info('test.line', 'x'.repeat(100));
    expect(performance.now() - begun).toBeLessThan(3000);
    let text = '';
    journal.on('data', part => (text += part.toString('latin1')));
    journal.resume();
    await until('the dropped lines are told', () => text.includes('log.dropped'));
    const closed = once(journal, 'close');
    journal.destroy();
    await closed;
    for (let line = 0; line < 10; line++) log.info('test.line', 'nobody hears this');
  });

  test('fault C13: the daemon starts, answers and ends while its log is full from the first line on', async () => {
    const host = lab().node('a');
    const { writer, fill, read } = openPipe('daemon');
    fill();
    const daemon = startService(host.daemonCommand({ 'log-level': 'debug' }), writer);
    scope.defer('daemon', () => void daemon.kill('SIGKILL'));
    closeSync(writer);
    await until('ready', async () => (await host.status()).ready);
    expect((await host.tool('status')).status).toBe(0);
    let text = '';
    await until('the first line', () => (text += read()).includes('daemon.starting'));
    await until('the last line', () => (text += read()).includes('daemon.ready'));
    // The last words have their time, and no more.
    fill();
    const again = performance.now();
    daemon.kill('SIGTERM');
    expect(await ended(daemon)).toBe(0);
    expect(performance.now() - again).toBeLessThan(10_000);
  });

  test('fault C13: a daemon that cannot start says so in a full pipe, and ends', async () => {
    const { writer, fill } = openPipe('refused');
    fill();
    const daemon = startService(lab().node('a').daemonCommand({ 'etcd-endpoints': 'nonsense' }), writer);
    scope.defer('daemon', () => void daemon.kill('SIGKILL'));
    closeSync(writer);
    expect(await Promise.race([ended(daemon), delay(10_000)])).toBe(64);
  });
});
