/** A data process for which the kernel, or the filter of a container, refuses a system call. */
import { chmodSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { compile, root } from '../support/tools.js';
import { isRunning, Lab, pidOf, run, until } from './datapath-lab.js';

const refuse = join(root, 'native/build/refuse');
let lab: Lab;

beforeAll(() => compile('test/support/refuse.c', refuse));
beforeEach(() => {
  lab = new Lab();
});
afterEach(() => lab.close());

/** A program that starts the data process without these calls (refuse.c). */
function without(...rules: readonly string[]): string {
  const path = `${lab.runDir('a')}-without-${rules.join('-')}`;
  writeFileSync(path, `#!/bin/sh\nexec ${refuse} ${rules.join(' ')} -- ${join(root, 'dist/tartan-datapath')} "$@"\n`);
  chmodSync(path, 0o755);
  return path;
}

test('fault N4: close_range is EPERM, and what was open is closed all the same', async () => {
  const { daemon } = await lab.up('a', { executable: without('close_range=1') });
  expect(readdirSync(`/proc/${await pidOf(daemon)}/fd`)).not.toContain('77');
});

test('fault N17: settings that the kernel refuses are warnings', async () => {
  const [df, tos] = ['setsockopt=1@0,10', 'setsockopt=1@0,1'];
  const { daemon } = await lab.up('a', { executable: without(df, tos), lanes: 1 });
  const { warnings } = await daemon.state();
  expect(warnings).toEqual([
    expect.stringMatching(/^the kernel refuses DF .*IP_MTU_DISCOVER/),
    expect.stringMatching(/^the kernel refuses the TOS .*IP_TOS/),
    expect.stringMatching(/^the path MTU cannot be asked for/),
  ]);
});

test.each([
  ['trap', /died: system call (269|307) is not allowed to it \(SIGSYS\)/, /made system call (269|307), which a filter/],
  ['kill', /died: killed by SIGSYS/, /was killed by SIGSYS: .*filter/],
])('fault N10: a filter of others says %s: the death is named, and is a problem', async (what, died, problem) => {
  const { daemon } = await lab.up('a', { executable: without(`sendmmsg=${what}`) });
  lab.configureLink('a');
  const pid = await pidOf(daemon);
  lab.reaches();
  await until(
    'its death',
    () => isRunning(pid),
    runs => !runs,
  );
  const { events, problems } = await until(
    'another one',
    () => daemon.state(),
    ({ respawns }) => respawns > 0,
  );
  expect(events.join('\n')).toMatch(new RegExp(`data process ${pid} ${died.source}`));
  expect(problems).toEqual([expect.stringMatching(problem)]);
});

test('the death of an ordinary data process is named', async () => {
  const { daemon } = await lab.up('a');
  const pid = await pidOf(daemon);
  process.kill(pid, 'SIGSEGV');
  const { events, problems } = await until(
    'another one',
    () => daemon.state(),
    ({ respawns }) => respawns > 0,
  );
  expect(events).toContain(`datapath.died: data process ${pid} died: killed by SIGSEGV`);
  expect(problems).toEqual([]);
});

/** Versions of libc in which a function was only moved, or was part of the header before. */
const moved = /^(__libc_start_main|fstat|pthread_\w+)@GLIBC_/;

test('fault N4: the programs need no function of libc after 2.31', () => {
  for (const name of ['tartan-datapath', 'tartan.node']) {
    const symbols = run('readelf', '-W', '--dyn-syms', join(root, 'dist', name)).match(/\w+@GLIBC_2\.\d+/g) ?? [];
    expect(symbols.length).toBeGreaterThan(10);
    const newer = symbols.filter(symbol => Number(symbol.split('_2.')[1]) > 31);
    expect(newer.filter(symbol => !moved.test(symbol))).toEqual([]);
  }
});
