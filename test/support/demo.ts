/**
 * The demo: three hosts in private namespaces, a real etcd, a tartand and a container on each (by real Docker engines
 * when there is a dockerd), and what a user wants to see: who holds what, that everybody reaches everybody, how fast,
 * and that killing a tartand costs nothing. Ctrl-C or a failure at any point leaves nothing behind.
 */
import { messageOf } from '../../src/lib/errors.js';
import { Scope } from '../../src/lib/scope.js';
import { DockerEngine } from './docker-engine.js';
import { Lab } from './lab.js';
import type { LabHost } from './lab-host.js';
import { run, start, startNothingMore, toolProgram } from './tools.js';

const begin = performance.now();
const scope = new Scope((name, error) => say(`removing ${name}: ${messageOf(error)}`));
const keep = process.argv.includes('--keep');
const measureSeconds = 3;

function say(text: string): void {
  const seconds = ((performance.now() - begin) / 1000).toFixed(1).padStart(5);
  process.stdout.write(
    `${text
      .split('\n')
      .map(line => `[${seconds} s] ${line}`)
      .join('\n')}\n`,
  );
}

function show(text: string): void {
  process.stdout.write(`\n${text.trimEnd().replace(/^/gm, '    ')}\n\n`);
}

let ending: number | undefined;

/** The first reason to end decides the exit status. */
async function end(status: number): Promise<never> {
  ending ??= status;
  startNothingMore();
  await scope.close();
  process.exit(ending);
}

for (const [signal, status] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const) {
  process.once(signal, () => {
    say(`${signal}: removing everything`);
    void end(status);
  });
}

async function bringUpHost(host: LabHost): Promise<void> {
  await host.bringUp();
  say(`host ${host.letter}: tartand is ready, subnet ${host.subnet}`);
  if (!host.engine) return;
  await host.startEngine();
  say(`host ${host.letter}: dockerd runs with --bip from docker.env, container 'box' is ${host.containerAddress}`);
}

async function pingMatrix(lab: Lab): Promise<string> {
  const rows = await Promise.all(
    lab.hosts.map(async from => {
      const cells = lab.hosts.map(to => (from === to ? Promise.resolve('-') : roundTrip(from, to)));
      return [`from ${from.letter} ${from.containerAddress}`, ...(await Promise.all(cells))];
    }),
  );
  const head = ['', ...lab.hosts.map(to => `to ${to.containerAddress}`)];
  return [head, ...rows].map(row => row.map(cell => cell.padEnd(20)).join('')).join('\n');
}

async function roundTrip(from: LabHost, to: LabHost): Promise<string> {
  const { status, stdout } = await from.inContainer('busybox', 'ping', '-c', '2', '-W', '2', to.containerAddress);
  const median = /= [0-9.]+\/([0-9.]+)\//.exec(stdout)?.[1];
  if (status !== 0 || median === undefined)
    throw new Error(`no answer from ${to.letter} to ${from.letter}:\n${stdout}`);
  return `${median} ms`;
}

async function throughput(lab: Lab, from: LabHost, to: LabHost): Promise<string> {
  const server = start(lab.spaces.inside(to.containerNamespace, ['iperf3', '-s', '-1', '--forceflush']));
  await new Promise(resolve => server.stdout.once('data', resolve));
  const client = ['iperf3', '-c', to.containerAddress, '-t', String(measureSeconds), '-J'];
  const report = JSON.parse(await run(lab.spaces.inside(from.containerNamespace, client))) as {
    end: { sum_received: { bits_per_second: number } };
  };
  return `${(report.end.sum_received.bits_per_second / 1e9).toFixed(2)} Gbit/s`;
}

async function killUnderTraffic(lab: Lab, victim: LabHost, other: LabHost): Promise<void> {
  const before = victim.subnet;
  const [out, back] = [await lab.flow(victim, other), await lab.flow(other, victim)];
  say(
    `1000 packets a second flow between ${victim.letter} and ${other.letter}, both ways; kill -9 of tartand on ${victim.letter}`,
  );
  await victim.stopDaemon('SIGKILL');
  await victim.startDaemon().waitForEvent('daemon.ready');
  await lab.waitForRoutes();
  const reports = [await out.stop(), await back.stop()];
  for (const { sent, lost, source } of reports) say(`  from ${source}: ${sent} packets sent, ${lost} lost`);
  say(`  host ${victim.letter} has ${victim.subnet} again${victim.subnet === before ? ', the same as before' : ''}`);
  if (victim.subnet !== before || reports.some(({ lost }) => lost > 0))
    throw new Error('packets or the subnet were lost');
}

function explainKeep(lab: Lab): void {
  const [host] = lab.hosts;
  if (!host) return;
  const inside = lab.spaces.inside(host.letter, []).join(' ');
  const container = lab.spaces.inside(host.containerNamespace, []).join(' ');
  say('everything is left running. Look around on host a (b and c likewise):');
  show(
    [
      `${inside} node ${toolProgram} status --run-dir ${host.runDir}`,
      `${inside} node ${toolProgram} leases --etcd-endpoints ${lab.etcd.endpoint} --state-dir ${host.stateDir}`,
      `${inside} ip route`,
      `${container} busybox ping ${lab.hosts[1]?.containerAddress ?? ''}`,
      `tail -f ${lab.spaces.directory}/a.log`,
    ].join('\n'),
  );
  say('Remove it:');
  show(lab.spaces.keep());
}

async function demo(): Promise<void> {
  const docker = DockerEngine.available();
  say('three hosts, an underlay and etcd, each in a private network namespace');
  const lab = await Lab.open(scope, { nodes: ['a', 'b', 'c'], docker });
  say(`etcd runs at ${lab.etcd.endpoint}; the network is 10.5.0.0/16, backend udp`);
  if (!docker) say('no dockerd here: a namespace on a bridge stands for each container');
  await Promise.all(lab.hosts.map(bringUpHost));
  await lab.waitForRoutes();
  const [a, b] = lab.hosts;
  if (!a || !b) throw new Error('the lab has no hosts');
  say('who holds what (tartan leases):');
  show((await a.tool('leases')).stdout);
  say('round trips from container to container:');
  show(await pingMatrix(lab));
  say(`TCP from the container on a to the one on b: ${await throughput(lab, a, b)}`);
  await killUnderTraffic(lab, a, b);
  if (keep) {
    explainKeep(lab);
    process.exit(0);
  }
  say('done, removing everything');
}

try {
  await demo();
  await end(0);
} catch (error) {
  if (ending === undefined) say(`FAILED: ${messageOf(error)}`);
  await end(1);
}
