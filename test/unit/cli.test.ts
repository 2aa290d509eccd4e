import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { LeaseListing, StatusReading, ToolIo } from '../../src/tool/ports.js';
import { runTool } from '../../src/tool/tool.js';
import { TartanError } from '../../src/lib/errors.js';
import { parsePrefix } from '../../src/model/ip.js';
import { parseLeaseValue } from '../../src/model/lease.js';
import type { EtcdOptions } from '../../src/store/etcd/options.js';
import { noPorts, noChanges, noSettings, sampleStatus as status } from '../support/samples.js';

const lease = (subnet: string, publicIp: string, nodeId?: string, ttlSeconds: number | null = null, revision = 7n) => ({
  subnet: parsePrefix(subnet),
  ...parseLeaseValue(JSON.stringify({ PublicIP: publicIp, ...(nodeId !== undefined && { nodeId, bootId: 'boot-1' }) })),
  createRevision: revision,
  revision,
  leaseId: ttlSeconds === null ? '0' : '123',
  ttlSeconds,
});

const listing: LeaseListing = {
  leases: [
    lease('10.5.9.0/24', '192.0.2.9', undefined, null, 2n ** 60n),
    lease('10.5.1.0/24', '192.0.2.1', 'node-a', 86_399),
    {
      ...lease('10.5.2.0/24', '192.0.2.2', 'node-b', 61),
      backend: { type: 'vxlan', data: { VNI: 1, VtepMAC: '02:00:00:00:00:01' } },
    },
  ],
  kept: [],
  rejected: [{ key: 'junk\u001b[31m', revision: 3n, reason: 'lease key is not a subnet' }],
};

interface World {
  readonly env: Record<string, string>;
  reading: StatusReading;
  network: string | undefined;
  failure: unknown;
  stdin: string;
  removed: readonly string[];
  left: readonly string[];
  /** What the ports were asked, a line each. */
  readonly calls: string[];
  readonly etcd: EtcdOptions[];
}

let world: World;
let folder = '';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), `tartan-cli-${process.pid}-`));
  const reading: StatusReading = { kind: 'unreachable', reason: 'there is no socket' };
  const env = { TARTAN_STATE_DIR: join(folder, 'state') };
  world = {
    env,
    reading,
    network: undefined,
    failure: undefined,
    stdin: '',
    removed: [],
    left: [],
    calls: [],
    etcd: [],
  };
});
afterEach(() => rmSync(folder, { recursive: true }));

interface Outcome {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

async function run(line: string | readonly string[], calledAs = '/usr/bin/tartan'): Promise<Outcome> {
  const words = typeof line === 'string' ? line.split(' ').filter(word => word !== '') : line;
  let [out, err] = ['', ''];
  const answer = <T>(call: string, value: T): T => {
    world.calls.push(call);
    if (world.failure !== undefined) throw world.failure;
    return value;
  };
  const io: ToolIo = {
    env: world.env,
    stdout: text => void (out += text),
    stderr: text => void (err += text),
    stdin: async () => world.stdin,
    isTty: false,
    ports: {
      openStore: async options => {
        world.etcd.push(options);
        return {
          listLeases: async () => answer('list', listing),
          getNetworkText: async () => answer('get', world.network),
          putNetworkText: async text => answer(`put ${text}`, undefined),
          ...noChanges,
          close: async () => void world.calls.push('close'),
        };
      },
      ...noSettings,
      readStatus: async runDir => {
        world.calls.push(`status ${runDir}`);
        return world.reading;
      },
      openEcho: noPorts.openEcho,
      withoutForwarding: noChanges.release,
      withoutDaemon: noChanges.release,
      readEvents: noChanges.release,
      docker: noPorts.docker,
      terminal: noPorts.terminal,
      readWay: noPorts.readWay,
      doctor: noPorts.doctor,
      evidence: noPorts.evidence,
      cleanup: async ({ flannel, runDir, stateDir }) =>
        answer(`cleanup ${flannel ? 'flannel' : `${runDir} ${stateDir}`}`, {
          removed: world.removed,
          left: world.left,
        }),
    },
  };
  return { status: await runTool(['/usr/bin/node', calledAs, ...words], io), out, err };
}

const json = (outcome: Outcome): unknown => JSON.parse(outcome.out);

describe('leases', () => {
  it('as a table, by subnet', async () => {
    const outcome = await run('leases --node-id node-a');
    expect(outcome).toMatchObject({ status: 0, err: '' });
    expect(outcome.out.split('\n')).toEqual([
      'SUBNET       PUBLIC IP  BACKEND  TTL       NODE    SELF',
      '10.5.1.0/24  192.0.2.1  udp      23h 59m   node-a  *',
      '10.5.2.0/24  192.0.2.2  vxlan    1m 1s     node-b',
      '10.5.9.0/24  192.0.2.9  udp      reserved  -',
      '',
    ]);
    expect(world.calls).toEqual(['list', 'close']);
  });

  it('wide, with what is not a lease on stderr and without its control bytes', async () => {
    const outcome = await run('leases -o wide --node-id=node-b');
    expect(outcome.status).toBe(0);
    expect(outcome.out.split('\n').slice(0, 3)).toEqual([
      'SUBNET       PUBLIC IP  BACKEND  TTL       REVISION             BOOT    NODE    SELF',
      '10.5.1.0/24  192.0.2.1  udp      23h 59m   7                    boot-1  node-a',
      '10.5.2.0/24  192.0.2.2  vxlan    1m 1s     7                    boot-1  node-b  *',
    ]);
    expect(outcome.err).toBe("note: refused 'junk?[31m': lease key is not a subnet\n");
  });

  it('as a document', async () => {
    expect(json(await run('leases -o json --node-id node-a'))).toEqual({
      apiVersion: 'tartan/v1',
      kind: 'LeaseList',
      items: [
        {
          subnet: '10.5.1.0/24',
          publicIp: '192.0.2.1',
          nodeId: 'node-a',
          bootId: 'boot-1',
          backend: 'udp',
          revision: 7,
          ttlSeconds: 86_399,
          self: true,
        },
        {
          subnet: '10.5.2.0/24',
          publicIp: '192.0.2.2',
          nodeId: 'node-b',
          bootId: 'boot-1',
          backend: 'vxlan',
          revision: 7,
          ttlSeconds: 61,
          self: false,
        },
        {
          subnet: '10.5.9.0/24',
          publicIp: '192.0.2.9',
          nodeId: null,
          bootId: null,
          backend: 'udp',
          revision: '1152921504606846976',
          ttlSeconds: null,
          self: false,
        },
      ],
      kept: [],
      rejected: [{ key: 'junk\u001b[31m', revision: 3, reason: 'lease key is not a subnet' }],
    });
  });

  it('self is what the running daemon says, else the state directory, else nobody', async () => {
    const self = async (line = 'leases -o json'): Promise<unknown> =>
      (json(await run(line)) as { items: { self: boolean; subnet: string }[] }).items
        .filter(item => item.self)
        .map(item => item.subnet);
    expect(await self()).toEqual([]);
    expect(world.calls).toContain('status /run/tartan');
    mkdirSync(join(folder, 'state'));
    writeFileSync(join(folder, 'state', 'node-id'), 'node-b\n');
    expect(await self()).toEqual(['10.5.2.0/24']);
    expect(await self(`leases -o json --state-dir ${folder}`)).toEqual([]);
    world.reading = { kind: 'status', status };
    expect(await self()).toEqual(['10.5.1.0/24']);
    world.env['TARTAN_NODE_ID'] = 'node-b';
    expect(await self()).toEqual(['10.5.2.0/24']);
  });

  it.each([
    ['lease ls', '/usr/bin/tartan'],
    ['ls', '/usr/local/bin/subnet-lease'],
    ['leases', '/opt/tartan/dist/tartan.js'],
  ])('is the same as %s of %s', async (line, calledAs) => {
    expect((await run(line, calledAs)).out).toBe((await run('leases')).out);
  });

  it('etcd not reachable is 5, with a cause and a next step', async () => {
    world.failure = new TartanError('STORE_UNAVAILABLE', 'etcd did not answer');
    expect(await run('leases')).toEqual({
      status: 5,
      out: '',
      err: 'error: etcd did not answer\nnext: check that etcd runs at http://127.0.0.1:2379 (from the default, because no daemon answers here and no option names another); --etcd-endpoints names another\n',
    });
    expect(world.calls.at(-1)).toBe('close');
  });

  it.each([[new TartanError('PERMISSION', 'denied')], [new TartanError('CONFIG_INVALID', 'bad')], [new Error('odd')]])(
    '%s is 1',
    async failure => {
      world.failure = failure;
      const outcome = await run('leases');
      expect(outcome.status).toBe(1);
      expect(outcome.err).toMatch(/^error: (denied|bad|odd)\nnext: .+\n$/);
    },
  );
});

describe('status', () => {
  it('is 4 when no daemon answers', async () => {
    const outcome = await run('status --run-dir /run/x');
    expect(outcome).toMatchObject({ status: 4, out: '' });
    expect(outcome.err).toMatch(/^error: tartand cannot be asked: there is no socket\nnext: .*--run-dir/);
    expect(world.calls).toEqual(['status /run/x']);
  });

  it('is 0 when it answers, and with --check 2 unless it is ready and well', async () => {
    world.reading = { kind: 'status', status };
    expect((await run('status')).status).toBe(0);
    expect((await run('status --check')).status).toBe(0);
    const health = { state: 'impaired', reasons: ['etcd is away'] } as const;
    world.reading = { kind: 'status', status: { ...status, health } };
    expect((await run('status --check')).status).toBe(2);
    world.reading = { kind: 'status', status: { ...status, ready: false, phase: 'waiting-for-lease' } };
    expect((await run('status')).status).toBe(0);
    const checked = await run('status --check');
    expect(checked.status).toBe(2);
    expect(checked.out).toContain('waiting-for-lease');
  });

  it('prints the document as the daemon gave it', async () => {
    world.reading = { kind: 'status', status };
    expect(json(await run('status -o json'))).toEqual(status);
  });

  it('takes the run directory from the environment', async () => {
    world.env['FLANNELD_RUN_DIR'] = '/run/f';
    await run('status');
    world.env['TARTAN_RUN_DIR'] = '/run/t';
    await run('status');
    await run('status --run-dir=/run/o');
    expect(world.calls).toEqual(['status /run/f', 'status /run/t', 'status /run/o']);
  });
});

describe('config', () => {
  const document = '{"Network":"10.5.0.0/16","Backend":{"Type":"udp","Port":9000}}';
  const view = {
    apiVersion: 'tartan/v1',
    kind: 'NetworkConfig',
    network: '10.5.0.0/16',
    subnetLength: 24,
    subnetMin: '10.5.1.0',
    subnetMax: '10.5.255.0',
    subnets: 255,
    backend: { type: 'udp', port: 9000 },
    engine: 'auto',
    warnings: [],
    document: { Network: '10.5.0.0/16', Backend: { Type: 'udp', Port: 9000 } },
  };

  function file(content: string): string {
    const path = join(folder, 'network.json');
    writeFileSync(path, content);
    return path;
  }

  it('get prints the document with what follows from it', async () => {
    world.network = document;
    expect(json(await run('config get -o json'))).toEqual(view);
    expect((await run('config get')).out).toBe(
      'network  10.5.0.0/16\n' +
        'subnets  /24 each, 255 of them, 10.5.1.0 to 10.5.255.0\n' +
        'backend  udp, port 9000\n',
    );
    expect((await run('config get -o wide')).out).toContain(`document  ${document}\n`);
  });

  it('get: an absent document is 1, an invalid one 2', async () => {
    expect(await run('config get --etcd-prefix /p')).toEqual({
      status: 1,
      out: '',
      err: 'error: there is no network document in etcd at /p/config\nnext: write one with: tartan config set FILE\n',
    });
    world.network = '{"Network":7}';
    const outcome = await run('config get');
    expect(outcome).toMatchObject({ status: 2, out: '' });
    expect(outcome.err).toContain('error: network document: Network is number 7');
  });

  it('validate: a file, standard input or the text; etcd is not asked', async () => {
    world.stdin = document;
    for (const source of [file(document), '-', document])
      expect(json(await run(['config', 'validate', '-o', 'json', source]))).toEqual(view);
    expect(world.calls).toEqual([]);
  });

  it.each(['', 'null', '[]', '{"Network":"10.5.0.0/33"}', '{"Network":"10.5.0.0/16","SubnetLen":31}'])(
    'validate and set of %j are 2 and write nothing',
    async text => {
      const path = file(text);
      for (const command of ['validate', 'set']) {
        const outcome = await run(['config', command, path]);
        expect(outcome).toMatchObject({ status: 2, out: '' });
        expect(outcome.err).toMatch(/^error: .+\nnext: .+\n$/);
      }
      expect(world.calls).toEqual([]);
    },
  );

  it('warnings go to stderr, or into the document', async () => {
    const text = '{"Network":"10.5.0.7/16","Backend":{"Type":"vxlan"}}';
    const outcome = await run(['config', 'validate', text]);
    expect(outcome.status).toBe(0);
    expect(outcome.err.split('\n')).toEqual([
      'note: Network 10.5.0.7/16 has host bits set, 10.5.0.0/16 is used',
      'note: this version of tartand does not run the backend vxlan',
      '',
    ]);
    const quiet = await run(['config', 'validate', '-o', 'json', text]);
    expect(quiet.err).toBe('');
    expect(json(quiet)).toMatchObject({ warnings: [expect.any(String), expect.any(String)] });
  });

  it('set writes what it was given, without the newline at the end', async () => {
    world.stdin = `${document}\n`;
    for (const source of [file(`${document}\n`), '-', document])
      expect(json(await run(['config', 'set', '-o', 'json', source]))).toEqual(view);
    expect(world.calls).toEqual(Array.from({ length: 3 }, () => [`put ${document}`, 'close']).flat());
  });

  it('a file that cannot be read is 1', async () => {
    const outcome = await run(`config set ${folder}/absent`);
    expect(outcome.status).toBe(1);
    expect(outcome.err).toMatch(/^error: .*absent cannot be read .*ENOENT.*\nnext: give a file/);
    expect(world.calls).toEqual([]);
  });

  it('etcd not reachable is 5', async () => {
    world.failure = new TartanError('STORE_UNAVAILABLE', 'etcd did not answer');
    expect((await run('config get')).status).toBe(5);
    expect((await run(['config', 'set', document])).status).toBe(5);
  });
});

describe('cleanup', () => {
  it('prints what was removed', async () => {
    world.removed = ['link tartan0', 'process 12'];
    expect(await run('cleanup --run-dir /run/x --state-dir /var/x')).toEqual({
      status: 0,
      out: 'removed link tartan0\nremoved process 12\n',
      err: '',
    });
    expect(world.calls).toEqual(['cleanup /run/x /var/x']);
    expect(json(await run('cleanup -o json'))).toEqual({
      apiVersion: 'tartan/v1',
      kind: 'Cleanup',
      removed: ['link tartan0', 'process 12'],
    });
  });

  it('fault F10: names on stderr what others changed; says so when there was nothing, and fails with 1', async () => {
    world.left = ["'bip' in /etc/docker/daemon.json was changed by others and stays"];
    expect((await run('cleanup')).err).toBe(`note: ${world.left[0]}\n`);
    expect((await run('cleanup')).out).toBe('nothing of tartan was here\n');
    expect((await run('cleanup --flannel')).out).toBe('nothing of flannel was here\n');
    world.failure = new TartanError('HOST_REFUSED', 'busy');
    expect((await run('cleanup')).status).toBe(1);
  });
});
