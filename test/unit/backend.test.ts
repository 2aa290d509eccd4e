import { expect, it } from 'vitest';
import { chooseBackend } from '../../src/backend/all.js';
import { parseIpv4 } from '../../src/model/ip.js';
import { parseNetworkConfig } from '../../src/model/network.js';
import { formatRoute, probeFeature } from '../../src/model/plan.js';
import { fakeLease, formatTunnelPeer } from '../support/fakes.js';

function context(document: string, mtu = 1500): Parameters<typeof chooseBackend>[0] {
  const address = parseIpv4('192.0.2.1');
  return {
    network: parseNetworkConfig(document),
    node: { id: 'n', bootId: 'b', publicIp: address, interface: { name: 'eth0', address, mtu } },
    ipMasquerade: 'off',
    forwardRules: true,
    engine: 'user' as const,
  };
}

const self = fakeLease('10.5.1.0/24', '192.0.2.1', 'n');

it('the udp plan as text', () => {
  const backend = chooseBackend(context('{"Network":"10.5.0.0/16","Backend":{"Type":"udp","Port":9000}}'));
  const plan = backend.plan(self, [fakeLease('10.5.3.0/24', '192.0.2.3'), fakeLease('10.5.2.0/24', '192.0.2.2')]);
  expect(plan.tunnel?.map(formatTunnelPeer)).toEqual([
    '10.5.2.0/24 via 192.0.2.2:9000',
    '10.5.3.0/24 via 192.0.2.3:9000',
  ]);
  expect(plan.host.routes.map(formatRoute)).toEqual([
    '10.5.0.0/16 metric 4096 unreachable',
    '10.5.0.0/16 metric 0 dev tartan0',
  ]);
  expect(plan.host.links).toEqual([
    { name: 'tartan0', make: { kind: 'tun' }, mtu: 1472, address: { base: self.subnet.base, length: 32 } },
  ]);
  expect(plan.host.sysctls.map(setting => setting.join('='))).toEqual([
    'net.ipv4.conf.tartan0.forwarding=1',
    'net.ipv4.conf.tartan0.accept_redirects=0',
    'net.ipv4.conf.tartan0.send_redirects=0',
    'net.ipv4.conf.tartan0.accept_local=1',
    'net.ipv4.conf.tartan0.rp_filter=2',
    'net.ipv6.conf.tartan0.accept_ra=0',
    'net.ipv6.conf.tartan0.disable_ipv6=1',
  ]);
  expect(plan.host.firewall).toMatchObject([{ device: 'tartan0', forward: true, masquerade: 'off', nftables: false }]);
  expect(backend.announce()).toEqual({ type: 'udp', data: undefined });
});

it('switches forwarding on for the whole host only when it is asked to, and before all else', () => {
  const plan = chooseBackend(context('{"Network":"10.5.0.0/16"}')).plan(self, [], { forwarding: true });
  expect(plan.host.sysctls.map(setting => setting.join('=')).slice(0, 2)).toEqual([
    'net.ipv4.ip_forward=1',
    'net.ipv4.conf.tartan0.forwarding=1',
  ]);
});

const engines = ['user', 'kernel', 'auto'] as const;

it.each([
  [undefined, [1472, 1464, 1464]],
  ['user', [1472, 1472, 1472]],
  ['auto', [1472, 1464, 1464]],
])('Engine %s of the document and the flag give the tunnel its MTU', (engine, mtus) => {
  const document = JSON.stringify({ Network: '10.5.0.0/16', Engine: engine });
  expect(engines.map(flag => chooseBackend({ ...context(document), engine: flag }).mtu)).toEqual(mtus);
});

it('gives peers their kernel engine where both hosts have one port and VNI, and only while ours may send', () => {
  const backend = chooseBackend({
    ...context('{"Network":"10.5.0.0/16","Backend":{"Type":"udp","VNI":7}}'),
    engine: 'auto',
  });
  const lease = fakeLease('10.5.2.0/24', '192.0.2.2');
  const features = [
    { kernel: { port: 4790, vni: 7 } },
    { kernel: { port: 4790, vni: 1 } },
    { kernel: { port: 4789, vni: 7 } },
    { isKernelUnread: true as const },
    {},
  ];
  const kernels = (kernel: 'off' | 'receives' | 'sends'): unknown[] =>
    features.map(one => backend.plan(self, [{ ...lease, features: one }], { kernel }).tunnel?.[0]?.kernel);
  expect(kernels('sends')).toEqual([{ port: 4790, vni: 7 }, undefined, undefined, undefined, undefined]);
  for (const kernel of ['receives', 'off'] as const) expect(new Set(kernels(kernel))).toEqual(new Set([undefined]));
});

it('the firewall part has the rules of the engine kernel as long as it receives', () => {
  const backend = chooseBackend({ ...context('{"Network":"10.5.0.0/16"}'), engine: 'auto' });
  const kernelOf = (kernel: 'off' | 'receives' | 'sends'): unknown =>
    backend.plan(self, [], { kernel }).host.firewall[0]?.kernel;
  const rules = { link: 'tartan-k', local: parseIpv4('192.0.2.1'), port: 4790 };
  expect([kernelOf('off'), kernelOf('receives'), kernelOf('sends')]).toEqual([undefined, rules, rules]);
});

it('asks only hosts whose lease says that they answer probes', () => {
  const backend = chooseBackend(context('{"Network":"10.5.0.0/16"}'));
  const lease = fakeLease('10.5.9.0/24', '192.0.2.9');
  const features = [lease, { ...lease, features: { probe: 1 as const } }].map(
    peer => backend.plan(self, [peer]).tunnel?.[0]?.features,
  );
  expect(features).toEqual([0, probeFeature]);
});

it('a peer is who has the subnet: a node that moved is the same one, another node or address of flannel is not', () => {
  const backend = chooseBackend(context('{"Network":"10.5.0.0/16"}'));
  const identity = (ip: string, nodeId?: string): string | undefined => {
    const lease = { ...fakeLease('10.5.9.0/24', ip), nodeId };
    return backend.plan(self, [lease]).tunnel?.[0]?.identity;
  };
  expect(identity('192.0.2.9', 'n9')).toBe('10.5.9.0/24 n9');
  expect(identity('192.0.2.10', 'n9')).toBe('10.5.9.0/24 n9');
  expect(identity('192.0.2.9', 'n8')).toBe('10.5.9.0/24 n8');
  expect(identity('192.0.2.9')).toBe('10.5.9.0/24 192.0.2.9');
});

it('does not depend on the order of the peers', () => {
  const backend = chooseBackend(context('{"Network":"10.5.0.0/16"}'));
  const peers = [9, 4, 200, 2, 77].map(number => fakeLease(`10.5.${number}.0/24`, `192.0.2.${number}`));
  expect(backend.plan(self, [...peers].reverse())).toEqual(backend.plan(self, peers));
});

it('carries peers of any BackendType, as flannel does', () => {
  const backend = chooseBackend(context('{"Network":"10.5.0.0/16"}'));
  const odd = { ...fakeLease('10.5.9.0/24', '192.0.2.9'), backend: { type: 'host-gw', data: undefined } };
  expect(backend.plan(self, [odd]).tunnel).toHaveLength(1);
});

it.each(['vxlan', 'host-gw', 'wireguard'])('%s is refused with its name', type => {
  expect(() => chooseBackend(context(`{"Network":"10.5.0.0/16","Backend":{"Type":"${type}"}}`))).toThrow(
    `network document: Backend.Type is '${type}', this version runs "udp" only`,
  );
});

it('an interface too small for the tunnel is refused', () => {
  expect(() => chooseBackend(context('{"Network":"10.5.0.0/16"}', 95))).toThrow('MTU 95 of eth0');
  expect(chooseBackend(context('{"Network":"10.5.0.0/16"}', 96)).mtu).toBe(68);
});
