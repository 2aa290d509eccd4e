/**
 * SIGKILL at any moment of the start, and starts without room, without descriptors: the next start works, and what is
 * there afterwards is what one daemon has. TARTAN_START_KILLS (5) says how many moments are tried.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { Daemon } from '../support/daemon.js';
import { dumpHost } from '../support/host-dump.js';
import type { LabHost } from '../support/lab-host.js';
import { attempt, until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const kills = Number(process.env['TARTAN_START_KILLS'] ?? 5);
const lab = useLab({ nodes: ['a', 'b'] });

async function dataProcesses(host: LabHost): Promise<readonly string[]> {
  const { stdout } = await attempt(['ip', 'netns', 'pids', lab().spaces.name(host.letter)]);
  const names = await Promise.all(
    stdout
      .split('\n')
      .filter(Boolean)
      .map(async pid => `${pid} ${(await attempt(['ps', '-o', 'comm=,stat=', '-p', pid])).stdout.trim()}`),
  );
  return names.filter(name => / tartan-datapath\s+[^ZX]/.test(name));
}

test(
  `killed at ${kills} moments of its start`,
  async () => {
    const host = lab().node('a');
    const before = await dumpHost(host);
    const began = performance.now();
    await host.startDaemon().waitForEvent('daemon.ready');
    const startMs = performance.now() - began;
    await host.stopDaemon();
    const { subnet } = host;
    for (let round = 0; round < kills; round++) {
      // From nothing, and over a data process that goes on.
      if (round % 2 === 0) expect((await host.tool('cleanup')).status).toBe(0);
      const atMs = Math.random() * startMs;
      const victim = host.startDaemon();
      await delay(atMs);
      victim.signal('SIGKILL');
      expect(await victim.end()).toBe('SIGKILL');
      const what = `round ${round}, killed after ${Math.round(atMs)} of ${Math.round(startMs)} ms`;
      await host.startDaemon().waitForEvent('daemon.ready');
      const status = await until('the lease is confirmed', async () => {
        const now = await host.status();
        return now.lease?.state === 'held' && now;
      });
      expect({ ready: status.ready, problems: status.problems, subnet: host.subnet }, what).toEqual({
        ready: true,
        problems: [],
        subnet,
      });
      expect(await dataProcesses(host), what).toHaveLength(1);
      await host.stopDaemon();
    }
    expect((await host.tool('cleanup')).status).toBe(0);
    expect(await dataProcesses(host)).toEqual([]);
    expect(await dumpHost(host)).toBe(before);
  },
  30_000 + kills * 20_000,
);

/** A daemon of host b in a mount namespace of its own, after the script has prepared it. */
function confined(name: string, script: string, flags: Readonly<Record<string, string>>): Daemon {
  const b = lab().node('b');
  const directory = join(lab().spaces.directory, name);
  for (const part of ['run', 'state']) mkdirSync(join(directory, part), { recursive: true });
  writeFileSync(join(directory, 'state/node-id'), 'host-b\n');
  const own = {
    'run-dir': join(directory, 'run'),
    'state-dir': join(directory, 'state'),
    'subnet-file': join(directory, 'subnet.env'),
    'docker-env-file': join(directory, 'docker.env'),
    ...flags,
  };
  const text = `cd ${directory} && ${script} && exec "$@"`;
  const [ip = '', netns = '', exec = '', space = '', ...program] = b.daemonCommand(own);
  const shell = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', text, 'sh'];
  return new Daemon([ip, netns, exec, space, ...shell, ...program], join(directory, 'log'));
}

async function startsClean(name: string): Promise<void> {
  const b = lab().node('b');
  const flags = ['run', 'state'].flatMap(part => [`--${part}-dir`, join(lab().spaces.directory, name, part)]);
  const cleaned = await attempt(
    b.inside([process.execPath, b.program.replace('tartand.js', 'tartan.js'), 'cleanup', ...flags]),
  );
  expect(cleaned.status, cleaned.stderr).toBe(0);
  expect(await dataProcesses(b)).toEqual([]);
  await b.startDaemon().waitForEvent('daemon.ready');
  await b.stopDaemon();
  expect((await b.tool('cleanup')).status).toBe(0);
}

const fill = (part: string): string =>
  `mount -t tmpfs -o size=8k tmpfs ${part} && { echo host-b >${part}/node-id; cat /dev/zero >${part}/full 2>/dev/null; true; }`;

test.each([
  ['a full state directory', 'full-state', fill('state'), {}],
  ['a read-only state directory', 'fixed-state', 'mount --bind state state && mount -o remount,bind,ro state', {}],
  ['a full run directory', 'full-run', fill('run'), {}],
] as const)('%s: it runs', async (_, name, script, flags) => {
  const daemon = confined(name, script, flags);
  await daemon.waitForEvent('daemon.ready');
  daemon.signal('SIGTERM');
  expect(await daemon.end()).toBe(0);
  await startsClean(name);
});

test('no room for the files of Docker: not ready, it says which, and goes on as soon as there is', async () => {
  const name = 'full-env';
  const file = join(lab().spaces.directory, name, 'env/subnet.env');
  const daemon = confined(name, `mkdir env && ${fill('env')}`, { 'subnet-file': file });
  const { msg } = await daemon.waitForEvent('plan.failed');
  expect(msg).toContain(file);
  const inside = ['nsenter', '--mount', '--target', String(daemon.pid)];
  expect((await attempt([...inside, 'test', '-e', file])).status).not.toBe(0);
  expect((await attempt([...inside, 'rm', join(lab().spaces.directory, name, 'env/full')])).status).toBe(0);
  await daemon.waitForEvent('daemon.ready');
  expect((await attempt([...inside, 'cat', file])).stdout).toContain('FLANNEL_SUBNET');
  daemon.signal('SIGTERM');
  await daemon.end();
  await startsClean(name);
});

test('a read-only run directory: it ends and says so', async () => {
  const daemon = confined('fixed-run', 'mount --bind run run && mount -o remount,bind,ro run', {});
  expect(await daemon.end()).not.toBe(0);
  expect(daemon.lastWords()).toMatch(/run.*(EROFS|read-only)/s);
  await startsClean('fixed-run');
});

test('32 descriptors: it runs or it ends, and the next start works', async () => {
  const daemon = confined('few', 'ulimit -n 32', {});
  const ready = daemon.waitForEvent('daemon.ready').then(
    () => 'ready',
    () => 'ended',
  );
  expect(['ready', 'ended']).toContain(await ready);
  process.stdout.write(`32 descriptors: ${await ready}\n`);
  daemon.signal('SIGTERM');
  await daemon.end();
  await startsClean('few');
});
