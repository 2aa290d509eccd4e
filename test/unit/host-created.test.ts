/** What the host adapter would do with created links and their entries, as text: plan against what is there. */
import { describe, expect, test } from 'vitest';
import { diffCreated, diffLink, linkAlias, removeCreated, temporaryName } from '../../src/host/links.js';
import { diffNeighbours } from '../../src/host/neighbours.js';
import type { KernelLink, KernelNeighbour } from '../../src/host/netlink/messages.js';
import { diffRoutes } from '../../src/host/routes.js';
import { parseIpv4, parsePrefix } from '../../src/model/ip.js';
import { withoutLinks, type HostPlan, type LinkPlan } from '../../src/model/plan.js';
import { emptyPlan } from '../support/fakes.js';

const local = parseIpv4('192.0.2.1');
const mac = '02:00:00:00:00:01';
const vx7: LinkPlan = {
  name: 'vx7',
  make: { kind: 'vxlan', vni: 7, port: 8472, local, mac },
  mtu: 1450,
  address: parsePrefix('10.5.1.0/32'),
};
const made: KernelLink = {
  index: 5,
  name: 'vx7',
  mtu: 1450,
  up: true,
  queueLength: 1000,
  kind: 'vxlan',
  alias: 'tartan default',
  mac,
  vxlan: { vni: 7, port: 8472, local, learning: false },
};
const add = 'link add vx7 vxlan id 7 port 8472 local 192.0.2.1 mac 02:00:00:00:00:01';

function textOf(step: { readonly text: string } & object): string {
  return 'reason' in step ? `${step.text}: ${String(step.reason)}` : step.text;
}

describe('created links', () => {
  const createdCase = (links: readonly KernelLink[], plans: readonly LinkPlan[] = [vx7]): string[] => {
    const { steps, conflicts, foreign } = diffCreated(plans, links, linkAlias('default'));
    return [...steps.map(textOf), ...conflicts, ...[...foreign].map(name => `without ${name}`)];
  };

  test('nothing there, or as planned', () => {
    expect(createdCase([])).toEqual([add]);
    expect(createdCase([made])).toEqual([]);
    expect(createdCase([], [{ ...vx7, make: { kind: 'tun' } }])).toEqual([]);
    const anyMac = { ...vx7, make: { kind: 'vxlan', vni: 7, port: 8472, local } } as const;
    expect(createdCase([made], [anyMac])).toEqual([]);
    expect(createdCase([], [anyMac])).toEqual(['link add vx7 vxlan id 7 port 8472 local 192.0.2.1']);
  });

  const { vxlan } = made;
  test.each<[string, Partial<KernelLink>]>([
    ['kind', { kind: 'bridge', vxlan: undefined }],
    ['identifier', { vxlan: vxlan && { ...vxlan, vni: 8 } }],
    ['port', { vxlan: vxlan && { ...vxlan, port: 4789 } }],
    ['source', { vxlan: vxlan && { ...vxlan, local: parseIpv4('192.0.2.7') } }],
    ['no source', { vxlan: vxlan && { ...vxlan, local: undefined } }],
    ['learning', { vxlan: vxlan && { ...vxlan, learning: true } }],
    ['MAC', { mac: '02:00:00:00:00:07' }],
    ['network', { alias: 'tartan other' }],
  ])('of another %s: made again', (_, other) => {
    expect(createdCase([{ ...made, ...other }])).toEqual(['link remove vx7', add]);
  });

  test.each([undefined, 'uplink of tartan default', 'tartan'])('with the alias %s: foreign, named, left', alias => {
    expect(createdCase([{ ...made, alias }])).toEqual([
      'link_conflict vx7: not ours, and has the name of a link of ours',
      'without vx7',
    ]);
    expect(removeCreated([], [{ ...made, alias }])).toEqual([]);
  });

  test('ours that no plan wants are removed, and one that did not get its alias', () => {
    const old = { ...made, index: 6, name: 'vx8', alias: 'tartan other' };
    const half = { ...made, index: 7, name: temporaryName, alias: undefined };
    expect(removeCreated([vx7], [made, old, half]).map(textOf)).toEqual(['link remove vx8', 'link remove tartan-new']);
    expect(removeCreated([{ ...vx7, make: { kind: 'tun' } }], [made]).map(textOf)).toEqual(['link remove vx7']);
  });

  test('MTU, address and state, or no address; without the link nobody else is named', () => {
    const context = {
      protocol: 84,
      overlay: [parsePrefix('0.0.0.0/0')],
      tunQueueLength: 512,
      tunQueueLengthWithoutTso: 5000,
    };
    const fresh = { ...made, mtu: 1500, up: false };
    expect(diffLink(vx7, [fresh], [], context).map(textOf)).toEqual([
      'link set vx7 mtu 1450',
      'address add 10.5.1.0/32 dev vx7',
      'link set vx7 up',
    ]);
    const bare = { ...vx7, address: undefined };
    expect(diffLink(bare, [made], [], context)).toEqual([]);
    expect(diffLink(bare, [], [], context).map(textOf)).toEqual(['link set vx7 up: there is no link vx7']);
    const route = { kind: 'device', destination: parsePrefix('10.5.0.0/16'), device: 'vx7', metric: 0 } as const;
    const routeContext = { protocol: 84, links: new Map(), created: new Set(['vx7']) };
    expect(diffRoutes([route], [], routeContext).steps.map(textOf)).toEqual([
      'route add 10.5.0.0/16 metric 0 dev vx7: there is no link vx7',
    ]);
  });

  test('a plan without a link has nothing that goes through it', () => {
    const destination = parsePrefix('10.5.0.0/16');
    const [gateway, address] = [parseIpv4('10.5.2.0'), parseIpv4('10.5.2.0')];
    const firewall = { network: destination, subnet: destination, forward: true, masquerade: 'on', nftables: false };
    const planOn = (name: string, metric: number): HostPlan => ({
      links: [{ ...vx7, name }],
      neighbours: [{ device: name, address, mac }],
      forwarding: [{ device: name, mac, destination: local }],
      routes: [
        { kind: 'device', destination, device: name, metric },
        { kind: 'gateway', destination, device: name, gateway, metric },
      ],
      sysctls: [[`net.ipv4.conf.${name}.rp_filter`, '2']],
      firewall: [{ ...firewall, device: name, masquerade: 'on' }],
    });
    const [first, other] = [planOn('vx7', 0), planOn('vx8', 1)];
    const unreachable = { kind: 'unreachable', destination, metric: 4096 } as const;
    const both: HostPlan = {
      links: [...first.links, ...other.links],
      neighbours: [...first.neighbours, ...other.neighbours],
      forwarding: [...first.forwarding, ...other.forwarding],
      routes: [...first.routes, unreachable, ...other.routes],
      sysctls: [...first.sysctls, ...other.sysctls],
      firewall: [...first.firewall, ...other.firewall],
    };
    expect(withoutLinks(both, new Set(['vx7']))).toEqual({ ...other, routes: [unreachable, ...other.routes] });
    expect(withoutLinks(both, new Set())).toBe(both);
  });
});

describe('neighbours and forwarding entries', () => {
  const plan: HostPlan = {
    ...emptyPlan,
    neighbours: [{ device: 'vx7', address: parseIpv4('10.5.2.0'), mac }],
    forwarding: [{ device: 'vx7', mac, destination: parseIpv4('192.0.2.2') }],
  };

  /** `neighbour 10.5.2.0 02:00:00:00:00:01 on 5` */
  function entry(text: string): KernelNeighbour {
    const [kind, address = '', lladdr = '', , index, state] = text.split(' ');
    return {
      kind: kind === 'neighbour' ? 'neighbour' : 'forwarding',
      address: parseIpv4(address),
      mac: lladdr,
      linkIndex: Number(index),
      permanent: state !== 'learnt',
    };
  }

  function entryCase(
    have: readonly string[],
    want = plan,
    links: readonly [string, number | undefined][] = [['vx7', 5]],
  ) {
    const { additions, removals } = diffNeighbours(want, have.map(entry), new Map(links));
    return [...additions, ...removals].map(textOf);
  }

  const planned = [`neighbour 10.5.2.0 ${mac} on 5`, `forwarding 192.0.2.2 ${mac} on 5`];

  test('nothing there, or as planned', () => {
    expect(entryCase([])).toEqual([
      `neighbour add 10.5.2.0 lladdr ${mac} dev vx7`,
      `forwarding add ${mac} dst 192.0.2.2 dev vx7`,
    ]);
    expect(entryCase(planned)).toEqual([]);
  });

  test('a peer that moved is replaced, one that left is removed after the others were added', () => {
    expect(entryCase([`neighbour 10.5.2.0 02:00:00:00:00:09 on 5`, `forwarding 192.0.2.9 ${mac} on 5`])).toEqual([
      `neighbour replace 10.5.2.0 lladdr ${mac} dev vx7`,
      `forwarding replace ${mac} dst 192.0.2.2 dev vx7`,
    ]);
    const left = ['neighbour 10.5.3.0 02:00:00:00:00:03 on 5', 'forwarding 192.0.2.3 02:00:00:00:00:03 on 5'];
    expect(entryCase([...left, ...planned.slice(1)])).toEqual([
      `neighbour add 10.5.2.0 lladdr ${mac} dev vx7`,
      'neighbour remove 10.5.3.0 lladdr 02:00:00:00:00:03 dev vx7',
      'forwarding remove 02:00:00:00:00:03 dst 192.0.2.3 dev vx7',
    ]);
  });

  test('what was learnt stays, and so does every entry of another link', () => {
    const others = [`neighbour 192.0.2.9 ${mac} on 2`, `forwarding 192.0.2.9 ${mac} on 2`];
    expect(entryCase([...planned, ...others, 'neighbour 10.5.3.0 02:00:00:00:00:03 on 5 learnt'])).toEqual([]);
  });

  test('on a link that the plan does not create: impossible, by name', () => {
    const elsewhere = { ...emptyPlan, neighbours: [{ device: 'u0', address: local, mac }] };
    expect(entryCase([], elsewhere)).toEqual([
      `neighbour add 192.0.2.1 lladdr ${mac} dev u0: u0 is no link that the plan creates`,
    ]);
    expect(entryCase([], { ...plan, forwarding: [] }, [['vx7', undefined]])).toEqual([
      `neighbour add 10.5.2.0 lladdr ${mac} dev vx7: there is no link vx7`,
    ]);
  });
});
