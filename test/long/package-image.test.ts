/**
 * The image on a host of its own engine, beside a host with tartan installed: loaded, run with what the unit leaves it,
 * and what it does not outlive. TARTAN_PACKAGES is the directory of the packages.
 */
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeEach, describe, expect, onTestFailed, test } from 'vitest';
import { DockerEngine, type EngineVersion } from '../support/docker-engine.js';
import { engineOf } from '../support/flow-bed.js';
import type { LabHost } from '../support/lab-host.js';
import { needTool, root, run, until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const versions = (['20', '26', '28'] as const).filter(version => DockerEngine.available(version));
const packages = process.env['TARTAN_PACKAGES'] ?? join(root, '.cache/long-package/first');
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';
const image = join(packages, `tartan-${version}-image-${architecture}.tar`);
const unit = readFileSync(join(root, 'config/systemd/tartand.service'), 'utf8');
const capabilities = (/^CapabilityBoundingSet=(.*)$/m.exec(unit)?.[1] ?? '').split(' ');

const security = ['systempaths=unconfined', 'apparmor=unconfined', 'no-new-privileges'];

/** Of linux/capability.h. */
const capabilityNumbers: Readonly<Record<string, number>> = {
  CAP_CHOWN: 0,
  CAP_KILL: 5,
  CAP_SETGID: 6,
  CAP_SETUID: 7,
  CAP_SETPCAP: 8,
  CAP_NET_ADMIN: 12,
  CAP_NET_RAW: 13,
  CAP_SYS_PTRACE: 19,
  CAP_BPF: 39,
};

const flannelDir = (host: LabHost): string => join(host.spaces.directory, host.letter, 'flannel');

/** As the README and config/compose have it. */
async function runImage(host: LabHost, etcd: string, kept: readonly string[]): Promise<void> {
  for (const folder of [host.runDir, host.stateDir, flannelDir(host)]) mkdirSync(folder, { recursive: true });
  const options = [
    ['run', '-d', '--name', 'tartand', '--network', 'host', '--pid', 'host', '--restart', 'unless-stopped'],
    ['--cap-drop', 'ALL', ...kept.flatMap(name => ['--cap-add', name.replace('CAP_', '')])],
    ['--device', '/dev/net/tun', ...security.flatMap(option => ['--security-opt', option])],
    ['-v', `${host.runDir}:/run/tartan`, '-v', `${flannelDir(host)}:/run/flannel`],
    ['-v', `${host.stateDir}:/var/lib/tartan`, '-e', `TARTAN_ETCD_ENDPOINTS=${etcd}`],
  ];
  await engineOf(host).docker(...options.flat(), `tartan:${version}`);
  await ready(host);
}

async function ready(host: LabHost): Promise<void> {
  await until(
    `tartand in the image of host ${host.letter}`,
    async () => {
      const status = await host.status().catch(() => undefined);
      return (
        status?.lease !== null &&
        status?.lease !== undefined &&
        status.peers.length === 1 &&
        existsSync(join(host.runDir, 'docker.env'))
      );
    },
    30_000,
  );
  copyFileSync(join(host.runDir, 'docker.env'), host.dockerEnvFile);
  copyFileSync(join(flannelDir(host), 'subnet.env'), host.subnetFile);
}

async function restartDocker(host: LabHost): Promise<void> {
  await engineOf(host).stopDaemon();
  await engineOf(host).startDaemon();
  await ready(host);
}

/** As /proc/PID/status has it. */
function maskOf(names: readonly string[]): string {
  const numbers = names.map(name => capabilityNumbers[name] ?? 64);
  return numbers
    .reduce((sum, number) => sum | (1n << BigInt(number)), 0n)
    .toString(16)
    .padStart(16, '0');
}

describe.each(versions.map(engine => ({ engine })))('Docker $engine', ({ engine }: { engine: EngineVersion }) => {
  // Docker 20 refuses a name that it does not know.
  const kept = capabilities.filter(name => engine !== '20' || name !== 'CAP_BPF');
  const lab = useLab({ nodes: ['a', 'b'], docker: { version: engine } }, async opened => {
    const [a, b] = [opened.node('a'), opened.node('b')];
    await a.bringUp();
    await a.startEngine();
    // Docker runs first here, with options of its own.
    writeFileSync(b.dockerEnvFile, '');
    await engineOf(b).start();
    await engineOf(b).docker('load', '-i', image);
    await runImage(b, opened.etcd.endpoint, kept);
  });
  beforeEach(() => {
    onTestFailed(async () => {
      const said = await engineOf(lab().node('b')).docker('logs', '--tail', '15', 'tartand').catch(String);
      process.stderr.write(`--- the image on host b\n${said}\n`);
    });
  });

  /** Datagrams that are lost each way, of 1000 a second, while something happens. */
  async function lostBeside(work: () => Promise<unknown>): Promise<readonly number[]> {
    const flows = await Promise.all(lab().pairs.map(([from, to]) => lab().flow(from, to)));
    await work();
    return Promise.all(flows.map(async flow => (await flow.stop()).lost));
  }

  test('it is a member, with the capabilities of the unit and no others', async () => {
    const b = lab().node('b');
    const pid = await engineOf(b).docker('inspect', '-f', '{{.State.Pid}}', 'tartand');
    const script = `process.stdout.write(require('node:fs').readFileSync('/proc/${pid}/status'))`;
    const status = await engineOf(b).docker('exec', 'tartand', '/usr/lib/tartan/bin/node', '-e', script);
    expect(/^CapBnd:\s+(\w+)$/m.exec(status)?.[1]).toBe(maskOf(kept));
    expect(/^CapEff:\s+(\w+)$/m.exec(status)?.[1]).toBe(maskOf(kept));
    expect(status).toMatch(/^NoNewPrivs:\s+1$/m);
    expect((await b.status()).health).toEqual({ state: 'ok', reasons: [] });
  });

  test('after one restart of Docker its containers and those of another host reach each other', async () => {
    const b = lab().node('b');
    await restartDocker(b);
    await engineOf(b).runContainer('box');
    await lab().spaces.adoptContainer('b', await engineOf(b).pidOf('box'));
    expect(await engineOf(b).addressOf('box')).toBe(b.containerAddress);
    await lab().waitForRoutes();
    const lost = await lostBeside(async () => {
      for (const [from, to] of lab().pairs) {
        const { sent, received } = await lab().transfer(from, to, 20_000_000);
        expect(received).toEqual({ ...sent, source: from.containerAddress });
      }
    });
    expect(lost).toEqual([0, 0]);
  });

  test('its own restart is no hand-over: packets are lost until it is back, with the same subnet', async () => {
    const b = lab().node('b');
    const before = [b.subnet, await b.datapathPid()];
    const lost = await lostBeside(async () => {
      await engineOf(b).docker('restart', 'tartand');
      await ready(b);
      await lab().waitForRoutes();
      // What is sent now must arrive.
      await until('a packet', () => b.pingFromContainer(lab().node('a').containerAddress), 20_000);
    });
    console.log(`Docker ${engine}: docker restart tartand lost ${lost.join(' and ')} datagrams of 1000 a second`);
    expect(b.subnet).toBe(before[0]);
    expect(await b.datapathPid()).not.toBe(before[1]);
    for (const count of lost) expect(count).toBeLessThan(15_000);
    expect(await lostBeside(async () => void (await b.pingFromContainer(b.containerAddress, 2)))).toEqual([0, 0]);
  });
});

describe('config/compose', () => {
  const file = join(root, 'config/compose/compose.yaml');
  const plugin = join(root, '.cache/release/compose/usr/libexec/docker/cli-plugins/docker-compose');
  const lab = useLab({ nodes: ['a'], etcd: false, docker: { version: '28' } }, async opened => {
    const host = opened.node('a');
    writeFileSync(host.dockerEnvFile, '');
    await engineOf(host).start();
    await engineOf(host).docker('load', '-i', image);
    await engineOf(host).docker('import', await makeEtcdImage(opened.spaces.directory), 'etcd:3.5');
  });

  test('an etcd and tartand start from it, and tartand is ready', async () => {
    const engine = engineOf(lab().node('a'));
    const environment = { DOCKER_HOST: engine.url };
    await run([plugin, '-f', file, 'up', '--detach', '--quiet-pull'], { environment, timeoutMs: 60_000 });
    const put = ['exec', 'compose-etcd-1', '/usr/bin/etcdctl', 'put', '/coreos.com/network/config'];
    const done = (): Promise<boolean> =>
      engine.docker(...put, '{"Network":"10.5.0.0/16"}').then(
        () => true,
        () => false,
      );
    await until('etcd', done, 20_000);
    await until(
      'tartand',
      async () => {
        const text = await engine
          .docker('exec', 'compose-tartand-1', 'tartan', 'status', '-o', 'json')
          .catch(() => '{}');
        return (JSON.parse(text) as { health?: { state: string } }).health?.state === 'ok';
      },
      30_000,
    );
  });
});

/** An archive for `docker import`: etcd, its tool and the C library of this machine. */
async function makeEtcdImage(directory: string): Promise<string> {
  const tree = join(directory, 'etcd-image');
  mkdirSync(join(tree, 'usr/bin'), { recursive: true });
  for (const name of ['etcd', 'etcdctl']) {
    const program = needTool('', name);
    copyFileSync(program, join(tree, 'usr/bin', name));
    for (const [library] of (await run(['ldd', program])).matchAll(/\/lib\S*\.so\S*/g)) {
      mkdirSync(join(tree, dirname(library)), { recursive: true });
      copyFileSync(library, join(tree, library));
    }
  }
  await run(['tar', '-C', tree, '-cf', `${tree}.tar`, '.']);
  return `${tree}.tar`;
}
