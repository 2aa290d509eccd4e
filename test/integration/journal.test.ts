/** The journal as a reader: a datagram socket of our own in its place, and the daemon's last words. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openLogOutput } from '../../src/lib/log-output.js';
import { Scope } from '../../src/lib/scope.js';
import { daemonProgram, until } from '../support/tools.js';

let scope: Scope;
let directory = '';
beforeEach(() => {
  scope = new Scope();
  directory = mkdtempSync(join(tmpdir(), `tartan-journal-${process.pid}-`));
  scope.defer('directory', () => rmSync(directory, { recursive: true }));
});
afterEach(() => scope.close());

/** A socket whose owner reads nothing before it is told to. */
async function openReader(path: string): Promise<{ readonly child: ChildProcess; readonly entries: string[] }> {
  const script = String.raw`use Socket; $| = 1; unlink $ARGV[0]; socket(S, AF_UNIX, SOCK_DGRAM, 0) or die $!;
    bind(S, pack_sockaddr_un($ARGV[0])) or die $!; print "bound\n"; <STDIN>;
    while (defined recv(S, my $got, 200000, 0)) { print unpack('H*', $got), "\n" }`;
  const child = spawn('perl', ['-e', script, path], { stdio: ['pipe', 'pipe', 'inherit'] });
  scope.defer('reader', () => void child.kill('SIGKILL'));
  const lines = createInterface({ input: child.stdout });
  await once(lines, 'line');
  const entries: string[] = [];
  lines.on('line', line => entries.push(Buffer.from(line, 'hex').toString()));
  return { child, entries };
}

test('fault C13: a journal that reads nothing is not waited for, and gets the rest and the count later', async () => {
  const path = join(directory, 'socket');
  const { child, entries } = await openReader(path);
  const { log, writer } = openLogOutput('journal', 'info', 1, path);
  const begun = performance.now();
  for (let number = 0; number < 2000; number++) log.info('test.line', 'x'.repeat(100), { number });
  expect(performance.now() - begun).toBeLessThan(2000);
  writer.flush(50);
  child.stdin?.write('read\n');
  await until('the dropped records are told', () => entries.some(entry => entry.includes('EVENT=log.dropped')));
  const numbers = entries.flatMap(entry => [...entry.matchAll(/^NUMBER=(\d+)$/gm)].map(([, digits]) => Number(digits)));
  expect(numbers.length).toBeGreaterThan(20);
  expect(numbers).toEqual(numbers.map((_, index) => index));
  const told = entries.find(entry => entry.includes('EVENT=log.dropped')) ?? '';
  expect(told).toContain(`LINES=${2000 - numbers.length}\n`);
  expect(told).toContain('PRIORITY=4\n');
});

test('a journal that was started anew is found, and one that is gone ends nothing', async () => {
  const path = join(directory, 'socket');
  const { log } = openLogOutput('journal', 'info', 1, path);
  log.info('test.line', 'nobody hears this');
  const first = await openReader(path);
  first.child.stdin?.write('read\n');
  log.info('test.line', 'one\nand two');
  await until('the first', () => first.entries.length === 2);
  expect(first.entries[1]).toContain('LINES=1\n');
  first.child.kill('SIGKILL');
  await once(first.child, 'exit');
  const second = await openReader(path);
  second.child.stdin?.write('read\n');
  log.info('test.line', 'after');
  await until('the second', () => second.entries.length === 1);
  expect(second.entries[0]).toMatch(/^MESSAGE=after\nPRIORITY=6\nSYSLOG_IDENTIFIER=tartand\nEVENT=test\.line\n$/);
});

test('an error at the end is said once in one place, and in both of two', () => {
  const words = [daemonProgram, '--run-dir', '/dev/null/run', '--state-dir', join(directory, 'state')];
  const file = join(directory, 'both');
  const fd = openSync(file, 'a');
  expect(spawnSync(process.execPath, words, { stdio: ['ignore', fd, fd] }).status).toBe(78);
  const said = readFileSync(file, 'utf8');
  expect(said.match(/cannot make \/dev\/null\/run/g)).toHaveLength(1);
  expect(said).toContain('"event":"daemon.failed"');
  const { stdout, stderr } = spawnSync(process.execPath, words, { encoding: 'utf8' });
  expect(stdout).toContain('cannot make /dev/null/run');
  expect(stderr).toMatch(/^tartand: cannot make \/dev\/null\/run/);
});
