/** A data process that hangs, as a whole or one thread of it: told, then replaced. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { Lab, pidOf, until, type Daemon, type Host } from './datapath-lab.js';

let lab: Lab;
const daemons = new Map<Host, Daemon>();
/** With the real limits, three seconds and ten, only in `npm run test:long`. */
const hang = process.env['TARTAN_HANG'] === 'real' ? {} : { hang: { tellMs: 1_000, replaceMs: 4_000 } };
const limitMs = 30_000;

beforeAll(async () => {
  lab = new Lab();
  for (const host of ['a', 'b'] as const) {
    daemons.set(host, (await lab.up(host, { ...hang, lanes: 1 })).daemon);
    lab.configureLink(host);
  }
});
afterAll(() => lab.close());

function daemonOf(host: Host): Daemon {
  const daemon = daemons.get(host);
  if (!daemon) throw new Error(`no daemon on ${host}`);
  return daemon;
}

async function replaced(daemon: Daemon, pid: number): Promise<void> {
  const { events } = await until(
    'a replacement',
    () => daemon.state(),
    ({ pid: now, problems }) => now !== undefined && now !== pid && problems.length === 0,
    limitMs,
  );
  expect(events.join()).toMatch(
    new RegExp(`datapath.hangs: data process ${pid} has not answered for \\d+ s: it is killed`),
  );
  await until(
    'traffic',
    () => lab.reaches(),
    seen => seen,
  );
}

/** ptrace(2), whose number is that of this processor. */
const ptrace = process.arch === 'arm64' ? 117 : 101;
/** Seizes and interrupts one thread (PTRACE_SEIZE, PTRACE_INTERRUPT), until it is ended. */
const seize = `syscall(${ptrace}, 0x4206, $ARGV[0] + 0, 0, 0) == 0 && syscall(${ptrace}, 0x4207, $ARGV[0] + 0, 0, 0) == 0
  or die "ptrace: $!"; waitpid($ARGV[0], 0x40000000); syswrite(STDOUT, "stopped"); sleep 60;`;

/** Stops the whole process on a. */
async function stopProcess(): Promise<void> {
  const daemon = daemonOf('a');
  const pid = await pidOf(daemon);
  process.kill(pid, 'SIGSTOP');
  await daemon.call('publish', [...lab.peers('a'), lab.peer(3)]);
  const { problems } = await until(
    'both problems',
    () => daemon.state(),
    ({ problems: seen }) => seen?.length === 2,
    limitMs,
  );
  expect(problems).toEqual([
    expect.stringMatching(`^data process ${pid} has not answered for \\d+ s$`),
    expect.stringMatching(`^data process ${pid} has used table 1 for \\d+ s, and the newest is table 2: `),
  ]);
  await replaced(daemon, pid);
}

/** Stops one thread on the host. */
async function stopThread(host: Host, name: string): Promise<void> {
  const daemon = daemonOf(host);
  const pid = await pidOf(daemon);
  const threads = readdirSync(`/proc/${pid}/task`);
  const thread = threads.find(id => readFileSync(`/proc/${pid}/task/${id}/comm`, 'utf8').trim() === name);
  const tracer = spawn('perl', ['-e', seize, thread ?? 'none'], { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => void tracer.kill());
  await once(tracer.stdout, 'data');
  await replaced(daemon, pid);
}

test('fault N2: a stopped data process, and one stuck thread beside two that work', async () => {
  await Promise.all([stopProcess(), stopThread('b', 'tartan-sparse1')]);
});

test('fault N2: a stuck thread of either direction', async () => {
  await Promise.all([stopThread('a', 'tartan-tx0'), stopThread('b', 'tartan-rx0')]);
});
