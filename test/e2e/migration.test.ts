/** From flannel's udp backend to tartan: tartand is started while flanneld carries packets, then flanneld is stopped. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, onTestFinished, test } from 'vitest';
import { until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const lab = useLab({ nodes: ['a', 'b'] }, opened => opened.node('b').bringUp());

/** What flanneld holds, and what goes with it: its link, and the UDP port at the host's address. */
const flanneld = `use Socket; use Fcntl;
  sysopen(my $tun, '/dev/net/tun', O_RDWR) or die $!;
  my $name = pack('Z16 s x22', 'flannel0', 0x1001);
  ioctl($tun, 0x400454ca, $name) or die $!;
  socket(my $udp, PF_INET, SOCK_DGRAM, 0) or die $!;
  bind($udp, pack_sockaddr_in(8285, inet_aton($ARGV[0]))) or die $!;
  syswrite(STDOUT, 'up'); sleep 60;`;

/** @returns how long no packet passed, in milliseconds */
async function migrate(): Promise<number> {
  const [a, b] = [lab().node('a'), lab().node('b')];
  const [program = '', ...args] = a.inside(['perl', '-e', flanneld, a.address]);
  const other = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => void other.kill('SIGKILL'));
  const [said] = (await once(other.stdout, 'readable').then(() => [other.stdout.read()])) as [Buffer | null];
  expect(said?.toString()).toBe('up');
  await a.run('ip', 'address', 'add', a.tunnelAddress, 'dev', 'flannel0');
  await a.run('ip', 'link', 'set', 'flannel0', 'up');
  await a.run('ip', 'route', 'add', '10.5.0.0/16', 'dev', 'flannel0');
  await a.startDaemon().waitForEvent('datapath.waiting');
  expect((await a.status()).problems.join()).toMatch(/UDP 192\.0\.2\.1:8285 is taken by another program/);
  await a.addressContainer();
  const flows = [await lab().flow(a, b), await lab().flow(b, a)];
  // By now the other causes of a failed start are tried seldom.
  await until('the lease of a', async () => (await b.peerSubnets()).includes(a.subnet));
  await new Promise(resolve => setTimeout(resolve, 2_000));
  expect((await a.status()).ready).toBe(false);
  const received = (): Promise<readonly number[]> => Promise.all(flows.map(flow => flow.received()));
  expect(await received()).toEqual([0, 0]);
  // What flanneld carries, it carries on.
  expect(await a.run('ip', 'route', 'get', b.containerAddress)).toContain(' dev flannel0 ');
  const began = performance.now();
  other.kill('SIGKILL');
  await until('traffic in both directions', async () => (await received()).every(count => count > 0));
  const gapMs = performance.now() - began;
  await a.daemon.waitForEvent('daemon.ready');
  for (const flow of flows) await flow.stop();
  await a.stopDaemon();
  await a.tool('cleanup');
  return gapMs;
}

test('fault F4: packets pass within 0.2 s after flanneld has let go of its port', async () => {
  lab().node('a').preferSubnet('10.5.40.0/24');
  const gaps: number[] = [];
  // A busy machine may be slow once.
  while (gaps.length < 3 && !gaps.some(ms => ms < 200)) {
    lab().node('a').preferSubnet('10.5.40.0/24');
    gaps.push(await migrate());
  }
  process.stdout.write(`gaps: ${gaps.map(Math.round).join(', ')} ms\n`);
  expect(Math.min(...gaps)).toBeLessThan(200);
});
