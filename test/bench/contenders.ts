/**
 * What is measured: each contender brings up its own lab and says at which addresses the other host is reached. The
 * literal table below is the whole set; `--build` and `--contender` add to it.
 */
import { commandContender } from './command-contender.js';
import { openKernelEngine } from './kernel-engine.js';
import { address, link, type Lab } from './lab.js';
import { Absent, configureTun, kernelEngine, port, subnets, tunnel, udpMtu, underlayMtu } from './overlay.js';
import type { Contender, Overlay } from './overlay.js';
import { setUnitPriority, type Priority } from './priority.js';
import { program, Running } from './process.js';
import { openTartan } from './tartan.js';

/** No overlay: the hosts route to each other's containers. */
async function openVeth(lab: Lab): Promise<Overlay> {
  for (const side of lab.sides) {
    for (const peer of lab.peersOf(side))
      await lab.ip(side, 'route', 'add', subnets[peer], 'via', address[peer], 'dev', link);
  }
  return { mtu: underlayMtu, subnets, hosts: address, pids: [] };
}

const macs = { a: '02:00:00:00:05:01', b: '02:00:00:00:05:02', c: '02:00:00:00:05:03' } as const;

/** The kernel's, set up as flannel's vxlan backend does it: one route, neighbour and forwarding entry for each peer. */
async function openVxlan(lab: Lab): Promise<Overlay> {
  const mtu = underlayMtu - 50;
  for (const side of lab.sides) {
    const device = ['vx0', 'address', macs[side], 'mtu', String(mtu), 'type', 'vxlan', 'id', '1', 'dev', link];
    await lab.ip(side, 'link', 'add', ...device, 'local', address[side], 'dstport', '8472', 'nolearning');
    await lab.ip(side, 'address', 'add', `${tunnel[side]}/32`, 'dev', 'vx0');
    await lab.ip(side, 'link', 'set', 'vx0', 'up');
    for (const peer of lab.peersOf(side)) {
      await lab.ip(side, 'neighbour', 'add', tunnel[peer], 'lladdr', macs[peer], 'dev', 'vx0', 'nud', 'permanent');
      await lab.run(side, [
        'bridge',
        'fdb',
        'add',
        macs[peer],
        'dev',
        'vx0',
        'dst',
        address[peer],
        'self',
        'permanent',
      ]);
      await lab.ip(side, 'route', 'add', subnets[peer], 'via', tunnel[peer], 'dev', 'vx0', 'onlink');
    }
  }
  return { mtu, subnets, hosts: tunnel, pids: [] };
}

async function openPlain(lab: Lab): Promise<Overlay> {
  if (lab.sides.length > 2) throw new Absent('it joins two hosts');
  const device = 'plain0';
  const pids: number[] = [];
  for (const side of lab.sides) {
    const peers = lab.peersOf(side).map(peer => address[peer]);
    const args = [device, address[side], ...peers, String(port)];
    const process = new Running(lab.on(side, [program('plain'), ...args]));
    await process.line(/^ready$/);
    if (side === 'a') pids.push(process.pid);
    await configureTun(lab, side, device);
  }
  return { mtu: udpMtu, subnets, hosts: tunnel, pids };
}

async function openBuild(lab: Lab, dist: string, priority?: Priority): Promise<Overlay> {
  const tartan = await openTartan(lab, dist);
  const [first = 0, ...others] = tartan.map(({ pid }) => pid);
  if (priority) setUnitPriority(priority, [first, ...others]);
  return { mtu: udpMtu, subnets, hosts: tunnel, pids: [first] };
}

export interface Choice {
  /** Our builds by name; the first is the one that ratios are about. */
  readonly builds: readonly (readonly [name: string, dist: string])[];
  /** The first build with these priorities, too. */
  readonly priorities: readonly Priority[];
  readonly commands: readonly (readonly [name: string, command: string])[];
  readonly without: readonly string[];
}

export function contendersOf(choice: Choice): readonly Contender[] {
  const [[ours, dist] = ['', '']] = choice.builds;
  const all: readonly Contender[] = [
    { name: 'veth', open: openVeth },
    { name: 'vxlan', open: openVxlan },
    { name: 'plain', open: openPlain },
    { name: kernelEngine, open: lab => openKernelEngine(lab, dist) },
    ...choice.builds.map(([name, dist]) => ({ name, open: (lab: Lab) => openBuild(lab, dist) })),
    ...choice.priorities.map(priority => ({
      name: `${ours}-${priority}`,
      open: (lab: Lab) => openBuild(lab, dist, priority),
    })),
    ...choice.commands.map(([name, command]) => commandContender(name, command)),
  ];
  return all.filter(contender => !choice.without.includes(contender.name));
}
