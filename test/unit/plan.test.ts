/** The plans of several networks of one host as one. */
import { describe, expect, test } from 'vitest';
import { chooseBackend } from '../../src/backend/all.js';
import { parseIpv4, parsePrefix } from '../../src/model/ip.js';
import { parseNetworkConfig } from '../../src/model/network.js';
import { formatRoute, joinPlans, type HostPlan } from '../../src/model/plan.js';
import { emptyPlan, fakeLease } from '../support/fakes.js';

const address = parseIpv4('192.0.2.1');

/** The udp backend's plan, with the name of its link changed. */
function planOf(number: number, device: string): HostPlan {
  const backend = chooseBackend({
    network: parseNetworkConfig(`{"Network":"10.${number}.0.0/16"}`),
    node: { id: 'n', bootId: 'b', publicIp: address, interface: { name: 'eth0', address, mtu: 1500 } },
    ipMasquerade: 'on',
    forwardRules: true,
    engine: 'user' as const,
  });
  const { host } = backend.plan(fakeLease(`10.${number}.1.0/24`, '192.0.2.1', 'n'), [], { forwarding: true });
  return JSON.parse(JSON.stringify(host).replaceAll('tartan0', device)) as HostPlan;
}

/** One line for each network: its links, routes, settings that are not of a link, and devices of the filter. */
function joined(...given: readonly (readonly [string, HostPlan | undefined])[]): readonly string[] {
  const { plans, conflicts } = joinPlans(new Map(given));
  const lines = [...plans].map(([network, { links, routes, sysctls, firewall }]) => {
    const parts = [links.map(({ name }) => name), routes.map(formatRoute)];
    const settings = sysctls.filter(([name]) => !name.includes('.conf.')).map(setting => setting.join('='));
    return [`${network}:`, ...parts.flat(), ...settings, ...firewall.map(({ device }) => `rules of ${device}`)].join(
      ' ',
    );
  });
  return [...lines, ...conflicts];
}

describe('joinPlans', () => {
  const [a, b] = [planOf(5, 'tartan0'), planOf(6, 'tartan1')];
  const ofA =
    'a: tartan0 10.5.0.0/16 metric 4096 unreachable 10.5.0.0/16 metric 0 dev tartan0 net.ipv4.ip_forward=1 rules of tartan0';

  test('one network: its plan, as it is', () => {
    expect(joinPlans(new Map([['a', a]]))).toEqual({ plans: new Map([['a', a]]), conflicts: [] });
    expect(joinPlans(new Map([['a', undefined]]))).toEqual({ plans: new Map(), conflicts: [] });
  });

  test('two networks beside each other: what both want alike stands once', () => {
    expect(joined(['a', a], ['b', b])).toEqual([
      ofA,
      'b: tartan1 10.6.0.0/16 metric 4096 unreachable 10.6.0.0/16 metric 0 dev tartan1 rules of tartan1',
    ]);
    expect(joined(['a', undefined], ['b', b])[0]).toContain('net.ipv4.ip_forward=1');
  });

  test('one link in two networks: the first keeps it, nothing of the other one goes through it', () => {
    expect(joined(['a', a], ['b', planOf(6, 'tartan0')])).toEqual([
      ofA,
      'b: 10.6.0.0/16 metric 4096 unreachable',
      'plan_conflict link tartan0: the networks a and b plan it, a keeps it',
    ]);
    expect(joined(['a', a], ['b', a]).at(-1)).toMatch(/^plan_conflict link tartan0: /);
  });

  test('one route or setting with two values: the first keeps it', () => {
    const device = (name: string): HostPlan => ({
      ...emptyPlan,
      routes: [{ kind: 'device', destination: parsePrefix('10.5.0.0/16'), device: name, metric: 0 }],
      sysctls: [['net.ipv4.ip_forward', name === 'x' ? '1' : '0']],
    });
    expect(joined(['b', device('x')], ['a', device('y')], ['c', device('x')])).toEqual([
      'b: 10.5.0.0/16 metric 0 dev x net.ipv4.ip_forward=1',
      'a:',
      'c:',
      'plan_conflict route 10.5.0.0/16 metric 0: the networks b and a plan it, b keeps it',
      'plan_conflict sysctl net.ipv4.ip_forward: the networks b and a plan it, b keeps it',
    ]);
  });
});
