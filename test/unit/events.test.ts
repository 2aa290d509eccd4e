/** Events: in memory, on disk, on the status socket, and as `tartan events` shows them. */
import { mkdirSync, mkdtempSync, rmdirSync, rmSync, statSync, writeFileSync, appendFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { EventFile, eventFilePath, readEventFiles } from '../../src/admin/event-file.js';
import { eventListOf, Events, type KeptEvent } from '../../src/admin/events.js';
import { openStatusServer } from '../../src/admin/status-server.js';
import { factValue } from '../../src/lib/fact.js';
import { joinLogs, openRecordLog, silentLog, type Log } from '../../src/lib/log.js';
import { Scope } from '../../src/lib/scope.js';
import { readSince } from '../../src/tool/event-commands.js';
import type { EventsReading, ToolIo } from '../../src/tool/ports.js';
import { readEvents } from '../../src/tool/status-client.js';
import { runTool } from '../../src/tool/tool.js';
import { noPorts, sampleStatus } from '../support/samples.js';

let directory = '';
let scope: Scope;
beforeEach(() => {
  scope = new Scope();
  directory = mkdtempSync(join(tmpdir(), `tartan-events-${process.pid}-`));
});
afterEach(async () => {
  await scope.close();
  rmSync(directory, { recursive: true, force: true });
});

const limits = { fileBytes: 4_000, waitingBytes: 2_000, gatherMs: 5, retryMs: 20 };

interface Life {
  readonly events: Events;
  readonly file: EventFile;
  readonly log: Log;
}

/** One life of a daemon. */
function live(): Life {
  const events = new Events();
  const log = openRecordLog('info', record => events.add(record));
  log.info('daemon.starting', 'before the directory is ours');
  const file = new EventFile(directory, log, limits);
  events.continueFrom(factValue(readEventFiles(directory)) ?? [], event => file.add(event));
  return { events, file, log };
}

const messages = (events: readonly KeptEvent[]): readonly string[] => events.map(({ message }) => message);
const kept = (): readonly KeptEvent[] => factValue(readEventFiles(directory)) ?? [];

describe('in memory', () => {
  it('are the newest records of level info and above, also where the log shows less', () => {
    const events = new Events(3);
    const shown: string[] = [];
    const log = joinLogs([
      openRecordLog('error', ({ message }) => void shown.push(message)),
      openRecordLog('info', record => events.add(record)),
    ]);
    log.debug('a.b', 'zero');
    for (const word of ['one', 'two', 'three'])
      log.info('a.b', word, { subnet: '10.5.1.0/24', revision: 7n, no: undefined });
    log.warn('a.b', 'four');
    log.error('a.b', 'five');
    expect(shown).toEqual(['five']);
    expect(messages(events.listAfter(0).events)).toEqual(['three', 'four', 'five']);
    expect(messages(events.listAfter(4).events)).toEqual(['five']);
    expect(events.listAfter(0)).toMatchObject({ kind: 'EventList', lastId: 5 });
    expect(events.listAfter(0).events[0]).toMatchObject({
      id: 3,
      level: 'info',
      event: 'a.b',
      fields: { subnet: '10.5.1.0/24', revision: '7' },
    });
  });

  it('are bounded each', () => {
    const events = new Events();
    openRecordLog('info', record => events.add(record)).info('a.b', 'x'.repeat(1e6), { subnets: 'y'.repeat(1e6) });
    expect(JSON.stringify(events.listAfter(0)).length).toBeLessThan(3_000);
    expect(events.listAfter(0).events[0]?.fields).toEqual({ omittedBytes: 1_000_014 });
  });
});

describe('on disk', () => {
  it('survive a restart, in order, with numbers that go on', async () => {
    const first = live();
    first.log.warn('lease.altered', 'put right', { subnet: '10.5.1.0/24' });
    await first.file.flush(1000);
    expect(statSync(eventFilePath(directory)).mode & 0o777).toBe(0o600);
    const second = live();
    second.log.info('daemon.ready', 'Docker may start');
    const { events } = second.events.listAfter(0);
    expect(messages(events)).toEqual([
      'before the directory is ours',
      'put right',
      'before the directory is ours',
      'Docker may start',
    ]);
    expect(events.map(({ id }) => id)).toEqual([1, 2, 3, 4]);
    await second.file.flush(1000);
    expect(kept()).toEqual(events);
  });

  it('are written by themselves, a little later', async () => {
    const { log } = live();
    log.info('a.b', 'soon');
    await vi.waitFor(() => expect(messages(kept())).toContain('soon'));
  });

  it('take two files of bounded size', async () => {
    const { file, log } = live();
    for (let i = 0; i < 100; i++) {
      log.info('a.b', `number ${i}`);
      await file.flush(1000);
    }
    const sizes = ['events.jsonl', 'events.1.jsonl'].map(name => statSync(join(directory, name)).size);
    for (const size of sizes) expect(size).toBeLessThanOrEqual(4_000);
    const numbers = kept().map(({ id }) => id);
    expect(numbers.at(-1)).toBe(101);
    expect(numbers).toEqual(numbers.map((_, index) => (numbers[0] ?? 0) + index));
    expect(numbers.length).toBeGreaterThan(30);
  });

  it('a line that a power cut has torn, and junk, are left out', async () => {
    const { file, log } = live();
    await file.flush(1000);
    appendFileSync(eventFilePath(directory), 'junk\n{"id":7}\n{"id":2,"time":"2026-0');
    log.info('a.b', 'after');
    await file.flush(1000);
    expect(messages(kept())).toEqual(['before the directory is ours', 'after']);
  });

  it('a disk that takes nothing is told once, and gets what waited', async () => {
    const inTheWay = eventFilePath(directory);
    mkdirSync(inTheWay);
    const { events, file, log } = live();
    for (let i = 0; i < 3; i++) {
      log.info('a.b', `number ${i}`);
      await file.flush(1000);
    }
    const told = (name: string): readonly string[] =>
      messages(events.listAfter(0).events.filter(({ event }) => event === name));
    expect(told('events.not-kept')).toEqual([expect.stringMatching(/in memory only: .*EISDIR.*--state-dir/)]);
    rmdirSync(inTheWay);
    await vi.waitFor(() => expect(told('events.kept')).toHaveLength(1));
    await file.flush(1000);
    expect(messages(kept())).toEqual(expect.arrayContaining(['number 0', 'number 1', 'number 2']));
    expect(told('events.not-kept')).toHaveLength(1);
  });

  it('what waits for a disk is bounded: the oldest go', async () => {
    mkdirSync(eventFilePath(directory));
    const { file, log } = live();
    for (let i = 0; i < 1000; i++) log.info('a.b', `number ${i}`);
    await file.flush(1000);
    rmdirSync(eventFilePath(directory));
    await file.flush(1000);
    const numbers = messages(kept()).filter(text => text.startsWith('number'));
    expect(numbers.length).toBeLessThan(30);
    expect(numbers.at(-1)).toBe('number 999');
  });

  it('the last words are written before an exit', () => {
    const { file, log } = live();
    log.error('daemon.failed', 'the end');
    file.flushNow();
    expect(messages(kept())).toContain('the end');
    rmSync(directory, { recursive: true });
    log.error('daemon.failed', 'nobody hears this');
    file.flushNow();
  });
});

describe('from the daemon', () => {
  async function serve(events: Events): Promise<void> {
    const server = openStatusServer({
      runDir: directory,
      status: () => sampleStatus,
      eventsAfter: id => events.listAfter(id),
      log: silentLog,
      groupFile: '/nonexistent',
    });
    await scope.own('server', server);
  }

  it('are read, all or those after one; the file while it is away', async () => {
    const { events, file, log } = live();
    log.info('a.b', 'second');
    await serve(events);
    const all = await readEvents(directory, directory, 0);
    expect(all).toEqual({ kind: 'events', unasked: undefined, list: events.listAfter(0) });
    expect(await readEvents(directory, directory, 1)).toMatchObject({ list: { events: [{ message: 'second' }] } });
    await file.flush(1000);
    await scope.close();
    const away = await readEvents(directory, directory, 0);
    expect(away).toMatchObject({ kind: 'events', unasked: expect.stringContaining('no socket') });
    expect(away).toMatchObject({ list: events.listAfter(0) });
  });

  it('say why there are none', async () => {
    const reading = await readEvents(directory, directory, 0);
    expect(reading).toMatchObject({ kind: 'unreachable', reason: expect.stringMatching(/no socket .*has no events/) });
    writeFileSync(join(directory, 'events.1.jsonl'), '');
    mkdirSync(eventFilePath(directory));
    expect(await readEvents(directory, directory, 0)).toMatchObject({ reason: expect.stringContaining('is no file') });
  });
});

describe('tartan events', () => {
  const event = (id: number, level: KeptEvent['level'], message: string): KeptEvent => ({
    id,
    time: new Date(Date.now() - (10 - id) * 3_600_000).toISOString(),
    level,
    event: 'a.b',
    message,
    fields: { subnet: '10.5.1.0/24' },
  });
  const three = [event(1, 'info', 'one'), event(5, 'warn', 'two \u001B[31m'), event(9, 'error', 'three')];

  async function run(
    line: string,
    readings: readonly EventsReading[],
  ): Promise<{ status: number; out: string; err: string }> {
    let [out, err, calls] = ['', '', 0];
    const io: ToolIo = {
      env: { TARTAN_RUN_DIR: '/r', TARTAN_STATE_DIR: '/s' },
      stdout: text => void (out += text),
      stderr: text => void (err += text),
      stdin: noPorts.openStore as never,
      isTty: false,
      ports: {
        ...noPorts,
        readEvents: async () => {
          const reading = readings[calls++];
          if (!reading) throw new Error('the end of the test');
          return reading;
        },
      },
    };
    const status = await runTool(['node', 'tartan', ...line.split(' ')], io);
    return { status, out, err };
  }
  const reading = (events: readonly KeptEvent[], unasked?: string): EventsReading => ({
    kind: 'events',
    list: eventListOf(events),
    unasked,
  });

  it('has a line each: time, level, sentence, without control bytes', async () => {
    const { status, out, err } = await run('events', [reading(three)]);
    expect([status, err]).toEqual([0, '']);
    expect(out.split('\n').map(line => line.replace(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/, 'TIME'))).toEqual([
      'TIME  info   one',
      'TIME  warn   two ?[31m',
      'TIME  error  three',
      '',
    ]);
    expect((await run('events -o wide', [reading(three)])).out).toContain('one  a.b {"subnet":"10.5.1.0/24"}\n');
  });

  it.each([
    ['-n 1', ['three']],
    ['--level warn', ['two', 'three']],
    ['--since 3h', ['three']],
    ['--since 6h --level warn -n 5', ['two', 'three']],
  ])('%s chooses', async (options, expected) => {
    const { out } = await run(`events ${options} -o json`, [reading(three)]);
    const list = JSON.parse(out) as { events: readonly KeptEvent[] };
    expect(list.events.map(({ message }) => message.split(' ')[0])).toEqual(expected);
    expect(list).toMatchObject({ apiVersion: 'tartan/v1', kind: 'EventList' });
  });

  it('says that they are of the state directory when the daemon is away, and that there are none', async () => {
    const away = await run('events', [reading(three, 'there is no socket /r/tartand.sock')]);
    expect(away).toMatchObject({
      status: 0,
      err: expect.stringMatching(/^note: tartand cannot be asked: .*of \/s\n$/),
    });
    const none = await run('events', [{ kind: 'unreachable', reason: 'there is no socket' }]);
    expect(none).toMatchObject({
      status: 4,
      out: '',
      err: expect.stringMatching(/^error: tartand cannot.*\nnext: check/),
    });
  });

  it('follows, over a daemon that is away meanwhile', async () => {
    const later = [event(10, 'info', 'four')];
    const readings = [reading(three), { kind: 'unreachable' as const, reason: 'gone' }, reading([]), reading(later)];
    const { out } = await run('events --follow -n 1 -o json', readings);
    expect(
      out
        .trim()
        .split('\n')
        .map(line => (JSON.parse(line) as KeptEvent).message),
    ).toEqual(['three', 'four']);
  });

  it.each(['1w', 'yesterday', '2026', '-1h', ''])("--since '%s' is refused, with what is expected", text => {
    expect(() => readSince(text, 0)).toThrow(/is no time, expected a duration such as 90s/);
  });

  it('reads durations and times', () => {
    expect(readSince('90s', 100_000)).toBe(10_000);
    expect(readSince('2026-01-31T08:00:00Z', 0)).toBe(Date.UTC(2026, 0, 31, 8));
  });
});
