/** What the tool shows of two real hosts: status, peers, top on a terminal, ping with sizes, and the trace of faults. */
import { expect, test } from 'vitest';
import { openStatusServer } from '../../src/admin/status-server.js';
import { silentLog } from '../../src/lib/log.js';
import { sampleStatus } from '../support/samples.js';
import { attempt, start, ended, run, toolProgram, until, type Outcome } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a', 'b'] }, opened => opened.bringUp());

async function trace(...words: readonly string[]): Promise<{ status: number; lostAt: string | null; text: string }> {
  const { status, stdout } = await lab()
    .node('a')
    .tool('trace', ...words, '-o', 'json');
  const { lostAt, steps } = JSON.parse(stdout) as { lostAt: string | null; steps: readonly { text: string }[] };
  return { status, lostAt, text: steps.at(-1)?.text ?? '' };
}

test('the status begins with the truth, on one screen; peers have a line each', async () => {
  const a = lab().node('a');
  const { stdout } = await a.tool('status');
  expect(stdout).toMatch(/^(ready|impaired), /);
  expect(stdout.split('\n').length).toBeLessThanOrEqual(24);
  const { stdout: peers } = await a.tool('peers');
  expect(peers.split('\n')).toHaveLength(3);
  expect(peers).toContain(lab().node('b').subnet);
});

test('ping has a size and DF: the tunnel carries what it says, and no byte more', async () => {
  const a = lab().node('a');
  const ask = (...words: readonly string[]): Promise<Outcome> => a.tool('ping', '-c', '1', ...words);
  expect(await ask('--size', '1464', '--df')).toMatchObject({ status: 0 });
  const longer = await ask('--size', '1465', '--df');
  expect(longer).toMatchObject({ status: 2 });
  expect(longer.stdout).toMatch(/longer than the MTU of this host's route to it, 1464/);
  expect(await ask('--size', '3000')).toMatchObject({ status: 0 });
});

test('fault U4: the tool asks the running daemon where etcd is', async () => {
  const a = lab().node('a');
  const command = [
    'env',
    '-u',
    'TARTAN_ETCD_ENDPOINTS',
    process.execPath,
    toolProgram,
    'leases',
    '--run-dir',
    a.runDir,
  ];
  expect(await a.run(...command)).toContain(lab().node('b').subnet);
});

test('trace: from a container and from the host, to a peer, to ourselves, to nobody', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const [fromContainer, fromHost, own, outside, nobody, foreign] = await Promise.all([
    trace(b.containerAddress, '--from', a.containerAddress),
    trace(b.containerAddress),
    trace(a.containerAddress),
    trace('198.51.100.1'),
    trace('10.5.250.1'),
    trace(b.containerAddress, '--from', '192.0.2.1'),
  ]);
  expect(fromContainer).toMatchObject({ status: 0, lostAt: null });
  expect(fromHost).toMatchObject({ status: 0, lostAt: null });
  expect(own).toMatchObject({ status: 0, text: expect.stringContaining('br-ct reaches it directly') });
  expect(outside).toMatchObject({ status: 2, lostAt: 'network' });
  expect(nobody).toMatchObject({ status: 2, lostAt: 'lease' });
  expect(foreign).toMatchObject({ status: 2, lostAt: 'source' });
});

test('trace: what takes a packet away is named, one after the other, and nothing when all is healed', async () => {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const way = [b.containerAddress, '--from', a.containerAddress] as const;
  const inject = async (fault: readonly string[], heal: readonly string[], lostAt: string, words: RegExp) => {
    await a.run(...fault);
    const seen = await trace(...way);
    await a.run(...heal);
    expect(seen).toMatchObject({ status: 2, lostAt, text: expect.stringMatching(words) });
  };
  const route = [b.containerAddress, 'dev', 'eth0'];
  await inject(
    ['ip', 'route', 'add', ...route],
    ['ip', 'route', 'del', ...route],
    'route',
    /-> eth0.*leaves the overlay/,
  );
  const rule = ['to', b.containerAddress, 'table', '77', 'priority', '1000'];
  await a.run('ip', 'route', 'add', 'default', 'via', '192.0.2.253', 'table', '77');
  await inject(['ip', 'rule', 'add', ...rule], ['ip', 'rule', 'del', ...rule], 'route', /table 77 by rule 1000/);
  const off = ['sysctl', '-q', '-w', 'net.ipv4.conf.br-ct.forwarding=0'];
  await inject(
    off,
    [...off.slice(0, 3), 'net.ipv4.conf.br-ct.forwarding=1'],
    'route',
    /does not forward it from br-ct/,
  );
  const nft = (hook: string, words: string): readonly string[] => [
    'nft',
    `add table inet t; add chain inet t c { type filter hook ${hook} priority 10; }; add rule inet t c ${words}`,
  ];
  const heal = ['nft', 'delete table inet t'];
  await inject(nft('forward', 'oifname "tartan0" drop'), heal, 'firewall', /forward: nft inet t c: .*drop/);
  await inject(nft('output', 'udp dport { 4790, 8285 } drop'), heal, 'underlay', /drops the packets: nft inet t c/);
  expect(await trace(...way)).toMatchObject({ status: 0, lostAt: null });
});

test('a slow reader of a pipe gets all of a long output', async () => {
  const [peer] = sampleStatus.peers;
  const peers = peer ? Array.from({ length: 5000 }, () => peer) : [];
  const { directory: runDir } = lab().spaces;
  const server = await openStatusServer({ runDir, status: () => ({ ...sampleStatus, peers }), log: silentLog });
  const words = [process.execPath, toolProgram, 'peers', '--run-dir', runDir].join(' ');
  expect(Number(await run(['sh', '-c', `${words} | (sleep 1; wc -l)`]))).toBe(5001);
  // Who wants no more is no error.
  expect(await attempt(['sh', '-c', `${words} | head -n 1`])).toMatchObject({ status: 0, stderr: '' });
  await server.close();
});

test('top keeps the screen of a terminal, and gives it back at Ctrl-C', async () => {
  const a = lab().node('a');
  // Without the exec a shell may stay between, which the interrupt ends too.
  const words = ['exec', process.execPath, toolProgram, 'top', '-i', '0.2', '--run-dir', a.runDir].join(' ');
  const running = start(a.inside(['script', '-qec', words, '/dev/null']));
  let seen = '';
  running.stdout.on('data', part => (seen += String(part)));
  await until('two frames', () => seen.split('packets/s;').length > 4);
  running.stdin.write('\u0003');
  expect(await ended(running)).toBe(0);
  expect(seen).toContain('\u001b[?1049h');
  expect(seen.trimEnd().endsWith('\u001b[?25h\u001b[?1049l')).toBe(true);
  expect(seen).toContain(lab().node('b').subnet);
});
