/** The tool's words for features: what each lease announces, and what of this host is withdrawn. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { TartanError } from '../../src/lib/errors.js';
import type { Features } from '../../src/model/features.js';
import { parsePrefix } from '../../src/model/ip.js';
import type { Withdrawal } from '../../src/store/withdraw-features.js';
import { runTool } from '../../src/tool/tool.js';
import { fakeLease } from '../support/fakes.js';
import { noChanges, noPorts, sampleStatus, unexpected } from '../support/samples.js';

const vxlan = { VNI: 1, VtepMAC: '02:00:00:00:00:01' };
const whole: Features = { probe: 1, inner6: 1, kernel: { port: 4790, vni: 1 }, backends: { vxlan } };
const seven = parsePrefix('10.5.7.0/24');

let calls: string[];
let withdrawals: readonly Withdrawal[];
let running: boolean;
let etcdDown: boolean;
let stateDir: string;

beforeEach(() => {
  stateDir = mkdtempSync(join(tmpdir(), `tartan-features-${process.pid}-`));
  writeFileSync(join(stateDir, 'node-id'), 'node-kept\n');
  [calls, withdrawals, running, etcdDown] = [[], [{ subnet: seven, withdrawn: true, features: whole }], false, false];
});
afterEach(() => rmSync(stateDir, { recursive: true }));

async function run(line: string): Promise<{ status: number; out: string; err: string }> {
  let [out, err] = ['', ''];
  const lease = (subnet: string, nodeId: string | undefined, features: Features) => ({
    ...fakeLease(subnet, '192.0.2.9'),
    nodeId,
    features,
    ttlSeconds: 60,
  });
  const status = await runTool(['/usr/bin/node', '/usr/bin/tartan', 'features', ...line.split(' ')], {
    env: { TARTAN_STATE_DIR: stateDir },
    stdout: text => void (out += text),
    stderr: text => void (err += text),
    stdin: unexpected,
    isTty: false,
    ports: {
      ...noPorts,
      openStore: async () => ({
        ...noChanges,
        getNetworkText: unexpected,
        putNetworkText: unexpected,
        listLeases: async () => {
          if (etcdDown) throw new TartanError('STORE_UNAVAILABLE', 'etcd did not answer');
          const leases = [
            lease('10.5.9.0/24', undefined, {}),
            lease('10.5.7.0/24', 'node-a', whole),
            lease('10.5.8.0/24', 'node-b', { probe: 1 }),
          ];
          return { leases, kept: [], rejected: [] };
        },
        withdrawFeatures: async nodeId => {
          calls.push(`withdraw ${nodeId}`);
          return withdrawals;
        },
        close: async () => void calls.push('close'),
      }),
      readStatus: async () =>
        running ? { kind: 'status', status: sampleStatus } : { kind: 'unreachable', reason: 'there is no socket' },
      withoutDaemon: async (runDir, work) => {
        if (running) throw new TartanError('DUPLICATE_NODE', 'a running tartand holds the lock');
        calls.push(`lock ${runDir}`);
        return work().finally(() => calls.push('unlock'));
      },
    },
  });
  return { status, out, err };
}

describe('show', () => {
  it('lists the features of every lease, by subnet', async () => {
    expect(await run('show')).toEqual({
      status: 0,
      err: '',
      out: [
        'SUBNET       NODE    FEATURES',
        '10.5.7.0/24  node-a  probe, inner6, kernel (port 4790, VNI 1), backend vxlan',
        '10.5.8.0/24  node-b  probe',
        '10.5.9.0/24  -       -',
        '',
      ].join('\n'),
    });
  });

  it('as a document', async () => {
    expect(JSON.parse((await run('show -o json')).out)).toEqual({
      apiVersion: 'tartan/v1',
      kind: 'FeatureList',
      items: [
        { subnet: '10.5.7.0/24', nodeId: 'node-a', features: whole },
        { subnet: '10.5.8.0/24', nodeId: 'node-b', features: { probe: 1 } },
        { subnet: '10.5.9.0/24', nodeId: null, features: {} },
      ],
    });
  });

  it('is 5 while etcd is away', async () => {
    etcdDown = true;
    expect((await run('show')).status).toBe(5);
  });
});

describe('withdraw', () => {
  it('is for the node of this host, while no daemon can start', async () => {
    expect(await run('withdraw --run-dir /run/x')).toEqual({
      status: 0,
      err: '',
      out: 'removed from the lease of 10.5.7.0/24: probe, inner6, kernel (port 4790, VNI 1), backend vxlan\n',
    });
    expect(calls).toEqual(['lock /run/x', 'withdraw node-kept', 'unlock', 'close']);
    await run('withdraw --node-id node-b');
    expect(calls).toContain('withdraw node-b');
  });

  it.each<[readonly Withdrawal[], string]>([
    [[], 'this host has no lease\n'],
    [[{ subnet: seven, withdrawn: false, features: {} }], 'the lease of 10.5.7.0/24 announces no features\n'],
    [
      [{ subnet: seven, withdrawn: true, features: {} }],
      'removed from the lease of 10.5.7.0/24: features that this version does not know\n',
    ],
  ])('says what it found: %#', async (found, out) => {
    withdrawals = found;
    expect(await run('withdraw')).toEqual({ status: 0, err: '', out });
  });

  it('as a document', async () => {
    expect(JSON.parse((await run('withdraw -o json')).out)).toEqual({
      apiVersion: 'tartan/v1',
      kind: 'FeatureWithdrawal',
      nodeId: 'node-kept',
      items: [{ subnet: '10.5.7.0/24', withdrawn: true, features: whole }],
    });
  });

  it('is refused while a daemon runs, which would write them again', async () => {
    running = true;
    const outcome = await run('withdraw');
    expect(outcome).toMatchObject({ status: 1, out: '' });
    expect(outcome.err).toMatch(/^error: .*would write its features again: a running tartand.*\nnext: stop it first/);
    expect(calls).toEqual(['close']);
  });

  it('is refused on a host without a node id, before anything is asked', async () => {
    rmSync(join(stateDir, 'node-id'));
    const outcome = await run('withdraw');
    expect(outcome).toMatchObject({ status: 1, err: expect.stringMatching(/this host has no node id: .*--node-id/s) });
    expect(calls).toEqual([]);
  });
});
