/** The data process of an earlier commit and that of this tree take over from each other, with their daemons alone. */
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { bothUp, isRunning, Lab, pidOf, until, type Daemon } from '../integration/datapath-lab.js';
import { earlierTree } from '../support/earlier.js';
import { root } from '../support/tools.js';

let lab: Lab;

beforeEach(() => {
  lab = new Lab();
});

afterEach(async () => {
  await lab.close();
});

const open = (): object => ({ runDir: lab.runDir('a'), device: 'tartan0' });

/** Takes over from the data process `old`, first without and then with peers. */
async function takeOver(tree: string, old: number): Promise<Daemon> {
  const daemon = lab.daemon('a', { tree });
  expect(await daemon.call('open', open())).toMatchObject({ adopted: false });
  await daemon.call('start', lab.config('a'));
  expect(lab.dataProcesses('a')).toEqual([old]);
  await daemon.call('forwardUntil', 2 ** 45);
  // Longer than the daemon looks after its process: what it cannot read, it does not take for damaged.
  await delay(1100);
  expect(lab.dataProcesses('a')).toEqual([old]);
  await daemon.call('publish', lab.peers('a'));
  await until(
    'a hand-over',
    () => daemon.state(),
    s => s.pid !== old && s.generationAdopted === 1,
  );
  expect(isRunning(old)).toBe(false);
  return daemon;
}

test('up and down four times with three lanes at 1000 echoes a second: a foreign process goes on until there are peers', async () => {
  // Four queues, as many as the earlier build can receive.
  let { a: daemon } = await bothUp(lab, { lanes: 3 }, { tree: earlierTree }, {});
  const lost = lab.lost(14_000);
  for (const tree of [root, earlierTree, root, earlierTree]) {
    const old = await pidOf(daemon);
    await daemon.kill();
    daemon = await takeOver(tree, old);
  }
  expect((await daemon.state()).threads).toBe(7);
  expect(await lost).toBe(0);
});

test('the control words reach the other one in either direction: fenced', async () => {
  const [first] = await Promise.all([lab.up('a', {}, { tree: earlierTree }), lab.up('b')]);
  lab.configureLink('a');
  lab.configureLink('b');
  let { daemon } = first;
  for (const tree of [root, earlierTree]) {
    const old = await pidOf(daemon);
    await daemon.kill();
    const other = lab.daemon('a', { tree });
    await other.call('open', open());
    await other.call('start', lab.config('a'));
    await other.call('fence', true);
    expect(await lab.lost(20)).toBe(20);
    await other.call('fence', false);
    expect(lab.reaches()).toBe(true);
    expect(lab.dataProcesses('a')).toEqual([old]);
    await other.kill();
    daemon = await takeOver(tree, old);
  }
});

test('a daemon of either kind that dies at any instant of taking over leaves what the next one goes on with', async () => {
  const { a } = await bothUp(lab, {}, { tree: earlierTree });
  await a.kill();
  const lost = lab.lost(20_000);
  for (let round = 0; round < 12; round++) {
    const tree = round % 2 === 0 ? root : earlierTree;
    const victim = lab.daemon('a', { tree });
    await victim.call('open', open());
    await victim.call('start', lab.config('a'));
    await victim.call('publish', lab.peers('a'));
    await delay(Math.random() ** 2 * 60);
    await victim.kill();
    const { daemon } = await lab.up('a', {}, { tree });
    await until(
      'one data process of that build',
      () => daemon.state(),
      s => s.warnings.every(text => !text.includes('of build')) && s.generationAdopted > 0,
    );
    expect(lab.dataProcesses('a')).toEqual([await pidOf(daemon)]);
    await daemon.kill();
  }
  expect(await lost).toBe(0);
});
