/** The member `features` of a lease: read with care, written only when something is in it, withdrawn by a splice. */
import { describe, expect, it } from 'vitest';
import {
  formatFeatures,
  parseFeatures,
  whyNotKernel,
  withoutFeatures,
  type Features,
} from '../../src/model/features.js';
import { formatLeaseValue, parseLeaseValue } from '../../src/model/lease.js';

const vxlan = { VNI: 1, VtepMAC: '02:00:00:00:00:01' };
const { probe, inner6, ...rest } = {
  probe: 1,
  inner6: 1,
  kernel: { port: 4790, vni: 1 },
  backends: { vxlan },
} as const;
const whole: Features = { probe, inner6, ...rest };

describe('what is absent or not understood it cannot, that alone', () => {
  it.each<[unknown, Features]>([
    [undefined, {}],
    [null, {}],
    [1, {}],
    [[whole], {}],
    ['probe', {}],
    [{}, {}],
    [whole, whole],
    [{ probe: 1 }, { probe: 1 }],
    [
      { ...whole, probe: 2 },
      { inner6, ...rest },
    ],
    [
      { ...whole, probe: '1' },
      { inner6, ...rest },
    ],
    [
      { ...whole, inner6: true },
      { probe, ...rest },
    ],
    [{ ...whole, later: { x: 1 } }, whole],
    [{ kernel: { port: 4790, vni: 0xffffff, more: 1 } }, { kernel: { port: 4790, vni: 0xffffff } }],
    ...[{ port: 4790 }, { vni: 1 }, { port: 0, vni: 1 }, { port: 65_536, vni: 1 }, { port: 4790, vni: -1 }].map(
      (kernel): [unknown, Features] => [
        { probe: 1, kernel },
        { probe: 1, isKernelUnread: true },
      ],
    ),
    ...[{ port: '4790', vni: 1 }, { port: 4790.5, vni: 1 }, { port: 4790, vni: 0x1000000 }, 2, null, [4790, 1]].map(
      (kernel): [unknown, Features] => [
        { inner6: 1, kernel },
        { inner6: 1, isKernelUnread: true },
      ],
    ),
    [
      { backends: { vxlan, 'host-gw': {}, wireguard: 1, ipip: null, 'a b': {}, '': {} } },
      { backends: { 'host-gw': {}, vxlan } },
    ],
    [{ backends: { vxlan: [1] } }, {}],
    [{ backends: [vxlan] }, {}],
    [
      JSON.parse('{"backends":{"__proto__":{"x":1},"vxlan":{"__proto__":{"y":1}}}}'),
      { backends: { vxlan: JSON.parse('{"__proto__":{"y":1}}') } },
    ],
  ])('%j', (value, expected) => {
    expect(parseFeatures(value)).toEqual(expected);
    expect(Object.values(parseFeatures(value))).not.toContain(undefined);
    // What was not understood is not written again.
    const { isKernelUnread: _, ...written } = expected;
    expect(parseFeatures(formatFeatures(parseFeatures(value)))).toEqual(written);
  });
});

describe('in a lease', () => {
  const plain = '{"PublicIP":"192.0.2.1","PublicIPv6":null,"nodeId":"n","bootId":"b"}';
  const withWhole = `${plain.slice(0, -1)},"features":${JSON.stringify(whole)}}`;

  it('nothing is written for none, so that the text is that of before', () => {
    expect(parseLeaseValue(plain).features).toEqual({});
    expect(formatLeaseValue(parseLeaseValue(plain))).toBe(plain);
    expect(formatLeaseValue({ ...parseLeaseValue(plain), features: { backends: {} } })).toBe(plain);
  });

  it('they are written in one order, whatever the order in which they came', () => {
    const mixed = JSON.stringify({ backends: { vxlan, ipip: {} }, kernel: { vni: 1, port: 4790 }, probe: 1 });
    const lease = parseLeaseValue(`{"FEATURES":${mixed},"PublicIP":"192.0.2.1"}`);
    expect(formatLeaseValue(lease)).toBe(
      `{"PublicIP":"192.0.2.1","PublicIPv6":null,"features":{"probe":1,"kernel":{"port":4790,"vni":1},"backends":{"ipip":{},"vxlan":${JSON.stringify(vxlan)}}}}`,
    );
    expect(formatLeaseValue(parseLeaseValue(withWhole))).toBe(withWhole);
  });

  it('no value of them refuses the lease', () => {
    for (const features of ['0', '"x"', '[]', '{"probe":{"kernel":null}}'])
      expect(parseLeaseValue(`{"PublicIP":"192.0.2.1","features":${features}}`).features).toEqual({});
    const huge = '{"PublicIP":"192.0.2.1","features":{"kernel":{"port":1e400,"vni":1}}}';
    expect(parseLeaseValue(huge).features).toEqual({ isKernelUnread: true });
  });

  it('are withdrawn without a change of anything else', () => {
    expect(withoutFeatures(withWhole)).toBe(plain);
    expect(withoutFeatures(plain)).toBe(plain);
    expect(withoutFeatures('{"features":1, "PublicIP":"192.0.2.1","Features":{"probe":1} ,"x":"\xff","x":1e400}')).toBe(
      '{"PublicIP":"192.0.2.1" ,"x":"\xff","x":1e400}',
    );
  });
});

it.each<[Features, RegExp | undefined]>([
  [{ kernel: { port: 4790, vni: 1 } }, undefined],
  [{}, /its lease does not announce the kernel engine/],
  [{ isKernelUnread: true }, /in a form that this version does not understand/],
  [{ kernel: { port: 4791, vni: 1 } }, /receives on UDP port 4791, and our kernel link sends to port 4790/],
  [{ kernel: { port: 4790, vni: 7 } }, /its VNI is 7 and ours 1: .*Backend\.VNI/],
])('says why packets to %j cannot go by the kernel', (features, reason) => {
  const why = whyNotKernel(features, { port: 4790, vni: 1 });
  if (reason) expect(why).toMatch(reason);
  else expect(why).toBeUndefined();
});
