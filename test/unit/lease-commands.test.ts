/** The tool's words for reservations and for a planned leave: what it asks of the store, in which order, what it says. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ToolIo } from '../../src/tool/ports.js';
import { runTool } from '../../src/tool/tool.js';
import { TartanError } from '../../src/lib/errors.js';
import { formatIpv4, formatPrefix, parsePrefix } from '../../src/model/ip.js';
import type { BackendInfo } from '../../src/model/lease.js';
import type { ReleasedSubnet } from '../../src/store/release.js';
import type { ReserveResult } from '../../src/store/reservation.js';
import type { ReleaseResult } from '../../src/store/reservation.js';
import { noPorts, noSettings, sampleStatus } from '../support/samples.js';

const seven = parsePrefix('10.5.7.0/24');

interface World {
  readonly calls: string[];
  readonly backends: BackendInfo[];
  network: string | undefined;
  running: boolean;
  etcdDown: boolean;
  daemonHoldsLock: boolean;
  reserved: ReserveResult;
  released: ReleaseResult;
  left: readonly ReleasedSubnet[];
}

let world: World;
let stateDir = '';
beforeEach(() => {
  stateDir = mkdtempSync(join(tmpdir(), `tartan-lease-${process.pid}-`));
  world = {
    calls: [],
    backends: [],
    network: '{"Network":"10.5.0.0/16"}',
    running: false,
    etcdDown: false,
    daemonHoldsLock: false,
    reserved: { kind: 'reserved', subnet: seven, before: 'free' },
    released: { kind: 'free' },
    left: [{ subnet: seven, reserved: false }],
  };
});
afterEach(() => rmSync(stateDir, { recursive: true }));

const unused = async (): Promise<never> => {
  throw new Error('not for these commands');
};

function openWorld(): ToolIo['ports'] {
  const { calls } = world;
  return {
    ...noSettings,
    openStore: async () => ({
      listLeases: unused,
      putNetworkText: unused,
      withdrawFeatures: unused,
      getNetworkText: async () => {
        if (world.etcdDown) throw new TartanError('STORE_UNAVAILABLE', 'etcd did not answer');
        return world.network;
      },
      reserve: async ({ subnet, holder, backend }) => {
        const whose = holder.kind === 'node' ? holder.nodeId : formatIpv4(holder.publicIp);
        calls.push(`reserve ${subnet ? formatPrefix(subnet) : 'any'} for ${whose}`);
        world.backends.push(backend);
        return world.reserved;
      },
      release: async (subnet, force) => {
        calls.push(`release ${formatPrefix(subnet)}${force ? ' by force' : ''}`);
        return world.released;
      },
      releaseNode: async nodeId => {
        calls.push(`leave ${nodeId}`);
        return world.left;
      },
      close: async () => void calls.push('close'),
    }),
    readStatus: async () =>
      world.running ? { kind: 'status', status: sampleStatus } : { kind: 'unreachable', reason: 'there is no socket' },
    withoutForwarding: async (runDir, work) => {
      if (world.daemonHoldsLock) throw new TartanError('DUPLICATE_NODE', 'a running tartand holds the lock');
      calls.push(`stop ${runDir}`);
      const result = await work();
      calls.push('unlock');
      return result;
    },
    withoutDaemon: unused,
    readEvents: unused,
    cleanup: unused,
    openEcho: unused,
    docker: noPorts.docker,
    terminal: noPorts.terminal,
    readWay: noPorts.readWay,
    doctor: noPorts.doctor,
    evidence: noPorts.evidence,
  };
}

async function run(line: string, calledAs = 'tartan'): Promise<{ status: number; out: string; err: string }> {
  let [out, err] = ['', ''];
  const status = await runTool(['/usr/bin/node', `/usr/bin/${calledAs}`, ...line.split(' ')], {
    env: { TARTAN_STATE_DIR: stateDir },
    stdout: text => void (out += text),
    stderr: text => void (err += text),
    stdin: unused,
    isTty: false,
    ports: openWorld(),
  });
  return { status, out, err };
}

function keepNodeId(nodeId: string): void {
  mkdirSync(stateDir, { recursive: true });
  writeFileSync(join(stateDir, 'node-id'), `${nodeId}\n`);
}

describe('reserve', () => {
  it.each([
    ['10.5.7.0/24 --node-id node-b', 'reserve 10.5.7.0/24 for node-b'],
    ['--node-id node-b', 'reserve any for node-b'],
    ['10.5.7.0/24 --public-ip 192.0.2.7', 'reserve 10.5.7.0/24 for 192.0.2.7'],
    ['10.5.7.0/24', 'reserve 10.5.7.0/24 for node-kept'],
  ])('%s asks to %s, by both names of the tool', async (words, asked) => {
    keepNodeId('node-kept');
    expect((await run(`lease reserve ${words}`)).status).toBe(0);
    expect((await run(`reserve ${words}`, 'subnet-lease')).status).toBe(0);
    expect(world.calls).toEqual([asked, 'close', asked, 'close']);
  });

  it('is for the node of the running daemon, and says what became of its lease', async () => {
    world.running = true;
    world.reserved = { kind: 'reserved', subnet: seven, before: 'leased' };
    const outcome = await run('lease reserve');
    expect(outcome.out).toBe('10.5.7.0/24 is reserved for node node-a, which goes on using it\n');
    expect(world.calls[0]).toBe('reserve any for node-a');
  });

  it('as a document', async () => {
    expect(JSON.parse((await run('lease reserve --public-ip 192.0.2.7 -o json')).out)).toEqual({
      apiVersion: 'tartan/v1',
      kind: 'Reservation',
      subnet: '10.5.7.0/24',
      nodeId: null,
      publicIp: '192.0.2.7',
      before: 'free',
    });
  });

  it('a refusal is 1 with its reason and next step', async () => {
    world.reserved = { kind: 'refused', reason: 'it is held by node-c', next: 'choose another' };
    expect(await run('lease reserve --node-id b')).toEqual({
      status: 1,
      out: '',
      err: 'error: it is held by node-c\nnext: choose another\n',
    });
  });

  it.each([
    ['lease reserve 10.5.1.7/24 --node-id b', 64, /host bits set, did you mean 10\.5\.1\.0\/24\?/],
    ['lease reserve 10.5.1.0 --node-id b', 64, /'10\.5\.1\.0' is not an IPv4 prefix/],
    ['lease reserve --public-ip 127.0.0.1', 64, /'127\.0\.0\.1' is not an address of a host/],
    ['lease reserve --public-ip 10.5.0.1', 64, /10\.5\.0\.1 is inside the overlay network/],
    ['lease reserve --public-ip 192.0.2.1 --node-id b', 64, /expected one of them/],
    ['lease reserve', 1, /this host has no node id: .*next: .*--node-id/s],
    ['lease release 10.5.1.7/24', 64, /host bits/],
    ['leave', 1, /this host has no node id/],
  ])('%s is refused before anything is changed', async (line, status, reason) => {
    const outcome = await run(line);
    expect(outcome).toMatchObject({ status, out: '' });
    expect(outcome.err).toMatch(reason);
    expect(world.calls.filter(call => call !== 'close')).toEqual([]);
  });

  it.each(['udp', 'vxlan'])('names no backend for a host not seen yet while the network runs %s', async type => {
    world.network = `{"Network":"10.5.0.0/16","Backend":{"Type":"${type}"}}`;
    expect((await run('lease reserve --public-ip 192.0.2.7')).status).toBe(0);
    expect(world.backends).toEqual([{ type: 'udp', data: undefined }]);
  });

  it('needs a network document', async () => {
    world.network = undefined;
    const outcome = await run('lease reserve --node-id b');
    expect(outcome.status).toBe(1);
    expect(outcome.err).toContain('tartan config set');
  });
});

describe('release', () => {
  it.each<[ReleaseResult, string, RegExp]>([
    [{ kind: 'free' }, '', /^10\.5\.7\.0\/24 is free\n$/],
    [{ kind: 'free' }, ' --force', /^10\.5\.7\.0\/24 is free\n$/],
    [{ kind: 'leased', nodeId: 'b' }, '', /no longer reserved; node b is alive and goes on with an ordinary lease/],
    [{ kind: 'ending', nodeId: 'b', seconds: 60 }, '', /node b did not answer: its lease ends in 60 s.*--force/],
  ])('%j', async (released, words, said) => {
    world.released = released;
    const outcome = await run(`release 10.5.7.0/24${words}`, 'subnet-lease');
    expect(outcome).toMatchObject({ status: 0, err: '' });
    expect(outcome.out).toMatch(said);
    expect(world.calls).toEqual([`release 10.5.7.0/24${words === '' ? '' : ' by force'}`, 'close']);
    expect(JSON.parse((await run('lease release 10.5.7.0/24 -o json')).out)).toMatchObject({
      kind: 'Release',
      state: released.kind,
    });
  });
});

describe('leave', () => {
  beforeEach(() => keepNodeId('node-kept'));

  it('stops the data plane first, releases then, and only then lets a daemon start', async () => {
    const outcome = await run('leave --run-dir /run/x');
    expect(outcome).toEqual({ status: 0, out: 'left 10.5.7.0/24, which is free now\n', err: '' });
    expect(world.calls).toEqual(['stop /run/x', 'leave node-kept', 'unlock', 'close']);
  });

  it('says what stays reserved, and that there was nothing', async () => {
    world.left = [{ subnet: seven, reserved: true }];
    expect((await run('leave')).out).toBe('left 10.5.7.0/24, which stays reserved for this host\n');
    world.left = [];
    expect((await run('leave')).out).toBe('this host had no subnet\n');
    expect(JSON.parse((await run('leave -o json')).out)).toEqual({
      apiVersion: 'tartan/v1',
      kind: 'Leave',
      nodeId: 'node-kept',
      released: [],
    });
  });

  it('releases nothing while a daemon runs, and stops nothing while etcd is away', async () => {
    world.daemonHoldsLock = true;
    expect(await run('leave')).toMatchObject({
      status: 1,
      err: expect.stringContaining('systemctl disable --now tartand'),
    });
    world.etcdDown = true;
    expect((await run('leave')).status).toBe(5);
    expect(world.calls).toEqual(['close', 'close']);
  });
});
