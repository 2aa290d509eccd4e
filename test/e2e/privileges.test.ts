/**
 * What the running data process may do: nothing. Every thread is asked, not the first alone. And what the daemon needs:
 * no more than the systemd unit grants.
 */
import { readFileSync, readdirSync, readlinkSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { Status } from '../../src/agent/status.js';
import { Daemon } from '../support/daemon.js';
import { attempt, daemonProgram, root, until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a', 'b'] }, opened => opened.node('a').bringUp());

function fields(path: string): Readonly<Record<string, string>> {
  const lines = readFileSync(path, 'utf8').split('\n');
  return Object.fromEntries(lines.map(line => line.split(/:\s+/)).map(([name = '', value = '']) => [name, value]));
}

test('no thread has a capability, a way to get one, or a system call too many', async () => {
  const pid = await lab().node('a').datapathPid();
  const threads = readdirSync(`/proc/${pid}/task`);
  expect(threads.length).toBeGreaterThanOrEqual(2);
  for (const thread of threads) {
    const status = fields(`/proc/${pid}/task/${thread}/status`);
    expect(status).toMatchObject({
      CapInh: '0000000000000000',
      CapPrm: '0000000000000000',
      CapEff: '0000000000000000',
      CapAmb: '0000000000000000',
      NoNewPrivs: '1',
      Seccomp: '2',
    });
    expect(status['Uid']?.split('\t')).not.toContain('0');
    expect(status['Gid']?.split('\t')).not.toContain('0');
    expect(status['Groups']?.trim()).toBe('');
  }
});

test('it holds what it forwards with and nothing else', async () => {
  const pid = await lab().node('a').datapathPid();
  const names = (await lab().node('a').run('ls', '-l', `/proc/${pid}/fd`))
    .split('\n')
    .map(line => line.split(' -> ')[1] ?? '');
  const known = /^$|^\/dev\/null$|^\/dev\/net\/tun$|^socket:|^anon_inode:|^\/memfd:(routes|counters):|^pipe:/;
  expect(names.filter(name => !known.test(name))).toEqual([]);
  expect(names.some(name => name.startsWith('/dev/net/tun'))).toBe(true);
});

test('its routes are mapped for reading only', async () => {
  const pid = await lab().node('a').datapathPid();
  const maps = readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n');
  const routes = maps.filter(line => line.includes('/memfd:routes:'));
  expect(routes.length).toBeGreaterThan(0);
  expect(routes.filter(line => !/ r--[sp] /.test(line))).toEqual([]);
});

test('nobody can take away what both programs have mapped, and its reader cannot open it for writing', async () => {
  const pid = await lab().node('a').datapathPid();
  const held = readdirSync(`/proc/${pid}/fd`).map(fd => `/proc/${pid}/fd/${fd}`);
  const shared = held.filter(path => readlinkSync(path).startsWith('/memfd:'));
  expect(shared).toHaveLength(2);
  for (const path of shared) expect(() => truncateSync(path, 0)).toThrow(expect.objectContaining({ code: 'EPERM' }));
  const routes = shared.find(path => readlinkSync(path).startsWith('/memfd:routes:')) ?? '';
  const asReader = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups', 'sh', '-c'];
  const { status } = await attempt([...asReader, `exec 3<"$0" && exec 4>>/proc/self/fd/3`, routes]);
  expect(status).not.toBe(0);
});

test('fault N5: no process of nobody may stop it, end it or limit it', async () => {
  const pid = await lab().node('a').datapathPid();
  const asNobody = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'];
  for (const command of ['kill -CONT', 'kill -STOP', 'prlimit --nofile=1 --pid', 'kill -KILL']) {
    const { status, stderr } = await attempt([...asNobody, 'sh', '-c', `${command} ${pid}`]);
    expect({ command, status, stderr }).toEqual({
      command,
      status: 1,
      stderr: expect.stringMatching(/not permitted/i),
    });
  }
  expect(await lab().node('a').datapathPid()).toBe(pid);
});

/** Capabilities of the unit, as setpriv(1) names them. */
function granted(): readonly string[] {
  const unit = readFileSync(join(root, 'config/systemd/tartand.service'), 'utf8');
  const names = /^CapabilityBoundingSet=(.*)$/m.exec(unit)?.[1]?.split(' ') ?? [];
  return names.map(name => name.toLowerCase().replace('cap_', ''));
}

/** The status of a daemon with these capabilities, and what the tool says of it; nothing stays of the daemon. */
async function runWith(capabilities: readonly string[]): Promise<{ readonly status: Status; readonly told: string }> {
  const b = lab().node('b');
  const bounds = `--bounding-set=-all,${capabilities.map(name => `+${name}`).join(',')}`;
  const command = ['setpriv', '--no-new-privs', bounds, process.execPath, daemonProgram, ...b.flags()];
  const daemon = new Daemon(b.inside(command), join(b.spaces.directory, 'b-bounded.log'));
  try {
    await daemon.waitForEvent('daemon.ready');
    await b.waitForPeers(1);
    // Flows are steered a moment after the data process began.
    if (capabilities.includes('bpf'))
      await until('flows apart', async () => (await b.status()).datapath?.features.includes('sparse_apart'), 5000);
    const { stdout } = await b.tool('status');
    return { status: await b.status(), told: stdout };
  } finally {
    daemon.signal('SIGTERM');
    await daemon.end();
    await b.tool('cleanup');
  }
}

test('what the systemd unit grants is all that a daemon needs', async () => {
  const { status } = await runWith(granted());
  expect(status.datapath?.features).toContain('sparse_apart');
  expect(status.datapath?.warnings).not.toContainEqual(expect.stringContaining('CAP_'));
  expect(status.datapath?.kernel).toMatchObject({ state: 'on' });
});

test('without CAP_BPF it runs, with a note that sparse flows wait behind bulk ones', async () => {
  expect(granted()).toContain('bpf');
  const { status, told } = await runWith(granted().filter(name => name !== 'bpf'));
  const note = /flows that send little wait behind bulk ones: .*EPERM.*CAP_BPF/;
  expect(status.datapath?.features).not.toContain('sparse_apart');
  expect(status.datapath?.warnings).toContainEqual(expect.stringMatching(note));
  expect(status.datapath?.kernel).toMatchObject({ state: 'unavailable', reason: expect.stringContaining('EPERM') });
  expect(told).toMatch(note);
});
